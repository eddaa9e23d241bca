"""Quotients beside ties, by the text of an emitted kernel: over every significand of a scale."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from generator.runtime.device import current
from generator.runtime.manifest import load

SIGNIFICANDS = 2**23  # of fp32
TRIED = tl.constexpr(2**12)  # of them by a program
BESIDE = tl.constexpr(3)  # ulps on either side of a tie

quotient = load().by_contract["quantize_a8_bf16_v1"][0].kernel.fn.__globals__["_quotient"]


@triton.jit
def differing_beside_ties(stride, count_ptr):
    """int32 [programs]: quotients that are not those of a division."""
    program = tl.program_id(0)
    significand = (program * TRIED + tl.arange(0, TRIED)) * stride
    scale = (significand + 0x3F800000).to(tl.float32, bitcast=True)
    inverse = tl.div_rn(1.0, scale)
    count = tl.zeros((TRIED,), dtype=tl.int32)
    for n in range(127):
        tie = ((n + 0.5) * scale).to(tl.int32, bitcast=True)
        for ulps in range(-BESIDE, BESIDE + 1):
            x = (tie + ulps).to(tl.float32, bitcast=True)
            count += (quotient(x, scale, inverse) != tl.div_rn(x, scale)).to(tl.int32)
    tl.store(count_ptr + program, tl.sum(count, axis=0))


def differing(device: torch.device, *, every: bool) -> int:
    """Quotients that differ, of `every` significand, or of 4096 that are an odd number apart."""
    programs = SIGNIFICANDS // TRIED.value if every else 1
    stride = 1 if every else SIGNIFICANDS // TRIED.value - 1
    counts = torch.full((programs,), -1, dtype=torch.int32, device=device)
    with current(device):
        differing_beside_ties[(programs,)](stride, counts, enable_fp_fusion=False)
    assert int(counts.min()) >= 0
    return int(counts.sum())
