"""Tensors that do not fit are refused with what, where and the fix; nothing is launched."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from generator.errors import BuildError, GroupwiseError, LaunchError, NoVariantError
from generator.runtime.layer import run_rows, workspace_bytes
from generator.runtime.manifest import Manifest
from generator.runtime.pack import pack
from generator.verify.inputs import seed_state
from tests.runtime.small import Small, small

CPU = torch.device("cpu")


@pytest.fixture(params=["layer_w8g128_a8_swiglu_bf16_v1", "layer_w4g128_a8_swiglu_bf16_v1"])
def layer(request: pytest.FixtureRequest, shipped: Manifest, device: torch.device) -> Small:
    return small(shipped, device, name=request.param)


@pytest.fixture
def bytes_of_128(layer: Small) -> int:
    """Bytes of a row of 128 weights."""
    return {"int8": 128, "int4": 64}[layer.layer.weights]


def refused(layer: Small, **changes: object) -> str:
    with pytest.raises(LaunchError) as caught:
        layer.tokens(**changes)
    return str(caught.value)


def test_wrong_dtype(layer: Small) -> None:
    message = refused(layer, hidden=layer.batch.hidden.half())
    assert message == "[launch] hidden: is torch.float16; pass torch.bfloat16"


def test_wrong_shape(layer: Small) -> None:
    message = refused(layer, hidden=layer.batch.hidden[:, :64].contiguous())
    assert message == "[launch] hidden: has shape [10, 64]; pass [any, 128]"


def test_several_defects_are_told_at_once(layer: Small) -> None:
    message = refused(layer, weights=layer.batch.weights.double()[:, :1])
    assert message.splitlines() == [
        "[launch] weights: is torch.float64; pass torch.float32",
        "[launch] weights: has shape [10, 1]; pass [10, 2]",
        "[launch] weights: is not contiguous; pass weights.contiguous()",
    ]


def test_not_contiguous(layer: Small) -> None:
    wide = torch.zeros(10, 256, dtype=torch.bfloat16, device=layer.batch.hidden.device)
    assert "pass hidden.contiguous()" in refused(layer, hidden=wide[:, ::2])


def test_wrong_device(layer: Small) -> None:
    device = layer.batch.hidden.device
    for name in ("hidden", "ids", "weights"):
        there = getattr(layer.batch, name).to("meta")
        assert (
            refused(layer, **{name: there}) == f"[launch] {name}: is on meta; move it to {device}"
        )
    counts = torch.zeros(4, dtype=torch.int32, device="meta")
    with pytest.raises(LaunchError, match="tokens_per_expert: is on meta; move it to"):
        run_rows(layer.packed, layer.batch.hidden, counts, layer.manifest)


def test_every_argument_of_the_wrong_type_or_shape(layer: Small) -> None:
    batch = layer.batch
    assert refused(layer, ids=batch.ids.float()) == (
        "[launch] ids: is torch.float32; pass torch.int32 or torch.int64"
    )
    assert refused(layer, ids=batch.ids[:9]) == "[launch] ids: has shape [9, 2]; pass [10, any]"
    assert refused(layer, weights=batch.weights.bfloat16()) == (
        "[launch] weights: is torch.bfloat16; pass torch.float32"
    )
    turned = batch.ids.t().contiguous().t()
    assert refused(layer, ids=turned) == "[launch] ids: is not contiguous; pass ids.contiguous()"
    for counts, told in (
        (torch.zeros(4, dtype=torch.int64), "is torch.int64; pass torch.int32"),
        (torch.zeros(5, dtype=torch.int32), "has shape [5]; pass [4]"),
        (torch.zeros(8, dtype=torch.int32)[::2], "is not contiguous; pass tokens_per_expert.cont"),
    ):
        with pytest.raises(LaunchError) as caught:
            run_rows(layer.packed, batch.hidden, counts.to(batch.ids.device), layer.manifest)
        assert str(caught.value).startswith(f"[launch] tokens_per_expert: {told}")
    wide = torch.empty(10, 256, dtype=torch.bfloat16, device=batch.hidden.device)
    assert "out: is not contiguous; pass out.contiguous()" in refused(layer, out=wide[:, ::2])
    assert "out: has shape [10, 256]; pass [10, 128]" in refused(layer, out=wide)


def test_an_unknown_plan(layer: Small) -> None:
    with pytest.raises(BuildError) as caught:
        layer.tokens(plan="fused")
    there = "separate, folded, dispatched"
    told = f"{layer.layer.name}: has no plan `fused`, only {there}; name one of them"
    assert str(caught.value) == f"[build] {told}"
    with pytest.raises(BuildError, match="has no plan `fused`"):
        layer.rows(layer.batch.hidden, [10, 0, 0, 0], plan="fused")


def test_an_unsupported_target(layer: Small) -> None:
    """One that the manifest does not know, alone or before others."""
    for targets in (("sm_70",), ("sm_70", "portable")):
        with pytest.raises(NoVariantError) as caught:
            layer.tokens(targets=targets)
        assert str(caught.value) == (
            f"[no-variant] target sm_70: is no target of {layer.manifest.directory};"
            f" use {' or '.join(layer.manifest.targets)}, or build with `--target`"
        )


def test_weights_of_another_group(layer: Small) -> None:
    """Scales of 320 down, where the contract has one per 128."""
    other = {"int8": "layer_w8g128g320_a8", "int4": "layer_w4g512g320_a8"}[layer.layer.weights]
    name = f"{other}_swiglu_bf16_v1"
    packed = pack(
        seed_state(layer.manifest.layer(name), replace(layer.shape, intermediate=320), CPU, 0),
        layer.manifest.layer(name),
    ).to(layer.batch.hidden.device)
    message = refused(layer, packed=replace(packed, layer=layer.layer.name))
    assert message.splitlines()[0] == (
        "[launch] down_scale: has shape [4, 1, 128]; pass [4, 3, 128]"
    )


def test_weights_of_the_other_format(layer: Small) -> None:
    """int8 weights called int4, and the other way round: the bytes of a row do not fit."""
    other = {"int8": "layer_w4g128", "int4": "layer_w8g128"}[layer.layer.weights]
    message = refused(layer, packed=replace(layer.packed, layer=f"{other}_a8_swiglu_bf16_v1"))
    have, want = {"int8": (128, 64), "int4": (64, 128)}[layer.layer.weights]
    assert message == f"[launch] up_weight: has shape [4, 256, {have}]; pass [4, 256, {want}]"


def test_no_tensor(layer: Small) -> None:
    assert refused(layer, ids=[[0, 1]]) == "[launch] ids: is a list; pass a torch.Tensor"


def test_wrong_output(layer: Small) -> None:
    out = torch.empty(10, 128, device=layer.batch.hidden.device)
    assert "out: is torch.float32; pass torch.bfloat16" in refused(layer, out=out)


def test_other_layout_version(layer: Small) -> None:
    message = refused(layer, packed=replace(layer.packed, layout=2))
    assert "layout version 2; this runtime launches 1; pack the checkpoint again" in message


@pytest.mark.parametrize("plan", [None, "separate", "folded"])
def test_shape_without_variant(
    shipped: Manifest, device: torch.device, layer: Small, plan: str | None
) -> None:
    """Rows are padded to what kernels take, so that only the limits of the proofs are left."""
    long = small(
        shipped,
        device,
        name=layer.layer.name,
        hidden=16448,
        intermediate=64,
        experts=1,
        global_experts=1,
        top_k=1,
        count=1,
        plan=plan,
    )
    with pytest.raises(NoVariantError) as caught:
        long.tokens()
    fix = "raise `limits.k` of the spec, then python -m generator build --contract quantize_"
    assert f"K = 16448 exceeds 16384; {fix}" in str(caught.value)


def test_unknown_layer(layer: Small) -> None:
    with pytest.raises(GroupwiseError, match="holds no layer contract `nothing`"):
        layer.tokens(packed=replace(layer.packed, layer="nothing"))


def test_workspace_of_the_caller_gives_the_same_bits(layer: Small) -> None:
    run = layer.tokens()
    needed = workspace_bytes(run.problem, layer.manifest)
    workspace = torch.full((needed,), 0x5A, dtype=torch.uint8, device=layer.batch.hidden.device)
    assert torch.equal(layer.tokens(workspace=workspace).out, run.out)


def test_workspace_too_small(layer: Small) -> None:
    run = layer.tokens()
    needed = workspace_bytes(run.problem, layer.manifest)
    short = torch.empty(needed - 1, dtype=torch.uint8, device=layer.batch.hidden.device)
    message = refused(layer, workspace=short)
    assert f"holds {needed - 1} bytes of {needed}; size it by workspace_bytes" in message


def test_workspace_of_another_type(layer: Small) -> None:
    floats = torch.empty(10**6, device=layer.batch.hidden.device)
    assert "is no flat tensor of bytes" in refused(layer, workspace=floats)
    assert "workspace: is a list; torch.empty(" in refused(layer, workspace=[1])


def test_output_is_written_in_place(layer: Small) -> None:
    out = torch.full_like(layer.batch.hidden, float("nan"))
    run = layer.tokens(out=out)
    assert run.out is out and torch.isfinite(out).all()


def refused_weights(layer: Small, **changes: object) -> str:
    return refused(layer, packed=replace(layer.packed, **changes))


def test_weights_must_be_what_their_facts_say(layer: Small, bytes_of_128: int) -> None:
    packed = layer.packed
    assert (
        f"up_weight: has shape [4, 256, {bytes_of_128}]; pass [8, 256, {bytes_of_128}]"
        in refused_weights(layer, experts=8)
    )
    short = packed.up_scale[:, :, :128].contiguous()
    assert "up_scale: has shape [4, 1, 128]; pass [4, 1, 256]" in refused_weights(
        layer, up_scale=short
    )
    wide = packed.down_scale.float()
    assert "down_scale: is torch.float32; pass torch.bfloat16" in refused_weights(
        layer, down_scale=wide
    )
    strided = torch.ones(4, 256, device=packed.up_weight.device)[:, ::2]
    assert "up_inv_smooth: is not contiguous" in refused_weights(layer, up_inv_smooth=strided)
    assert "down_weight: is on meta" in refused_weights(
        layer, down_weight=packed.down_weight.to("meta")
    )


def test_the_first_expert_must_leave_ids_in_int32(layer: Small) -> None:
    assert "first_expert: -1 is no id that 4 local experts can start at" in refused(
        layer, first_expert=-1
    )
    assert f"use 0 .. {2**31 - 5}" in refused(layer, first_expert=2**31 - 2)
    ids = torch.full_like(layer.batch.ids, -(2**31)).to(torch.int32)
    assert not layer.tokens(ids=ids, first_expert=2**31 - 5).out.any()


def test_hidden_states_start_at_16_bytes(layer: Small) -> None:
    storage = torch.zeros(10 * 128 + 4, dtype=torch.bfloat16, device=layer.batch.hidden.device)
    hidden = storage[4:].view(10, 128)
    message = refused(layer, hidden=hidden)
    assert message.endswith("multiple of 16 bytes; pass hidden.clone()")


def test_output_and_workspace_are_apart(layer: Small) -> None:
    needed = workspace_bytes(layer.tokens().problem, layer.manifest)
    workspace = torch.empty(needed, dtype=torch.uint8, device=layer.batch.hidden.device)
    out = workspace[: 10 * 128 * 2].view(torch.bfloat16).view(10, 128)
    message = refused(layer, out=out, workspace=workspace)
    assert "out: overlaps workspace; pass memory of its own" in message


def test_output_may_be_the_hidden_states(layer: Small) -> None:
    want, hidden = layer.tokens().out, layer.batch.hidden.clone()
    assert torch.equal(layer.tokens(hidden=hidden, out=hidden).out, want)
