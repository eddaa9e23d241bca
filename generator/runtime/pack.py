"""Pack a layer's weights from the seed's checkpoint layout into the contract's kernel layout, and
back.

Rows are padded to a multiple of 64 with zeros, which changes no bit of a result: zero weights add
nothing to an exact sum, and the padded columns of the activation are zeros. int8 weights otherwise
keep their bytes, int4 weights go from pairs of rows to planes (`nibbles.py`), and weight scales are
transposed to [experts, groups, N]. Nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..errors import Finding, PackError
from ..packing import groups_of, padded
from .manifest import Layer
from .nibbles import (
    pairs_of_rows,
    planes_of_rows,
    rows_of_pairs,
    rows_of_planes,
)
from .packed import (
    SEED_NAMES,
    PackedExperts,
    is_shard,
    kernel_shapes,
    seed_shapes,
    size_findings,
)
from .workspace import torch_dtype


def pack(
    state: Mapping[str, torch.Tensor], layer: Layer, *, shard: tuple[int, int] = (0, 1)
) -> PackedExperts:
    """Pack the seed's state dict of one experts module (names without prefix).

    `shard` = (rank, size) keeps rank's part of the intermediate dimension, gate and up rows sliced
    separately. Raises PackError with every name, shape, type or group that does not fit.
    """
    by_field = _named(state)
    _check_shard(shard)
    up, down = by_field["up_weight"], by_field["down_weight"]
    findings = []
    if up.dim() != 3 or down.dim() != 3:
        raise PackError(
            [
                Finding(SEED_NAMES[name], f"has {each.dim()} dimensions", "pass [experts, N, K]")
                for name, each in (("up_weight", up), ("down_weight", down))
                if each.dim() != 3
            ]
        )
    experts, hidden, intermediate = up.shape[0], up.shape[2], down.shape[2]
    findings += size_findings(layer, experts, hidden, intermediate)
    shapes = seed_shapes(layer, experts, hidden, intermediate)
    scale_dtype = torch_dtype(layer.scale)
    for name, value in by_field.items():
        where = SEED_NAMES[name]
        if value.shape != shapes[name]:
            what = f"has shape {list(value.shape)}"
            findings.append(Finding(where, what, f"{layer.name} takes {list(shapes[name])}"))
        if name.endswith("weight") and value.dtype != torch.int8:
            findings.append(Finding(where, f"is {value.dtype}", "pass torch.int8"))
        if name.endswith("smooth") and value.dtype != torch.float32:
            findings.append(Finding(where, f"is {value.dtype}", "pass torch.float32"))
        if not _finite(value):
            what, fix = "holds NaN or infinity", "quantize the checkpoint again"
            findings.append(Finding(where, what, fix))
        elif name.endswith("scale") and not _exact(value, scale_dtype):
            what = f"is {value.dtype} with values that {scale_dtype} cannot hold"
            fix = f"use a contract with {value.dtype} scales, or round them yourself"
            findings.append(Finding(where, what, fix, "packing never rounds a scale"))
    findings += _shard_findings(layer, intermediate, shard)
    if findings:
        raise PackError(findings)
    kernel_layout: dict[str, Any] = _kernel_layout(by_field, layer, hidden, intermediate, shard)
    return PackedExperts(
        layer=layer.name,
        experts=experts,
        hidden=hidden,
        intermediate=intermediate // shard[1],
        shard=shard,
        **kernel_layout,
    )


def _named(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    if not isinstance(state, Mapping):
        what = f"is a {type(state).__name__}"
        raise PackError(Finding("state dict", what, "pass a mapping of names to tensors"))
    no_tensors = [name for name in state if not isinstance(state[name], torch.Tensor)]
    if no_tensors:
        raise PackError([Finding(name, "is no tensor", "pass tensors") for name in no_tensors])
    missing = [name for name in SEED_NAMES.values() if name not in state]
    unknown = sorted(state.keys() - set(SEED_NAMES.values()))
    findings = [Finding(name, "is missing from the state dict", "add it") for name in missing]
    findings += [
        Finding(name, "is no tensor of this layer", "remove it; nothing is dropped in silence")
        for name in unknown
    ]
    if findings:
        raise PackError(findings)
    return {field: state[name] for field, name in SEED_NAMES.items()}


def _finite(value: torch.Tensor) -> bool:
    """Integers always are; what stands on meta is not known."""
    if value.is_meta or not value.is_floating_point():
        return True
    return bool(torch.isfinite(value).all())


def _exact(scale: torch.Tensor, dtype: torch.dtype) -> bool:
    if scale.dtype == dtype:
        return True
    if not scale.is_floating_point():
        return False
    return bool(torch.equal(scale.to(dtype).to(scale.dtype), scale))


def _check_shard(shard: tuple[int, int]) -> None:
    if not is_shard(shard):
        fix = "pass (rank, size), 0 <= rank < size"
        raise PackError(Finding("shard", f"is {shard!r}", fix))


def _shard_findings(layer: Layer, intermediate: int, shard: tuple[int, int]) -> list[Finding]:
    _, size = shard
    findings = []
    if intermediate % size:
        what = f"intermediate {intermediate} does not split into {size} shards"
        findings.append(Finding("shard", what, "use a size that divides it"))
    share, group = intermediate // size, layer.down_group
    if size > 1 and group is not None and share % group:
        what = f"intermediate of a shard = {share} is no multiple of the group size {group}"
        fix = "use fewer shards, or a contract whose group divides it"
        findings.append(Finding(layer.name, what, fix))
    return findings


def _kernel_layout(
    seed: Mapping[str, torch.Tensor],
    layer: Layer,
    hidden: int,
    intermediate: int,
    shard: tuple[int, int],
) -> dict[str, torch.Tensor]:
    rank, size = shard
    share = intermediate // size
    own = slice(rank * share, (rank + 1) * share)
    experts = seed["up_weight"].shape[0]
    shapes = kernel_shapes(layer, experts, hidden, share)
    device = seed["up_weight"].device

    def halves(value: torch.Tensor) -> torch.Tensor:
        """Stacked gate and up rows [2 I, ...] to the shard's [2, I, ...]."""
        parts: torch.Tensor = value.unflatten(0, (2, intermediate))
        return parts[:, own]

    def smooth(value: torch.Tensor, length: int) -> torch.Tensor:
        return _wide(value, (experts, padded(length)))

    up_weight = torch.empty(shapes["up_weight"], dtype=torch.int8, device=device)
    down_weight = torch.empty(shapes["down_weight"], dtype=torch.int8, device=device)
    for expert in range(experts):  # one at a time, so that nothing as large stands beside them
        up = halves(_rows(seed["up_weight"][expert], layer))
        up = _wide(up, (2, padded(share), padded(hidden))).flatten(0, 1)
        up_weight[expert] = _stored(up, layer, layer.up_group)
        down = _rows(seed["down_weight"][expert], layer)[:, own]
        down = _wide(down, (padded(hidden), padded(share)))
        down_weight[expert] = _stored(down, layer, layer.down_group)
    up_scale = _grouped(seed["up_scale"], layer).unflatten(1, (2, intermediate))[:, :, own]
    groups = shapes["up_scale"][1]
    up_scale = _wide(up_scale, (experts, 2, padded(share), groups), fill=1.0).flatten(1, 2)
    down_scale = _grouped(seed["down_scale"], layer)
    if size > 1 and layer.down_group is not None:
        each = share // layer.down_group
        down_scale = down_scale[:, :, rank * each : (rank + 1) * each]
    down_scale = _wide(down_scale, (experts, padded(hidden), shapes["down_scale"][1]), fill=1.0)
    return {
        "up_weight": up_weight,
        "up_scale": up_scale.transpose(1, 2).contiguous(),
        "up_inv_smooth": smooth(seed["up_inv_smooth"], hidden),
        "down_weight": down_weight,
        "down_scale": down_scale.transpose(1, 2).contiguous(),
        "down_inv_smooth": smooth(seed["down_inv_smooth"][:, own], share),
    }


