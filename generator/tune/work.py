"""What a call must move and multiply at least, and the time that takes at the device's ceilings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from generator.runtime.packed import PackedExperts
from generator.tune.weights import expert_bytes

# Of int8 matrix products on an H200: plain Triton, per channel, 4096 x 8192 x 4096, tile 128 x 128
# x 128, 8 warps, 3 stages, operands swapped; torch 2.11, Triton 3.6.0, 2026-11-22. A constant, so
# that floors of different runs compare; cuBLAS (`torch._int_mm`) stays below it.
INT8_CEILING_TOPS = 1314.0


@dataclass(frozen=True, slots=True)
class Work:
    """One call, or the mean of several."""

    rows: float  # slots that local experts own
    experts: float  # local experts that own a row
    weight_bytes: float  # weights and scales of those experts, each read once
    token_bytes: float  # hidden states in, result out
    operations: float  # multiplications and additions of both GEMMs

    @property
    def bytes(self) -> float:
        return self.weight_bytes + self.token_bytes

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.operations / self.bytes


def work_of(packed: PackedExperts, ids: torch.Tensor, element_size: int) -> Work:
    """A call with ids [tokens, k], the local experts first, and hidden states of `element_size`
    bytes.
    """
    local = ids[ids < packed.experts]
    hit = int(torch.unique(local).numel())
    rows = int(local.numel())
    return Work(
        rows=rows,
        experts=hit,
        weight_bytes=hit * expert_bytes(packed),
        token_bytes=2 * ids.shape[0] * packed.hidden * element_size,
        operations=2 * rows * 3 * packed.hidden * packed.intermediate,
    )


def mean(works: Sequence[Work]) -> Work:
    """Field by field."""
    return Work(
        **{
            name: fmean(getattr(each, name) for each in works)
            for name in ("rows", "experts", "weight_bytes", "token_bytes", "operations")
        }
    )


def floor_us(work: Work, read_tb_per_s: float) -> float:
    """Microseconds at the memory's ceiling or at that of int8 products, whichever is more."""
    by_memory = work.bytes / (read_tb_per_s * 1e6)
    by_products = work.operations / (INT8_CEILING_TOPS * 1e6)
    return max(by_memory, by_products)
