"""Packing: the seed's layout to the kernel layout and back, shards, files, refusals."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from generator.errors import PackError
from generator.runtime.manifest import Layer, load
from generator.runtime.nibbles import planes_of_rows, rows_of_pairs
from generator.runtime.pack import int8_weights, pack, unpack
from generator.runtime.packed import SEED_NAMES, PackedExperts, check_packed
from generator.runtime.packed_file import load as load_packed
from generator.runtime.packed_file import save
from generator.verify.cases import Shape
from generator.verify.inputs import seed_state

CPU = torch.device("cpu")


def layer(name: str = "layer_w8gn_a8_swiglu_bf16_v1") -> Layer:
    return load().layer(name)


def grouped(up: int | None, down: int | None, weights: str = "int8") -> Layer:
    """A layer contract with other groups or weights: packing looks at nothing else."""
    return replace(layer(), up_group=up, down_group=down, weights=weights)


def state(of: Layer, hidden: int = 128, intermediate: int = 64) -> dict[str, torch.Tensor]:
    return seed_state(of, Shape(2, 2, 1, hidden, intermediate, 1), CPU, seed=0)


groups = st.sampled_from([None, 32, 64, 128, 192])
weights = st.sampled_from(["int8", "int4"])


def assert_round_trip(of: Layer, hidden: int, intermediate: int) -> PackedExperts:
    seed = state(of, hidden, intermediate)
    packed = pack(seed, of)
    check_packed(packed, of)
    assert (packed.hidden, packed.intermediate) == (hidden, intermediate)
    back = unpack(packed, of)
    assert back.keys() == seed.keys()
    for name, value in seed.items():
        assert back[name].dtype == value.dtype and torch.equal(back[name], value), name
    return packed


@settings(max_examples=60, deadline=None)
@given(groups, groups, weights, st.integers(1, 200), st.integers(1, 200))
def test_round_trip(up: int | None, down: int | None, kind: str, h: int, i: int) -> None:
    """Any H and I; int4 stands two rows of the down weights to a byte, so its H is even."""
    hidden = h + h % 2 if kind == "int4" else h
    assert_round_trip(grouped(up, down, kind), hidden, i)


@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize(("hidden", "intermediate"), [(232, 176), (176, 360), (360, 233), (64, 1)])
def test_rows_are_padded_with_zeros_and_scales_with_ones(
    kind: str, hidden: int, intermediate: int
) -> None:
    of = grouped(128, 64, kind)
    packed = assert_round_trip(of, hidden, intermediate)
    h, i = -(-hidden // 64) * 64, -(-intermediate // 64) * 64
    stored = 2 if kind == "int4" else 1
    assert packed.up_weight.shape == (2, 2 * i, h // stored)
    assert packed.down_weight.shape == (2, h, i // stored)
    up = int8_weights(packed.up_weight, of, 128).unflatten(1, (2, i))
    down = int8_weights(packed.down_weight, of, 64)
    assert not up[:, :, intermediate:].any() and not up[..., hidden:].any()
    assert not down[:, hidden:].any() and not down[..., intermediate:].any()
    assert up[:, :, :intermediate, :hidden].any() and down[:, :hidden, :intermediate].any()
    assert (packed.up_scale.unflatten(2, (2, i))[..., intermediate:] == 1).all()
    assert (packed.down_scale[:, :, hidden:] == 1).all()
    assert packed.up_scale.shape[1] == -(-h // 128) and packed.down_scale.shape[1] == i // 64
    assert not packed.up_inv_smooth[:, hidden:].any()
    assert not packed.down_inv_smooth[:, intermediate:].any()


def test_groups_that_padding_adds_have_scale_one() -> None:
    """I = 65 is padded to 128: two groups of 32 hold something, one element is in a third."""
    packed = assert_round_trip(grouped(None, 32), 64, 65)
    assert packed.down_scale.shape == (2, 4, 64)
    assert (packed.down_scale[:, 3] == 1).all() and (packed.down_scale[:, 2] != 1).all()


@pytest.mark.parametrize("group", [None, 32, 64, 192])
def test_int4_stands_in_planes_of_its_group(group: int | None) -> None:
    of = grouped(group, group, "int4")
    seed = state(of, 192, 64)
    packed = pack(seed, of)
    rows = rows_of_pairs(seed["up_proj_weight"])
    assert rows.shape == (2, 128, 192)
    assert torch.equal(packed.up_weight, planes_of_rows(rows, group))
    assert torch.equal(int8_weights(packed.up_weight, of, group), rows)


def test_int4_keeps_its_bytes() -> None:
    """Nothing is unpacked in memory: two weights to a byte, no byte more."""
    packed = pack(state(grouped(64, 64, "int4")), grouped(64, 64, "int4"))
    assert packed.up_weight.numel() * 2 == 2 * 2 * 64 * 128
    assert packed.down_weight.numel() * 2 == 2 * 128 * 64


def test_kernel_layout() -> None:
    of = grouped(64, 32)
    seed = state(of)
    packed = pack(seed, of)
    assert packed.up_scale.shape == (2, 2, 128) and packed.down_scale.shape == (2, 2, 128)
    assert packed.up_scale[1, 0, 5] == seed["up_proj_weight_scale"][1, 5, 0]
    assert torch.equal(packed.up_weight, seed["up_proj_weight"])
    assert all(each.is_contiguous() for each in packed.tensors().values())


@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("share", [32, 64, 96])
def test_shards_slice_gate_and_up_apart(kind: str, share: int) -> None:
    of, total = grouped(64, 32, kind), 2 * share
    seed = state(of, intermediate=total)
    parts = [pack(seed, of, shard=(rank, 2)) for rank in (0, 1)]
    assert [part.intermediate for part in parts] == [share, share]
    backs = [unpack(part, of) for part in parts]

    def rows(of_state: dict[str, torch.Tensor], name: str) -> torch.Tensor:
        return rows_of_pairs(of_state[name]) if kind == "int4" else of_state[name]

    up = rows(seed, "up_proj_weight")
    for rank, back in enumerate(backs):
        own = slice(rank * share, (rank + 1) * share)
        want = up.unflatten(1, (2, total))[:, :, own].flatten(1, 2)
        assert torch.equal(rows(back, "up_proj_weight"), want)
        want = seed["up_proj_weight_scale"].unflatten(1, (2, total))[:, :, own].flatten(1, 2)
        assert torch.equal(back["up_proj_weight_scale"], want)
    joined = torch.cat([rows(back, "down_proj_weight") for back in backs], dim=2)
    assert torch.equal(joined, rows(seed, "down_proj_weight"))
    for name in ("down_proj_weight_scale", "down_proj_quantize.inv_smooth_scale"):
        assert torch.equal(torch.cat([back[name] for back in backs], dim=-1), seed[name])


def test_shards_are_padded_one_by_one() -> None:
    """deepseek-v2-lite over 8 ranks has 176 a rank: no group border need divide a channel."""
    of = grouped(None, None, "int4")
    parts = [pack(state(of, intermediate=352), of, shard=(rank, 2)) for rank in (0, 1)]
    assert [part.down_weight.shape for part in parts] == [(2, 128, 96)] * 2
    for part in parts:
        assert not int8_weights(part.down_weight, of, None)[..., 176:].any()


def test_a_channel_scale_is_shared_by_all_shards() -> None:
    of = grouped(None, None)
    parts = [pack(state(of), of, shard=(rank, 2)) for rank in (0, 1)]
    assert torch.equal(parts[0].down_scale, parts[1].down_scale)


def test_files_keep_everything(tmp_path: Path) -> None:
    of = grouped(64, 32)
    packed = pack(state(of), of, shard=(1, 2))
    save(packed, tmp_path / "experts.safetensors")
    back = load_packed(tmp_path / "experts.safetensors")
    assert back.shard == (1, 2) and back.layer == of.name and back.intermediate == 32
    for name, value in packed.tensors().items():
        assert torch.equal(back.tensors()[name], value)


def test_files_without_their_library_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    of = layer()
    told = "safetensors: is not installed, and packed weights are stored by it; pip install"
    with pytest.raises(PackError, match=told):
        save(pack(state(of), of), tmp_path / "experts.safetensors")
    with pytest.raises(PackError, match=told):
        load_packed(tmp_path / "experts.safetensors")


def test_foreign_and_damaged_files_are_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, str(foreign))
    with pytest.raises(PackError, match="holds no packed experts"):
        load_packed(foreign)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"not a safetensors file")
    with pytest.raises(PackError, match="cannot be read"):
        load_packed(damaged)
    with pytest.raises(PackError, match="cannot be read"):
        load_packed(tmp_path / "missing.safetensors")


def test_files_with_other_facts_are_refused(tmp_path: Path) -> None:
    of = layer()
    packed = pack(state(of), of)
    for facts in ({"layer": of.name}, {"layer": 1, "layout": 1}, []):
        metadata = {"groupwise": json.dumps(facts)}
        save_file(packed.tensors(), str(tmp_path / "facts.safetensors"), metadata=metadata)
        with pytest.raises(PackError, match="holds no packed experts"):
            load_packed(tmp_path / "facts.safetensors")
    with pytest.raises(PackError, match="cannot be written"):
        save(packed, tmp_path / "no" / "folder.safetensors")


@pytest.mark.parametrize("shard", [[0], [0, 1, 2], ["a", "b"], [5, 2], [0, True], [-1, 2]])
def test_files_of_no_shard_are_refused(tmp_path: Path, shard: list[object]) -> None:
    of = layer()
    save(replace(pack(state(of), of), shard=shard), tmp_path / "experts.safetensors")
    with pytest.raises(PackError, match="holds no packed experts"):
        load_packed(tmp_path / "experts.safetensors")


def test_no_tensors_are_refused() -> None:
    assert refused(layer(), state(layer()) | {"up_proj_weight": [1]}) == [
        "[pack] up_proj_weight: is no tensor; pass tensors"
    ]


def test_another_layout_version_is_refused(tmp_path: Path) -> None:
    of = layer()
    save(replace(pack(state(of), of), layout=9), tmp_path / "old.safetensors")
    with pytest.raises(PackError, match="has layout version 9; this runtime reads 1"):
        load_packed(tmp_path / "old.safetensors")


def refused(of: Layer, seed: dict[str, torch.Tensor], **options: tuple[int, int]) -> list[str]:
    with pytest.raises(PackError) as caught:
        pack(seed, of, **options)
    return str(caught.value).splitlines()


def test_missing_and_unknown_names_are_all_told() -> None:
    seed = state(layer())
    seed["bias"] = seed.pop("up_proj_weight_scale")
    assert refused(layer(), seed) == [
        "[pack] up_proj_weight_scale: is missing from the state dict; add it",
        "[pack] bias: is no tensor of this layer; remove it; nothing is dropped in silence",
    ]


def test_wrong_shapes_and_types_are_all_told() -> None:
    seed = state(layer())
    seed["up_proj_weight"] = seed["up_proj_weight"].to(torch.uint8)
    seed["down_proj_weight_scale"] = seed["down_proj_weight_scale"][:, :5]
    messages = refused(layer(), seed)
    assert any("up_proj_weight: is torch.uint8; pass torch.int8" in each for each in messages)
    assert any("has shape [2, 5]; layer_w8gn" in each for each in messages)


def test_scales_are_never_rounded() -> None:
    of, seed = layer(), state(layer())
    wide = seed["up_proj_weight_scale"].float()
    assert torch.equal(
        pack(seed | {"up_proj_weight_scale": wide}, of).up_scale, pack(seed, of).up_scale
    )
    finer = seed | {"up_proj_weight_scale": wide * (1 + 2.0**-20)}
    assert "packing never rounds a scale" in refused(of, finer)[0]


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_groups_must_divide_the_shard(kind: str) -> None:
    of = grouped(64, 32, kind)
    told = refused(of, state(of), shard=(0, 4))
    assert told == [
        f"[pack] {of.name}: intermediate of a shard = 16 is no multiple of the group size 32;"
        " use fewer shards, or a contract whose group divides it"
    ]
    assert "does not split into 3 shards; use a size" in refused(of, state(of), shard=(0, 3))[0]
    for wrong in ((2, 2), (0,), (0, 0), (-1, 2), "01", None):
        told = refused(of, state(of), shard=wrong)
        assert told == [f"[pack] shard: is {wrong!r}; pass (rank, size), 0 <= rank < size"]


def test_scales_must_be_numbers() -> None:
    """As the contract stores them and in another format alike."""
    of = grouped(None, None)
    for dtype, wrong in ((torch.bfloat16, float("nan")), (torch.float32, float("inf"))):
        seed = state(of)
        for name in ("up_proj_weight_scale", "down_proj_quantize.inv_smooth_scale"):
            seed[name] = seed[name].to(dtype if name.endswith("weight_scale") else torch.float32)
            seed[name][0, 0] = wrong
        assert refused(of, seed) == [
            f"[pack] {name}: holds NaN or infinity; quantize the checkpoint again"
            for name in ("up_proj_weight_scale", "down_proj_quantize.inv_smooth_scale")
        ]


def test_no_state_dict() -> None:
    assert refused(grouped(None, None), [1]) == [
        "[pack] state dict: is a list; pass a mapping of names to tensors"
    ]


def test_int4_needs_an_even_hidden_size() -> None:
    of = grouped(None, None, "int4")
    seed = state(grouped(None, None), 127, 64)
    seed["up_proj_weight"] = seed["up_proj_weight"][:, :64].contiguous()
    seed["down_proj_weight"] = seed["down_proj_weight"][:, :63].contiguous()
    assert refused(of, seed) == [
        "[pack] hidden: is 127, and int4 stands two rows to a byte; use an even hidden size"
    ]


def test_weights_of_the_other_format_are_refused() -> None:
    """int8 weights are twice as many bytes as int4 ones of the same layer."""
    told = refused(grouped(None, None, "int4"), state(grouped(None, None)))
    assert "[pack] up_proj_weight: has shape [2, 128, 128]" in told[0]
    assert told[0].endswith("takes [2, 64, 128]")


def test_every_field_has_a_seed_name() -> None:
    assert set(SEED_NAMES) == set(pack(state(layer()), layer()).tensors())
