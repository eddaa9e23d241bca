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
    with pytest.raises(NoVariantError, match=r"N = 96 is no multiple of \d+ \(nearest: "):
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


def test_output_is_written_in_place(layer: Small) -> None:
    out = torch.full_like(layer.batch.hidden, float("nan"))
    run = layer.tokens(out=out)
    assert run.out is out and torch.isfinite(out).all()
