"""An analytic cost of a design on a target: it orders legal designs and decides nothing else.

Source: the roofline model (Williams, Waterman, Patterson, CACM 52(4), 2009) with wave quantization,
plus Little's law for the bytes that a program's stages keep in flight.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from generator.formats import FORMATS
from generator.lower.variant import Variant
from generator.lower.walk import Walk

# Share of the device bandwidth that rows of a tile reach by their length in bytes. 128-byte rows
# are whole cache lines; 64-byte rows moved 2.3 of 3.7 TB/s (one H200, 2026-11-22, int4 decode
# 131072 x 7168); 32 is extrapolated.
LINE_BYTES = 128
SHORT_ROW_EXPONENT = 0.69

# Estimates, not measurements: they only have to order designs.
PROMOTIONS_PER_US = (
    2000  # sums that one thread converts and scales: two instructions at 1.7 GHz, half hidden
)
WARP_ACCESS_BYTES = 512  # one 16-byte access of each of 32 lanes
TURN_US = 0.02  # a further access of the same warp, once the first is under way
ROW_STEP_LATENCIES = 0.25  # of a row-wise step: the second pass hits the cache, warps overlap
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


@dataclass(frozen=True, slots=True)
class Cost:
    """The terms that the estimate is the greatest of, and the estimate."""

    programs: int
    waves: int
    bytes_moved: int  # from and to device memory
    operations: int  # multiplications and additions, padding included
    memory_us: float
    cache_us: float
    math_us: float
    chain_us: float  # loads that wait for one another within a program
    total_us: float


def _row_efficiency(walk: Walk, element_bytes: int) -> float:
    """Bandwidth share of a walk: each tile of K reads rows of its own length."""
    sizes = [walk.step] * walk.repeat + [tile.size for tile in walk.tiles]
    shares = [
        float(min(1.0, size * element_bytes / LINE_BYTES) ** SHORT_ROW_EXPONENT) for size in sizes
    ]
    return sum(sizes) / sum(size / share for size, share in zip(sizes, shares, strict=True))


def resident_programs(variant: Variant) -> int:
    """Programs that one processor holds at once."""
    figures = variant.target.cost
    by_threads = figures.resident_threads // variant.threads
    registers = (variant.sum_registers + variant.operand_registers) * variant.threads
    by_registers = figures.register_file // max(registers, 1)
    by_shared = figures.shared_per_processor // max(variant.shared_bytes, 1)
    return max(1, min(by_threads, by_registers, by_shared))


def gemm_cost(variant: Variant, shape: Shape) -> Cost:
    gemm, design, figures = variant.gemm, variant.design, variant.target.cost
    assert gemm and design.block_m and design.block_n and design.block_k
    row_tiles = shape.experts * ceil(shape.rows_per_expert / design.block_m)
    programs = row_tiles * (shape.n // design.block_n)
    resident = resident_programs(variant)
    waves = ceil(programs / (figures.processors * resident))

    code_bytes, weight_bytes = FORMATS[gemm.codes].bytes, FORMATS[gemm.weights].bytes
    columns = gemm.weight_tiles * shape.n
    groups = shape.k // gemm.group_k if gemm.group_k else 1
    weights = (
        shape.experts * columns * (shape.k * weight_bytes + groups * FORMATS[gemm.scale].bytes)
    )
    rows = shape.experts * shape.rows_per_expert
    bytes_moved = weights + rows * (shape.k * code_bytes + shape.n * FORMATS[gemm.output].bytes)
    tile_bytes = shape.k * (
        design.block_m * code_bytes + gemm.weight_tiles * design.block_n * weight_bytes
    )
    operations = 2 * row_tiles * design.block_m * columns * shape.k

    bandwidth = figures.dram_bytes_per_us * _row_efficiency(variant.walk, weight_bytes)
    memory_us = bytes_moved / bandwidth
    cache_us = programs * tile_bytes / figures.cache_bytes_per_us
    # The busiest processor's share; the last one takes as long as a full one.
    share = ceil(programs / figures.processors)
    math_us = operations / programs * share / figures.dot_ops_per_us
    # Little's law: a program has its stages' bytes in flight, and waits a latency for each such
    # load.
    chain_us = waves * figures.load_latency_us * (1 + tile_bytes / variant.shared_bytes)
    # One group's promotion waits for its dots: it cannot hide behind the next group's loads.
    promotions = design.block_m * design.block_n * gemm.weight_tiles * (groups if groups > 1 else 0)
    promotion_us = share * promotions / PROMOTIONS_PER_US
    busy_us = max(memory_us, cache_us, math_us, chain_us)
    return Cost(
        programs=programs,
        waves=waves,
        bytes_moved=bytes_moved,
        operations=operations,
        memory_us=memory_us,
        cache_us=cache_us,
        math_us=math_us,
        chain_us=chain_us,
        total_us=figures.launch_us + busy_us + promotion_us,
    )


def row_cost(variant: Variant, shape: Shape) -> Cost:
    """Row-wise operations: bytes, and the steps that one program takes one after the other."""
    design, figures = variant.design, variant.target.cost
    rows = shape.experts * shape.rows_per_expert
    if design.block_k is not None:  # quantize: a program owns rows and walks K twice
        programs = ceil(rows / (design.block_m or 1))
        steps, width = 2 * ceil(shape.k / design.block_k), design.block_k * (design.block_m or 1)
        bytes_moved = rows * shape.k * ROW_ELEMENT_BYTES
    else:  # combine: a program owns columns of one row
        programs = rows * (shape.n // (design.block_n or 1))
        steps, width = 2, design.block_n or 1
        bytes_moved = rows * shape.n * ROW_ELEMENT_BYTES
    resident = resident_programs(variant)
    waves = ceil(programs / (figures.processors * resident))
    # Narrow steps leave lanes idle, wide ones take turns.
    turns = max(1.0, width * ROW_ELEMENT_BYTES / (design.warps * WARP_ACCESS_BYTES))
    step_us = figures.load_latency_us * ROW_STEP_LATENCIES + turns * TURN_US
    chain_us = waves * steps * step_us
    memory_us = bytes_moved / figures.dram_bytes_per_us
    return Cost(
        programs=programs,
        waves=waves,
        bytes_moved=bytes_moved,
        operations=0,
        memory_us=memory_us,
        cache_us=0.0,
        math_us=0.0,
        chain_us=chain_us,
        total_us=figures.launch_us + max(memory_us, chain_us),
    )


def cost(variant: Variant, shape: Shape) -> Cost:
    if variant.gemm:
        return gemm_cost(variant, shape)
    if variant.contract.operation == "route":
        return Cost(1, 1, 0, 0, 0.0, 0.0, 0.0, 0.0, variant.target.cost.launch_us)
    return row_cost(variant, shape)
