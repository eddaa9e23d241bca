"""Designs whose warps have roles: one loads a ring of stages, two groups of four multiply.

The matrix instruction of such a group takes 64 rows of weights, its first operand; a stage holds
128 bytes of every row, what one copy by TMA takes from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from generator.lower.variant import Variant

MULTIPLYING = 8  # warps
LOADING = 4  # warps whose registers a program takes; one of them has something to do
WEIGHT_ROWS = 128  # of a tile
LINE = 128  # bytes of every row in a stage
PART_ROWS = 64  # rows whose results are stored at once
THREAD_REGISTERS = 240  # of a thread that multiplies, where one that loads has 24


def stage_bytes(variant: Variant) -> int:
    """Of the weights and the rows of one stage."""
    assert variant.design.block_m is not None
    planes = 2 if variant.planes else 1
    return LINE * (WEIGHT_ROWS + planes * variant.design.block_m)


def held_registers(variant: Variant) -> int:
    """Sums of one thread that multiplies. Of a group, fp32 beside what is in the making: two sums,
    or three halves of them where each plane of nibbles makes its own.
    """
    sums = variant.result_registers
    if variant.gemm is None or variant.gemm.group_k is None:
        return sums
    return sums + (3 * sums // 2 if variant.planes else 2 * sums)


def operand_registers(variant: Variant) -> int:
    """Nibbles of one thread on their way: the low ones and the high ones of 64 rows of a stage."""
    threads = variant.target.warp_size * MULTIPLYING
    return 2 * LINE * WEIGHT_ROWS // (4 * threads) if variant.planes else 0


def ring_bytes(variant: Variant) -> int:
    """Shared memory of the ring, and beside it: scales of rows for either group of warps, and
    results while their layout changes.
    """
    assert variant.design.block_m is not None
    scales = 2 * variant.design.block_m * 4
    return variant.design.stages * stage_bytes(variant) + scales + PART_ROWS * LINE // 2
