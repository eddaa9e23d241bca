"""Count differing bits. NaNs compare as a class, every other bit exactly."""

from __future__ import annotations

from dataclasses import dataclass

import torch

_INTEGER = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One tensor against the oracle's."""

    stage: str
    bits: int
    different: int
    variant: str
    why: str


def differing_bits(got: torch.Tensor, want: torch.Tensor) -> int:
    """Bits in which two tensors of one shape and dtype differ."""
    if got.shape != want.shape or got.dtype != want.dtype:
        raise ValueError(
            f"compared {got.dtype} {list(got.shape)} with {want.dtype} {list(want.shape)}"
        )
    if got.numel() == 0:
        return 0
    width = _INTEGER[got.element_size()]
    difference = got.contiguous().view(width) ^ want.contiguous().view(width)
    if got.is_floating_point():
        both_nan = torch.isnan(got) & torch.isnan(want)
        difference = torch.where(both_nan, torch.zeros_like(difference), difference)
    different = difference[difference != 0].contiguous().view(torch.uint8)
    count = 0
    for bit in range(8):
        count += int(((different >> bit) & 1).sum())
    return count


def compare(
    stage: str, pairs: list[tuple[torch.Tensor, torch.Tensor]], variant: str, why: str
) -> Comparison:
    """All tensors of one stage, as (got, want)."""
    bits = sum(got.numel() * got.element_size() * 8 for got, _ in pairs)
    return Comparison(
        stage, bits, sum(differing_bits(got, want) for got, want in pairs), variant, why
    )