def _rows(weight: torch.Tensor, layer: Layer) -> torch.Tensor:
    """One expert's weights in the seed's layout to int8 values [N, K]."""
    return rows_of_pairs(weight) if layer.weights == "int4" else weight


def _stored(rows: torch.Tensor, layer: Layer, group_k: int | None) -> torch.Tensor:
    """int8 values [N, K], K padded, as the kernel layout stores them."""
    return planes_of_rows(rows, group_k) if layer.weights == "int4" else rows


def _grouped(scale: torch.Tensor, layer: Layer) -> torch.Tensor:
    """[E, N] or [E, N, groups] to [E, N, groups] in the contract's format."""
    return (scale.unsqueeze(2) if scale.dim() == 2 else scale).to(torch_dtype(layer.scale))


def _wide(value: torch.Tensor, shape: tuple[int, ...], *, fill: float = 0.0) -> torch.Tensor:
    """A contiguous copy, filled up to a larger shape."""
    if tuple(value.shape) == shape:
        return value.clone(memory_format=torch.contiguous_format)
    wide = torch.full(shape, fill, dtype=value.dtype, device=value.device)
    wide[tuple(slice(0, length) for length in value.shape)] = value
    return wide


def int8_weights(
    weight: torch.Tensor, layer: Layer, group_k: int | None, k: int | None = None
) -> torch.Tensor:
    """Weights [..., N, bytes] in kernel layout as int8 values [..., N, K]; `k` cuts the padding."""
    if layer.weights == "int4":
        weight = rows_of_planes(weight, group_k)
    return weight[..., :k]


def unpack(packed: PackedExperts, layer: Layer) -> dict[str, torch.Tensor]:
    """The seed's state dict of the packed weights (of one shard, where they are sharded)."""
    h, i = packed.hidden, packed.intermediate
    up = int8_weights(packed.up_weight, layer, layer.up_group, h)
    up = up.unflatten(1, (2, padded(i)))[:, :, :i].flatten(1, 2)
    down = int8_weights(packed.down_weight, layer, layer.down_group, i)[:, :h]
    up_scale = packed.up_scale.transpose(1, 2)[:, :, : groups_of(h, layer.up_group)]
    up_scale = up_scale.unflatten(1, (2, padded(i)))[:, :, :i].flatten(1, 2)
    down_scale = packed.down_scale.transpose(1, 2)[:, :h, : groups_of(i, layer.down_group)]
    fields = {
        "up_weight": pairs_of_rows(up) if layer.weights == "int4" else up,
        "up_scale": up_scale if layer.up_group is not None else up_scale.squeeze(2),
        "up_inv_smooth": packed.up_inv_smooth[:, :h],
        "down_weight": pairs_of_rows(down) if layer.weights == "int4" else down,
        "down_scale": down_scale if layer.down_group is not None else down_scale.squeeze(2),
        "down_inv_smooth": packed.down_inv_smooth[:, :i],
    }
    return {SEED_NAMES[name]: value.contiguous() for name, value in fields.items()}
