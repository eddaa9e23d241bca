"""A whole bf16 layer in torch: what a user has without any kernel of their own.

Weights are not quantized, so its floor is twice that of int8 weights and it is compared in time
alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from generator.runtime.manifest import Model
from generator.verify.inputs import Tokens


@dataclass(frozen=True)
class TorchExperts:
    """up bf16 [E, 2 I, H], gate rows first; down bf16 [E, H, I]."""

    up: torch.Tensor
    down: torch.Tensor


def random_torch_experts(model: Model, device: torch.device, seed: int) -> TorchExperts:
    """Normal weights, scaled to keep outputs near 1."""
    random = torch.Generator(device).manual_seed(seed)

    def weight(n: int, k: int) -> torch.Tensor:
        shape = (model.experts, n, k)
        made = torch.empty(shape, dtype=torch.bfloat16, device=device)
        return made.normal_(0, k**-0.5, generator=random)

    return TorchExperts(
        weight(2 * model.intermediate, model.hidden), weight(model.hidden, model.intermediate)
    )


def grouped(rows: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """rows [R, K] by weight [E, N, K] to [R, N]; expert e has the rows up to ends[e], int32."""
    if hasattr(functional, "grouped_mm"):
        product: torch.Tensor = functional.grouped_mm(rows, weight.transpose(1, 2), offs=ends)
        return product
    return torch._grouped_mm(rows, weight.transpose(1, 2), offs=ends)


def torch_layer(experts: TorchExperts, given: Tokens) -> torch.Tensor:
    """bf16 [T, H]: sort by expert, gather, two grouped products, weighted sum. Reads nothing
    back.
    """
    tokens, top_k = given.ids.shape
    count = experts.up.shape[0]
    expert, order = given.ids.reshape(-1).clamp(max=count).sort(stable=True)
    numbers = torch.arange(count, device=expert.device, dtype=expert.dtype)
    ends = torch.searchsorted(expert, numbers, right=True, out_int32=True)
    rows = given.hidden[order // top_k]
    gate, up = grouped(rows, experts.up, ends).chunk(2, dim=1)
    y = grouped(functional.silu(gate) * up, experts.down, ends)
    # Rows of other ranks' experts come last and no product writes them.
    y = torch.where((expert < count)[:, None], y, 0.0)
    by_slot = torch.empty_like(y)
    by_slot[order] = y
    return (by_slot.view(tokens, top_k, -1) * given.weights[:, :, None]).sum(1).to(torch.bfloat16)
