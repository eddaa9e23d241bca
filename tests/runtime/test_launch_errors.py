"""Tensors that do not fit are refused with what, where and the fix; nothing is launched."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from generator.errors import GroupwiseError, LaunchError, NoVariantError
from generator.runtime.layer import workspace_bytes
from generator.runtime.manifest import Manifest
from tests.runtime.small import Small, small


@pytest.fixture
def layer(shipped: Manifest, device: torch.device) -> Small:
    return small(shipped, device)


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
    assert "move it to" in refused(layer, hidden=layer.batch.hidden.to("meta"))


def test_no_tensor(layer: Small) -> None:
    assert refused(layer, ids=[[0, 1]]) == "[launch] ids: is a list; pass a torch.Tensor"


def test_wrong_output(layer: Small) -> None:
    out = torch.empty(10, 128, device=layer.batch.hidden.device)
    assert "out: is torch.float32; pass torch.bfloat16" in refused(layer, out=out)


def test_other_layout_version(layer: Small) -> None:
    message = refused(layer, packed=replace(layer.packed, layout=2))
    assert "layout version 2; this runtime launches 1; pack the checkpoint again" in message


def test_shape_without_variant(shipped: Manifest, device: torch.device) -> None:
    odd = small(shipped, device, name="layer_w8gn_a8_swiglu_bf16_v1", intermediate=96)
    with pytest.raises(NoVariantError, match=r"K = 96 is no multiple of \d+ \(nearest: "):
        odd.tokens()


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


def test_weights_must_be_what_their_facts_say(layer: Small) -> None:
    packed = layer.packed
    assert "up_weight: has shape [4, 256, 128]; pass [8, 256, 128]" in refused_weights(
        layer, experts=8
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
