"""Designs whose warps have roles: one loads a ring of stages, two groups of four multiply, half of
the weight rows of every tile each, or all of every other tile.

The matrix instruction of such a group takes 64 rows of weights, its first operand; a stage holds a
line of every row, at most what one copy by TMA takes from it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from generator.packing import block_length

if TYPE_CHECKING:
    from generator.lower.variant import Variant

MULTIPLYING = 8  # warps
LOADING = 4  # warps whose registers a program takes; one of them has something to do
WEIGHT_ROWS = 128  # of a tile
LINES = (128, 64, 32)  # bytes of every row in a stage: what shared memory is swizzled by
PART_ROWS = 64  # rows of a short tile, and of sums that are scaled at once
LEFT_ROWS = 128  # rows, at most, whose results wait in shared memory
STRAIGHT_STAGES = 16  # of a group, in straight code
THREAD_REGISTERS = 240  # of a thread that multiplies, where one that loads has 24


def takes_short_tiles(variant: Variant) -> bool:
    """Whether a module walks tiles of few rows in code of their own: the last one of an expert has
    any number of rows.
    """
    return (variant.design.block_m or 0) > PART_ROWS


def is_pingpong(variant: Variant) -> bool:
    """Whether groups of warps take tiles by turns: one multiplies, the other finishes."""
    return variant.design.roles == "pingpong"


def of_rows(variant: Variant, block_m: int) -> Variant:
    """The same variant by another row tile."""
    return replace(variant, design=replace(variant.design, block_m=block_m))


def run_bytes(variant: Variant) -> int:
    """Bytes of a row that lie together within a group, of nibbles within half a block: a multiple
    of the line. Rows of one scale are as long as they like, and take the longest line.
    """
    assert variant.gemm is not None
    group_k = variant.gemm.group_k
    if group_k is None:
        return LINES[0]
    return block_length(group_k) // 2 if variant.planes else group_k


def longest_line(variant: Variant) -> int | None:
    """The longest line that makes up groups; None where none does."""
    run = run_bytes(variant)
    return next((line for line in LINES if run % line == 0), None)


def ring_stages(variant: Variant) -> int:
    """A design counts stages of the longest line; there are more of a shorter one."""
    assert variant.design.block_k is not None
    return variant.design.stages * LINES[0] // variant.design.block_k


def stage_bytes(variant: Variant) -> int:
    """Of the weights and the rows of one stage."""
    assert variant.design.block_m is not None and variant.design.block_k is not None
    planes = 2 if variant.planes else 1
    return variant.design.block_k * (WEIGHT_ROWS + planes * variant.design.block_m)


def rows_of_dot(variant: Variant) -> int:
    """Rows that one dot takes. Halves of a tile where the sum of one is scaled while the other's is
    made: nibbles of a group leave no registers for sums of all rows.
    """
    assert variant.gemm is not None and variant.design.block_m is not None
    halves = variant.planes and variant.gemm.group_k is not None
    return min(variant.design.block_m, PART_ROWS) if halves else variant.design.block_m


def stage_k(variant: Variant) -> int:
    """K elements of a stage; what is left of K after whole groups is a multiple of it."""
    assert variant.design.block_k is not None
    return variant.design.block_k * (2 if variant.planes else 1)


def stages_of_group(variant: Variant) -> int:
    """Stages of the ring that a group fills, or a pair of short groups; 1 where all K is one."""
    assert variant.gemm is not None
    return 1 if variant.gemm.group_k is None else variant.walk.unit_k // stage_k(variant)


def held_registers(variant: Variant) -> int:
    """Sums of one thread that multiplies. Of a group, fp32 beside what is in the making: two sums,
    or of nibbles in pairs of groups up to three halves, and of longer groups one of each half.
    """
    sums = variant.result_registers
    if is_pingpong(variant):  # of all weight rows
        return 2 * sums
    if variant.gemm is None or variant.gemm.group_k is None:
        return sums
    if not variant.planes:
        return 3 * sums
    if variant.walk.groups == 1:
        return 2 * sums
    return 3 * sums if rows_of_dot(variant) == variant.design.block_m else 5 * sums // 2


def operand_registers(variant: Variant) -> int:
    """Nibbles of one thread on their way: the low ones and the high ones of 64 rows of a stage."""
    if not variant.planes:
        return 0
    threads = variant.target.warp_size * MULTIPLYING
    return 2 * LINES[0] * WEIGHT_ROWS // (4 * threads)


def left_rows(variant: Variant) -> int:
    """Rows whose results wait in shared memory until they are finished."""
    return min(variant.design.block_m or 0, LEFT_ROWS)


def ring_bytes(variant: Variant) -> int:
    """Shared memory of the ring, and beside it: scales of rows for either group of warps, and
    results, of 16 bits.
    """
    assert variant.design.block_m is not None
    scales = 2 * variant.design.block_m * 4
    results = left_rows(variant) * WEIGHT_ROWS * 2 * (2 if is_pingpong(variant) else 1)
    return ring_stages(variant) * stage_bytes(variant) + scales + results
