"""An analytic cost of a design on a target: it orders legal designs and decides nothing else.

Source: the roofline model (Williams, Waterman, Patterson, CACM 52(4), 2009) with wave quantization,
plus Little's law for the bytes that a program's stages keep in flight. What a GEMM does at
once overlaps imperfectly, so the estimate is the root of the sum of the terms' squares, not the
greatest of them: of 152 timed batches the pick was within 10 % of the fastest 113 times so and 100
times otherwise (one H100, 2026-11-27).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import ceil, erfc, hypot, sqrt
from typing import NamedTuple

from generator.formats import FORMATS
from generator.lower.variant import Variant
from generator.lower.warps import PART_ROWS, is_pingpong, ring_stages
from generator.packing import groups_of

# Share of the device bandwidth that rows of a tile reach by their length in bytes. 64-byte rows
# moved 2.3 TB/s where whole lines moved 3.7 (one H200, 2026-11-22, int4 decode 131072 x 7168); 32
# is extrapolated. Whole cache lines moved 2.5 to 6.5 % less than two of a row at a time: int8 in
# groups of 128, 1 to 16 rows an expert of Mixtral-8x7B, DeepSeek-V3 and Qwen3-30B-A3B (one H100,
# 2026-11-27); all that is longer than a line counts as two, on every target.
LINE_BYTES = 128
LINE_SHARE = 0.96
SHORT_ROW_EXPONENT = 0.69

# Sums that one processor converts and scales: what group 128 cost a dense 4096 x 8192 x 4096 GEMM
# against one scale per column (835 against 1303 TOPS, one H200, 2026-11-22).
PROMOTIONS_PER_US = 69_000

# A row's element smoothed, divided, rounded and converted in the down kernel, by the rate below:
# what the folded plan cost the down kernel of Mixtral-8x7B (1274 us more for 16 x 14336 elements of
# each of 64 programs, 1 token) and of the seed (98 us, 97 tokens; one H200, 2026-11-24). Every warp
# of a program does it again, and zeros of absent rows take the slow path of the division.
REQUANTIZE_INSTRUCTIONS = 1000.0

# Nibbles on their way into wgmma's registers take a stage of their own: two stages against three of
# the same tile, 64 rows an expert of Mixtral-8x7B (one H100, 2026-11-26).
NIBBLES_IN_TWO_STAGES = 1.3
# Warps past those that a dot's weight rows occupy take the same nibbles apart again: gate and up
# apart against joined, in the same tile (likewise).
WARP_ROWS = 16
NIBBLES_TWICE = 1.4

# A dot whose first operand is too short for the best matrix instruction of its target takes a
# lesser one; fitted. Of 176 timed batches the pick was within 10 % of the fastest 140 times so,
# within 30 % 171 times and 1.39 times as slow at worst; by a factor of 2 it was 138, 169 and 1.48,
# and without 136, 169 and 1.48 (one H100, 2026-11-27).
LESSER_INSTRUCTION = 4.0

# Warps that are alike load, multiply and store in turn, which takes 1.07 to 1.18 times as long as
# all at once: tiles of int8 per channel, 256 rows an expert and more (likewise).
IN_TURN = 1.08
# What is left of the time above where one sum is scaled while another is made: int8 and int4 in
# groups of 32 to 512 at 4096 tokens of Mixtral-8x7B (one H100, 2026-11-26).
UNHIDDEN_PROMOTION = 0.75
# Results of gates are finished while nothing is multiplied, unless groups of warps take tiles by
# turns: up kernels of int8 per channel at 256 rows an expert took 267 and 240 us (Qwen3-30B-A3B),
# 580 and 517 (Mixtral-8x7B); down kernels 156 and 154 (one H100, 2026-11-27).
GATES_IN_TURN = 1.1
# Loads of warps that are alike, by how many programs share a processor: one alone has nobody who
# multiplies while it waits. Of 152 timed batches the pick was within 10 % of the fastest 116 times
# so, within 30 % 148 times and 1.38 times as slow at worst, and 111, 144 and 1.51 without (one
# H100, 2026-11-27).
WAITS = {1: 2.0, 2: 1.0, 3: 0.8}
# A ring of more than this many stages of unpacked weights, as lines shorter than 128 bytes make it:
# in groups of 320 twelve took 5 % (up) to 9 % (down) longer than eight, medians of 22 pairs; that
# is Mixtral-8x7B's; where K is five stages (Qwen3-Coder-480B) they are equal. Of nibbles 24 and 16
# were within 1 % (one H100, 2026-11-27); groups of 32 are extrapolated.
LONG_RING = 8
IN_LONG_RING = 1.05
# Lines of rows that one processor copies by TMA: those of 32 bytes bound int4 in groups of 320. Of
# 24 batches in groups of 256 and 320 picks of a build were 4.4 % from the fastest so, on average,
# 24 % at worst, and with 1600 6.6 and 28 %. Whatever the row tile, it is 6.9 % for 6.6, and one
# went from 20 to 58 (one H100, timings of 2026-11-27).
LINES_PER_US = 1_200

# Estimates, not measurements: they only have to order designs.
INSTRUCTIONS_PER_US = 217_000  # of one processor: 128 lanes at 1.7 GHz
UNPACK_INSTRUCTIONS = {"none": 0.0, "value": 4.0, "shift": 3.0, "ptx": 0.5}  # a weight
# A weight that goes through shared memory on its way from nibbles to the dot, where the matrix
# instruction reads its second operand there: 22 to 26 of the figure above explain 64 rows an expert
# of Mixtral-8x7B and Qwen3-30B-A3B (one H100, 2026-11-26), where weights that come first take 0.5.
THROUGH_SHARED_INSTRUCTIONS = 24.0
TO_FP16_INSTRUCTIONS = 2.0  # an operand of an fp16 dot
SMOOTH_BYTES = 4  # of an element: a row's neighbours are other processors' rows
# Of row-wise kernels, a warp's: rows of 768 to 16384 elements in 1 to 8 warps, 8 to 32768 of them,
# order as they were measured (one H100, 2026-11-25).
ELEMENT_INSTRUCTIONS = 25
STEP_INSTRUCTIONS = 100
ELEMENT_US = 0.02  # of a thread that has its row alone to work at
ROW_ELEMENT_BYTES = 4  # read and written per element: 16-bit in, 8-bit out, or 16 and 16


@dataclass(frozen=True, slots=True)
class Shape:
    """One GEMM or row-wise call, as ranking sees it."""

    experts: int  # experts that own rows
    rows_per_expert: int
    n: int
    k: int

    def sizes(self) -> dict[str, int]:
        rows = self.experts * self.rows_per_expert
        return {"rows": rows, "N": self.n, "K": self.k, "experts": self.experts}


class Cost(NamedTuple):
    """The terms of the estimate, and the estimate."""

    programs: int
    waves: int
    bytes_moved: int  # from and to device memory
    operations: int  # multiplications and additions, padding included
    memory_us: float
    cache_us: float  # or lines of rows that are copied by TMA
    math_us: float
    convert_us: float  # nibbles and rows on their way into the dots
    chain_us: float  # loads that wait for one another within a program
    serial_us: float  # what nothing hides
    total_us: float


@cache
def row_tiles(rows_per_expert: int, block_m: int) -> float:
    """Tiles of an expert, on average, that has some rows: where tokens choose experts alike and by
    themselves, their number is Poisson's, here a normal of the same mean and variance.
    """
    return 1 + sum(_more_than(full, rows_per_expert) for full in _ends(rows_per_expert, block_m))


@cache
def _short_tiles(rows_per_expert: int, block_m: int) -> float:
    """Of these, the last ones of PART_ROWS rows or fewer."""
    ends = (0, *_ends(rows_per_expert, block_m))
    return sum(
        _more_than(end, rows_per_expert) - _more_than(end + PART_ROWS, rows_per_expert)
        for end in ends
    )


def _ends(rows_per_expert: int, block_m: int) -> range:
    """Rows that whole tiles hold, as far as an expert may have more."""
    most = rows_per_expert + 4 * sqrt(rows_per_expert)
    return range(block_m, ceil(most), block_m)


def _more_than(rows: int, mean: int) -> float:
    return 0.5 * erfc((rows + 0.5 - mean) / sqrt(2 * mean)) if rows else 1.0


@cache
def _row_efficiency(sizes: tuple[int, ...]) -> float:
    """Bandwidth share of a walk: each tile of K reads rows of its own length."""
    return sum(sizes) / sum(size / _row_share(size) for size in sizes)


def _row_share(size: int) -> float:
    if size > LINE_BYTES:
        return 1.0
    return LINE_SHARE * float((size / LINE_BYTES) ** SHORT_ROW_EXPONENT)


def _row_sizes(variant: Variant) -> tuple[int, ...]:
    """Bytes of a row that are read at a time: the tiles of a doubled turn lie side by side. So do
    those of an unrolled group, and took within 1 % of one long tile (groups of 256); priced so,
    what a band puts first was 2.11 times as slow as the fastest at worst, and 1.58 otherwise.
    """
    sizes = variant.walk.sizes
    return (sum(sizes),) if variant.doubles else sizes


def gemm_costs(variant: Variant) -> Callable[[Shape], Cost]:
    """Of any shape; what no shape changes is worked out here, for ranking asks of many."""
    gemm, design, figures = variant.gemm, variant.design, variant.target.cost
    assert gemm and design.block_m and design.block_n and design.block_k and design.dot
    block_m, block_n, block_k = design.block_m, design.block_n, design.block_k
    weights_of, rows_of = FORMATS[gemm.weights].bytes_of, FORMATS[gemm.input].bytes_of
    scales_of, results_of = FORMATS[gemm.scale].bytes_of, FORMATS[gemm.output].bytes_of
    group_k, weight_tiles = gemm.group_k, gemm.weight_tiles
    columns_per_program = weight_tiles * block_n
    processors = figures.processors
    side_by_side = processors * variant.resident_programs
    # Lines that one warp copies ahead of the others follow one another, however short they are.
    efficiency = 1.0 if design.specialized else _row_efficiency(_row_sizes(variant))
    bytes_per_us = figures.dram_bytes_per_us * efficiency
    line_rows = columns_per_program + (2 if variant.planes else 1) * block_m
    best = design.dot == "rank1" or variant.target.matrix[-1].name in variant.matrix
    ops_per_us = figures.dot_ops_per_us.of(design.dot) / (1.0 if best else LESSER_INSTRUCTION)
    # Little's law: a program has its stages' bytes in flight, and waits a latency for each such
    # load.
    in_flight = max(variant.shared_bytes, columns_per_program)
    conversions: dict[int, float] = {}  # by K
    short = design.specialized and block_m > PART_ROWS
    nibbles_first = variant.planes and variant.reads_shared and design.swapped
    waits = 1.0 if design.specialized else WAITS[min(variant.resident_programs, max(WAITS))]
    two_stages = NIBBLES_IN_TWO_STAGES if design.stages == 2 else 1.0
    long_ring = design.specialized and not variant.planes and ring_stages(variant) > LONG_RING
    repeated = NIBBLES_TWICE if variant.weight_rows < WARP_ROWS * design.warps else 1.0

    def at(shape: Shape) -> Cost:
        tiles = shape.experts * row_tiles(shape.rows_per_expert, block_m)
        programs = ceil(tiles * (shape.n // block_n))
        waves = ceil(programs / side_by_side)

        columns = weight_tiles * shape.n
        groups = groups_of(shape.k, group_k)
        column_bytes, row_bytes = weights_of(shape.k), rows_of(shape.k)
        weights = shape.experts * columns * (column_bytes + scales_of(groups))
        rows = shape.experts * shape.rows_per_expert
        bytes_moved = weights + rows * (row_bytes + results_of(shape.n))
        tile_bytes = block_m * row_bytes + columns_per_program * column_bytes
        multiplied = tiles * block_m  # rows, padding included
        if short:
            spared = _short_tiles(shape.rows_per_expert, block_m) * (block_m - PART_ROWS)
            multiplied -= shape.experts * spared
        operations = round(2 * multiplied * columns * shape.k)

        memory_us = bytes_moved / bytes_per_us
        cache_us = programs * tile_bytes / figures.cache_bytes_per_us
        # The busiest processor's share; the last one takes as long as a full one.
        share = ceil(programs / processors)
        tile_us = 2 * block_m * columns_per_program * shape.k / ops_per_us
        math_us = share * tile_us
        if short:  # a program takes tile after tile, of which short ones take less
            if shape.rows_per_expert <= PART_ROWS:
                tile_us *= PART_ROWS / block_m
            math_us = min(math_us, max(tile_us, operations / processors / ops_per_us))
        if shape.k not in conversions:
            conversions[shape.k] = _conversions(variant, shape.k)
        convert_us = share * conversions[shape.k] / INSTRUCTIONS_PER_US
        chain_us = waits * waves * figures.load_latency_us * (1 + tile_bytes / in_flight)
        # One group's promotion waits for its dots: it cannot hide behind the next group's loads.
        promotions = block_m * columns_per_program * (groups if group_k else 0)
        promotion_us = share * promotions / PROMOTIONS_PER_US
        if design.specialized:
            math_us, promotion_us = math_us + UNHIDDEN_PROMOTION * promotion_us, 0.0
            math_us *= GATES_IN_TURN if gemm.gate and not is_pingpong(variant) else 1.0
            copy_us = share * line_rows * column_bytes / block_k / LINES_PER_US
            cache_us = max(cache_us, copy_us)
        else:
            math_us *= IN_TURN
        if design.stages == 1:  # nothing is loaded while something is multiplied
            busy_us = hypot(memory_us, cache_us, math_us + convert_us + chain_us)
        else:
            busy_us = hypot(memory_us, cache_us, math_us + convert_us, chain_us)
        if nibbles_first:
            busy_us *= two_stages
            busy_us *= repeated
        if long_ring:
            busy_us *= IN_LONG_RING
        return Cost(
            programs=programs,
            waves=waves,
            bytes_moved=bytes_moved,
            operations=operations,
            memory_us=memory_us,
            cache_us=cache_us,
            math_us=math_us,
            convert_us=convert_us,
            chain_us=chain_us,
            serial_us=promotion_us,
            total_us=figures.launch_us + busy_us + promotion_us,
        )

    return at


def _conversions(variant: Variant, k: int) -> float:
    """Instructions of one program that only change how operands are written."""
    gemm, design = variant.gemm, variant.design
    assert gemm and design.block_m and design.block_n and design.unpack
    weights = gemm.weight_tiles * design.block_n * k
    instructions = weights * UNPACK_INSTRUCTIONS[design.unpack]
    if variant.planes and not variant.unpacks_to_registers:
        instructions += weights * THROUGH_SHARED_INSTRUCTIONS
    if gemm.requantizes:
        instructions += design.block_m * k * REQUANTIZE_INSTRUCTIONS
    if design.dot == "fp16_exact":
        instructions += (weights + design.block_m * k) * TO_FP16_INSTRUCTIONS
    return instructions


def row_cost(variant: Variant, shape: Shape) -> Cost:
    """Row-wise operations: bytes, the instructions of all programs, and what one of them takes from
    its first load to its last store.
    """
    design, figures = variant.design, variant.target.cost
    rows = shape.experts * shape.rows_per_expert
    if design.block_k is not None:  # quantize: a program owns rows, and walks K twice or once
        block_m = 1 if variant.contract.operation == "dispatch" else design.block_m or 1
        programs = ceil(rows / block_m)
        steps = 2 * ceil(shape.k / design.block_k) if design.row == "steps" else 1
        length, width = shape.k, design.block_k * block_m
        cached = rows * shape.k * SMOOTH_BYTES
    else:  # combine: a program owns columns of one row
        assert design.block_n is not None
        programs = rows * ceil(shape.n / design.block_n)
        steps, length, width = 1, shape.n, design.block_n
        cached = 0
    waves = ceil(programs / (figures.processors * variant.resident_programs))
    own = ceil(width / variant.threads)  # elements of a thread and a step
    instructions = design.warps * steps * (own * ELEMENT_INSTRUCTIONS + STEP_INSTRUCTIONS)
    per_us = INSTRUCTIONS_PER_US / variant.target.warp_size * figures.processors
    convert_us = programs * instructions / per_us
    chain_us = waves * steps * (figures.load_latency_us + own * ELEMENT_US)
    bytes_moved = rows * length * ROW_ELEMENT_BYTES
    memory_us = bytes_moved / figures.dram_bytes_per_us
    cache_us = cached / figures.cache_bytes_per_us
    return Cost(
        programs=programs,
        waves=waves,
        bytes_moved=bytes_moved,
        operations=0,
        memory_us=memory_us,
        cache_us=cache_us,
        math_us=0.0,
        convert_us=convert_us,
        chain_us=chain_us,
        serial_us=0.0,
        total_us=figures.launch_us + max(memory_us, cache_us) + convert_us + chain_us,
    )


def cost(variant: Variant, shape: Shape) -> Cost:
    return costs(variant)(shape)


def costs(variant: Variant) -> Callable[[Shape], Cost]:
    """Of any shape that the variant accepts."""
    if variant.gemm:
        return gemm_costs(variant)
    if variant.contract.operation in ("count", "route"):
        launch = Cost(1, 1, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, variant.target.cost.launch_us)
        return lambda shape: launch
    return lambda shape: row_cost(variant, shape)
