"""Random experts in kernel layout, made on the device: packing gigabytes would take longer than
measuring them.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import torch

from generator.formats import FORMATS
from generator.packing import padded
from generator.runtime.manifest import Layer, Model
from generator.runtime.pack import pack
from generator.runtime.packed import PackedExperts, kernel_shapes
from generator.runtime.workspace import torch_dtype
from generator.verify.cases import Shape
from generator.verify.inputs import seed_state


def random_experts(model: Model, layer: Layer, device: torch.device, seed: int) -> PackedExperts:
    """Weights over their whole range, and scales that keep outputs near 1."""
    if padded(model.hidden) != model.hidden or padded(model.intermediate) != model.intermediate:
        # Padding must be zeros, which only packing knows the places of; such models are small.
        sizes = (model.experts, model.global_experts, model.top_k)
        shape = Shape(*sizes, model.hidden, model.intermediate, tokens=1)
        return pack(seed_state(layer, shape, device, seed), layer)
    random = torch.Generator(device).manual_seed(seed)
    largest = FORMATS[layer.weights].magnitude
    shapes = kernel_shapes(layer, model.experts, model.hidden, model.intermediate)
    tensors: dict[str, Any] = {}
    for field, shape_of in shapes.items():
        if field.endswith("weight"):
            tensors[field] = _bytes(shape_of, device, random)
            continue
        value = torch.rand(shape_of, device=device, generator=random) + 0.5
        if field.endswith("scale"):
            k = model.hidden if field.startswith("up") else model.intermediate
            value = (value / (largest / 2 * k**0.5)).to(torch_dtype(layer.scale))
        tensors[field] = value
    return PackedExperts(layer.name, model.experts, model.hidden, model.intermediate, **tensors)


def _bytes(shape: tuple[int, ...], device: torch.device, random: torch.Generator) -> torch.Tensor:
    """int8 of any shape of a multiple of four elements: four are drawn at once."""
    words = torch.empty(prod(shape) // 4, dtype=torch.int32, device=device)
    words.random_(-(2**31), 2**31, generator=random)
    return words.view(torch.int8).view(shape)


def copies(packed: PackedExperts, count: int) -> tuple[PackedExperts, ...]:
    """The same weights at `count` places in memory, the first of them their own."""

    def another() -> PackedExperts:
        tensors: dict[str, Any] = {name: each.clone() for name, each in packed.tensors().items()}
        return replace(packed, **tensors)

    return (packed, *(another() for _ in range(count - 1)))


def expert_bytes(packed: PackedExperts) -> int:
    """Bytes of one expert's weights and their scales."""
    counted = (packed.up_weight, packed.up_scale, packed.down_weight, packed.down_scale)
    return sum(each[0].numel() * each.element_size() for each in counted)


def total_bytes(packed: PackedExperts) -> int:
    """Bytes of all tensors of a layer."""
    return sum(each.numel() * each.element_size() for each in packed.tensors().values())
