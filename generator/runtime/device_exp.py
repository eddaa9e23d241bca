"""exp as the device at hand computes it: the oracle's table for layers whose `exp` is `device`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .device import current
from .reference import all_patterns

BLOCK = 1024


@triton.jit
def _exp_of_minus(
    g_ptr,  # 16-bit floats
    e_ptr,  # fp32
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(e_ptr + i, tl.exp(-tl.load(g_ptr + i).to(tl.float32)))


def device_exp_table(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """exp(-g) fp32 [65536] of all bit patterns g of a 16-bit dtype, by the instruction that kernels
    use.
    """
    patterns = all_patterns(dtype, device)
    table = torch.empty(65536, dtype=torch.float32, device=device)
    with current(device):
        _exp_of_minus[(65536 // BLOCK,)](patterns, table, BLOCK, enable_fp_fusion=False)
    return table
