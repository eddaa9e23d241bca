"""Packing: the seed's layout to the kernel layout and back, shards, files, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from generator.errors import PackError
from generator.runtime.manifest import Layer, load
from generator.runtime.pack import SEED_NAMES, pack, save, unpack
from generator.runtime.pack import load as load_packed
from generator.verify.cases import Shape
from generator.verify.inputs import seed_state

CPU = torch.device("cpu")


def layer(name: str = "layer_w8gn_a8_swiglu_bf16_v1") -> Layer:
    return load().layer(name)


def grouped(up: int | None, down: int | None) -> Layer:
    """A layer contract with other groups: packing looks at nothing else."""
    return replace(layer(), up_group=up, down_group=down)


def state(of: Layer, hidden: int = 128, intermediate: int = 64) -> dict[str, torch.Tensor]:
    return seed_state(of, Shape(2, 2, 1, hidden, intermediate, 1), CPU, seed=0)


groups = st.sampled_from([None, 32, 64])


@settings(max_examples=30, deadline=None)
@given(groups, groups, st.integers(1, 3), st.integers(1, 3))
def test_round_trip(up: int | None, down: int | None, h: int, i: int) -> None:
    of = grouped(up, down)
    seed = state(of, hidden=64 * h, intermediate=64 * i)
    back = unpack(pack(seed, of), of)
    assert back.keys() == seed.keys()
    assert all(torch.equal(back[name], seed[name]) for name in seed)


def test_kernel_layout() -> None:
    of = grouped(64, 32)
    seed = state(of)
    packed = pack(seed, of)
    assert packed.up_scale.shape == (2, 2, 128) and packed.down_scale.shape == (2, 2, 128)
    assert packed.up_scale[1, 0, 5] == seed["up_proj_weight_scale"][1, 5, 0]
    assert torch.equal(packed.up_weight, seed["up_proj_weight"])
    assert all(each.is_contiguous() for each in packed.tensors().values())


def test_shards_slice_gate_and_up_apart() -> None:
    of = grouped(64, 32)
    seed = state(of)
    parts = [pack(seed, of, shard=(rank, 2)) for rank in (0, 1)]
    assert [part.intermediate for part in parts] == [32, 32]
    up = seed["up_proj_weight"]
    assert torch.equal(parts[1].up_weight, torch.cat([up[:, 32:64], up[:, 96:128]], dim=1))
    joined = torch.cat([part.down_weight for part in parts], dim=2)
    assert torch.equal(joined, seed["down_proj_weight"])
    scales = torch.cat([part.down_scale for part in parts], dim=1)
    assert torch.equal(scales, pack(seed, of).down_scale)
    smooth = torch.cat([part.down_inv_smooth for part in parts], dim=1)
    assert torch.equal(smooth, seed["down_proj_quantize.inv_smooth_scale"])


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


def test_groups_must_divide_the_shard() -> None:
    of = grouped(64, 32)
    assert "no multiple of the group size 32" in refused(of, state(of), shard=(0, 4))[0]
    assert "does not split into 3 shards" in refused(of, state(of), shard=(0, 3))[0]
    assert "is rank 2 of 2; pass (rank, size)" in refused(of, state(of), shard=(2, 2))[0]


def test_every_field_has_a_seed_name() -> None:
    assert set(SEED_NAMES) == set(pack(state(layer()), layer()).tensors())
