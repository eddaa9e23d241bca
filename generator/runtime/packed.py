"""The experts of one layer as launches take them: which tensors, of which shapes, and what is wrong
with others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from ..errors import Finding, LaunchError
from ..formats import FORMATS
from ..packing import groups_of, padded
from . import check
from .manifest import Layer
from .workspace import torch_dtype

LAYOUT = 1  # version of the kernel layout; raised when stored bytes change

# The seed's state dict, by the field of PackedExperts that each name becomes.
SEED_NAMES = {
    "up_weight": "up_proj_weight",
    "up_scale": "up_proj_weight_scale",
    "up_inv_smooth": "up_proj_quantize.inv_smooth_scale",
    "down_weight": "down_proj_weight",
    "down_scale": "down_proj_weight_scale",
    "down_inv_smooth": "down_proj_quantize.inv_smooth_scale",
}


def is_shard(value: object) -> bool:
    """Whether it is a pair (rank, size) with 0 <= rank < size."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        return False
    return all(type(each) is int for each in value) and 0 <= value[0] < value[1]


@dataclass(frozen=True)
class PackedExperts:
    """The experts of one layer in kernel layout. E local experts, H hidden, I intermediate of this
    shard.
    """

    layer: str  # layer contract
    experts: int
    hidden: int
    intermediate: int
    # H and I below are padded to multiples of 64; the rows of int4 weights take half the bytes.
    up_weight: torch.Tensor  # int8 [E, 2 I, H], gate rows before up rows
    up_scale: torch.Tensor  # [E, groups of H, 2 I]
    up_inv_smooth: torch.Tensor  # fp32 [E, H]
    down_weight: torch.Tensor  # int8 [E, H, I]
    down_scale: torch.Tensor  # [E, groups of I, H]
    down_inv_smooth: torch.Tensor  # fp32 [E, I]
    shard: tuple[int, int] = (0, 1)  # rank and size of a split of I
    layout: int = LAYOUT

    def tensors(self) -> dict[str, torch.Tensor]:
        return {name: getattr(self, name) for name in SEED_NAMES}

    def to(self, device: torch.device | str) -> PackedExperts:
        """The same weights on another device."""
        moved: dict[str, Any] = {name: each.to(device) for name, each in self.tensors().items()}
        return replace(self, **moved)


def seed_shapes(
    layer: Layer, experts: int, hidden: int, intermediate: int
) -> dict[str, tuple[int, ...]]:
    """Shapes of the seed's state dict, by PackedExperts field."""

    def scale(n: int, k: int, group: int | None) -> tuple[int, ...]:
        return (experts, n) if group is None else (experts, n, groups_of(k, group))

    rows = 2 if layer.weights == "int4" else 1  # of weights that share a row of bytes
    return {
        "up_weight": (experts, 2 * intermediate // rows, hidden),
        "up_scale": scale(2 * intermediate, hidden, layer.up_group),
        "up_inv_smooth": (experts, hidden),
        "down_weight": (experts, hidden // rows, intermediate),
        "down_scale": scale(hidden, intermediate, layer.down_group),
        "down_inv_smooth": (experts, intermediate),
    }


def size_findings(layer: Layer, experts: int, hidden: int, intermediate: int) -> list[Finding]:
    """What is wrong with a layer's sizes, whatever its weights are."""
    sizes = {"experts": experts, "hidden": hidden, "intermediate": intermediate}
    findings = [
        Finding(name, f"is {size}", "use 1 or more") for name, size in sizes.items() if size < 1
    ]
    if layer.weights == "int4" and hidden % 2:
        what = f"is {hidden}, and int4 stands two rows to a byte"
        findings.append(Finding("hidden", what, "use an even hidden size"))
    return findings


def kernel_shapes(
    layer: Layer, experts: int, hidden: int, intermediate: int
) -> dict[str, tuple[int, ...]]:
    """Shapes of the kernel layout, by PackedExperts field."""
    h, i = padded(hidden), padded(intermediate)
    stored = FORMATS[layer.weights]
    return {
        "up_weight": (experts, 2 * i, stored.bytes_of(h)),
        "up_scale": (experts, groups_of(h, layer.up_group), 2 * i),
        "up_inv_smooth": (experts, h),
        "down_weight": (experts, h, stored.bytes_of(i)),
        "down_scale": (experts, groups_of(i, layer.down_group), h),
        "down_inv_smooth": (experts, i),
    }


def storage_dtype(layer: Layer, field: str) -> torch.dtype:
    """The dtype that a contract stores a field of PackedExperts in."""
    if field.endswith("weight"):
        return torch.int8
    return torch_dtype(layer.scale) if field.endswith("scale") else torch.float32


def check_packed(packed: PackedExperts, layer: Layer) -> None:
    """Refuse weights whose tensors are not what their facts and their contract say.

    Raises LaunchError with everything wrong with a tensor: a launch would read past its end.
    """
    if packed.layout != LAYOUT:
        what = f"has layout version {packed.layout}; this runtime launches {LAYOUT}"
        raise LaunchError(Finding("packed weights", what, "pack the checkpoint again"))
    shapes = kernel_shapes(layer, packed.experts, packed.hidden, packed.intermediate)
    for field, shape in shapes.items():
        value, device = getattr(packed, field), packed.up_weight.device
        check.tensor(field, value, shape, (storage_dtype(layer, field),), device)
        check.aligned(field, value)
