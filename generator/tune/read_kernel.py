"""A kernel that reads memory and does as little else as it can."""

from __future__ import annotations

import triton
import triton.language as tl

BLOCK = tl.constexpr(4096)  # int32 of one load
LOADS = tl.constexpr(16)  # of one program; eight are in flight
WARPS = 8


@triton.jit
def read(
    x_ptr,  # int32 [programs * LOADS * BLOCK]
    out_ptr,  # int32 [programs]
):
    program = tl.program_id(0)
    x_ptrs = x_ptr + program.to(tl.int64) * (LOADS * BLOCK) + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), dtype=tl.int32)
    for turn in range(LOADS // 8):
        for load in tl.static_range(8):
            total += tl.load(x_ptrs + (turn * 8 + load) * BLOCK)
    tl.store(out_ptr + program, tl.sum(total, axis=0))


def elements_of_a_program() -> int:
    """int32 that one program reads."""
    return int(BLOCK.value) * int(LOADS.value)
