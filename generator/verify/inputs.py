"""Weights and tokens to run on: random, over the full range of every format."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from generator.formats import FORMATS
from generator.runtime.manifest import Layer
from generator.runtime.packed import SEED_NAMES, seed_shapes
from generator.runtime.workspace import torch_dtype
from generator.verify.cases import Shape


@dataclass(frozen=True)
class Tokens:
    """One batch: hidden [T, H], distinct ids int64 [T, k] over all ranks, weights fp32 [T, k]."""

    hidden: torch.Tensor
    ids: torch.Tensor
    weights: torch.Tensor


def seed_state(
    layer: Layer, shape: Shape, device: torch.device, seed: int
) -> dict[str, torch.Tensor]:
    """The seed's state dict: weights over their whole range (bytes of two int4 likewise), scales
    that keep outputs near 1.
    """
    random = torch.Generator(device).manual_seed(seed)
    state = {}
    shapes = seed_shapes(layer, shape.experts, shape.hidden, shape.intermediate)
    largest = FORMATS[layer.weights].magnitude
    for field, size in shapes.items():
        k = shape.hidden if field.startswith("up") else shape.intermediate
        if field.endswith("weight"):
            value = torch.randint(
                -128, 128, size, dtype=torch.int8, device=device, generator=random
            )
        elif field.endswith("scale"):
            value = torch.rand(size, device=device, generator=random) + 0.5
            value = (value / (largest / 2 * k**0.5)).to(torch_dtype(layer.scale))
        else:
            value = torch.rand(size, device=device, generator=random) + 0.5
        state[SEED_NAMES[field]] = value
    return state


def tokens(layer: Layer, shape: Shape, device: torch.device, seed: int) -> Tokens:
    """Normal hidden states; every token draws top_k distinct experts of all ranks."""
    random = torch.Generator(device).manual_seed(seed + 1)
    hidden = torch.randn(shape.tokens, shape.hidden, device=device, generator=random)
    scores = torch.rand(shape.tokens, shape.global_experts, device=device, generator=random)
    weights, ids = scores.topk(shape.top_k, dim=1)
    return Tokens(
        hidden.to(torch_dtype(layer.dtype)), ids, (weights / weights.sum(1, keepdim=True)).float()
    )


def sorted_rows(batch: Tokens, experts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch as the seed's interface takes it: rows in expert order, and int32 counts.

    Slots of other ranks' experts become rows past the sum of the counts.
    """
    local = torch.where(batch.ids < experts, batch.ids, experts).reshape(-1)
    order = torch.argsort(local, stable=True)
    rows = batch.hidden[order // batch.ids.shape[1]].contiguous()
    counts = torch.bincount(local, minlength=experts + 1)[:experts]
    return rows, counts.to(torch.int32)
