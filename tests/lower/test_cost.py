"""The cost model counts what a kernel moves and multiplies, and never rewards more work."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, hypot, sqrt
from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.lower.cost import REQUANTIZE_INSTRUCTIONS, Cost, Shape, cost
from generator.lower.design import Design
from generator.lower.program import Program
from generator.lower.variant import Variant
from generator.spec.model import Target
from tests.lower.conftest import LIMITS, TARGET, TARGETS, contract, gemm

SHAPE = Shape(experts=2, rows_per_expert=20, n=64, k=256)
ROUNDING = 1 + 1e-9  # of the floating-point sums in an estimate


def row_wise(operation: str, **blocks: int) -> Variant:
    return Variant(contract(operation), Design(4, 1, **blocks), TARGET, LIMITS)


def counts(each: Cost) -> tuple[int, int, int]:
    return each.programs, each.bytes_moved, each.operations


def grown(built: Program, data: st.DataObject) -> tuple[Variant, Shape, Shape]:
    """A kept variant, a shape that it accepts, and the same shape with more rows."""
    kept = [v for plan in built.plans for v in plan.kept if v.contract.operation != "route"]
    variant = data.draw(st.sampled_from(kept), label="variant")
    unit_n = variant.design.block_n or 32
    unit_k = variant.walk.unit_k if variant.gemm else 32
    n, k = (unit * data.draw(st.integers(1, 64)) for unit in (unit_n, unit_k))
    experts, rows, more = (data.draw(st.integers(1, top)) for top in (256, 600, 600))
    return variant, Shape(experts, rows, n, k), Shape(experts, rows + more, n, k)


def tiles(mean: int, block_m: int) -> float:
    """Of an expert that has rows: one, and one more for each that its rows pass."""
    rows = NormalDist(mean, sqrt(mean))
    return 1 + sum(1 - rows.cdf(full * block_m + 0.5) for full in range(1, 4))


def test_down_counts_by_hand() -> None:
    variant = gemm("down", 128, m=16, n=32, k=128)
    own = tiles(20, 16)
    programs = ceil(2 * own * 2)  # experts, their row tiles, column tiles of 32 over 64
    weights = 2 * 64 * 256  # int8
    scales = 2 * 64 * 2 * 2  # experts, columns, groups of 128, bytes of bf16
    rows_in = 2 * 20 * 256  # int8
    rows_out = 2 * 20 * 64 * 2  # bf16
    operations = round(2 * (2 * own * 16) * 64 * 256)  # rows padded to tiles
    assert counts(cost(variant, SHAPE)) == (
        programs,
        weights + scales + rows_in + rows_out,
        operations,
    )


def test_up_reads_and_multiplies_gate_and_up() -> None:
    variant = gemm("up", m=32, n=64)
    weights = 2 * 128 * 256  # int8, the stacked N of gate and up
    scales = 2 * 128 * 2  # one group, bytes of bf16
    rows_in = 2 * 20 * 256
    rows_out = 2 * 20 * 64 * 2
    own = tiles(20, 32)
    operations = round(2 * (2 * own * 32) * 128 * 256)
    programs = ceil(2 * own)
    assert counts(cost(variant, SHAPE)) == (
        programs,
        weights + scales + rows_in + rows_out,
        operations,
    )


def test_nibbles_are_half_the_bytes_and_the_same_operations() -> None:
    whole = cost(gemm("down", 128, m=16, n=32, k=64), SHAPE)
    half = cost(gemm("down", 128, m=16, n=32, k=64, spec="w4a8"), SHAPE)
    assert whole.bytes_moved - half.bytes_moved == 2 * 64 * 256 // 2
    assert (whole.programs, whole.operations) == (half.programs, half.operations)


def test_short_last_group_has_a_scale_of_its_own() -> None:
    """K = 384 in groups of 256: two scales a column."""
    long = Shape(experts=2, rows_per_expert=20, n=64, k=384)
    shared = cost(gemm("down", "channel", n=32), long)
    grouped = cost(gemm("down", 256, n=32), long)
    assert grouped.bytes_moved - shared.bytes_moved == 2 * 64 * 1 * 2  # experts, columns, bf16


def test_folded_down_reads_rows_as_they_were_left() -> None:
    """bf16 rows in place of int8 codes, and their conversion in every program."""
    codes = cost(gemm("down", m=16, n=32), SHAPE)
    folded = cost(gemm("down", m=16, n=32, plan="folded"), SHAPE)
    assert folded.bytes_moved - codes.bytes_moved == 2 * 20 * 256
    assert codes.convert_us == 0.0
    # One program of each processor converts 16 rows of 256 elements.
    assert folded.convert_us == 16 * 256 * REQUANTIZE_INSTRUCTIONS / 217_000


@pytest.mark.parametrize(("unpack", "instructions"), [("value", 4.0), ("shift", 3.0), ("ptx", 0.5)])
def test_unpacking_is_counted_a_weight(unpack: str, instructions: float) -> None:
    estimate = cost(gemm("down", m=16, n=32, spec="w4a8", unpack=unpack), SHAPE)
    assert estimate.convert_us == 32 * 256 * instructions / 217_000


def test_fp16_dots_convert_both_operands() -> None:
    estimate = cost(gemm("down", m=16, n=32, dot="fp16_exact"), SHAPE)
    assert estimate.convert_us == (16 + 32) * 256 * 2 / 217_000


def test_math_takes_the_rate_of_the_strategy() -> None:
    times = {dot: cost(gemm("down", dot=dot), SHAPE).math_us for dot in ("int8", "fp16_exact")}
    assert times["fp16_exact"] == 2 * times["int8"]


def test_a_dot_too_short_for_the_best_instruction_takes_longer() -> None:
    """wgmma wants 64 rows of a first operand: those of gate and up joined, not of either alone."""

    def math_us(target: Target, **traits: str) -> float:
        return cost(replace(gemm("up", m=32, n=32, **traits), target=target), SHAPE).math_us

    def rate(target: Target, dot: str) -> float:
        return target.cost.dot_ops_per_us.of(dot)

    weights = {"operands": "weights_first"}
    for target, slower in ((TARGETS["sm_90"], 4), (TARGETS["sm_80"], 1)):
        joined = math_us(target, **weights, gates="joined")
        assert math_us(target, **weights) == math_us(target) == slower * joined
        slowly = joined * rate(target, "int8") / rate(target, "rank1")
        assert math_us(target, dot="rank1") == pytest.approx(slowly)


def test_one_stage_loads_and_multiplies_in_turn() -> None:
    long = Shape(experts=64, rows_per_expert=16, n=4096, k=4096)
    one, two = (cost(gemm("down", stages=stages), long) for stages in (1, 2))
    in_turn = hypot(one.memory_us, one.cache_us, one.math_us + one.chain_us)
    assert one.total_us == TARGET.cost.launch_us + in_turn
    at_once = hypot(two.memory_us, two.cache_us, two.math_us, two.chain_us)
    assert two.total_us == TARGET.cost.launch_us + at_once


def test_longer_runs_of_a_row_reach_more_of_the_bandwidth() -> None:
    """Half a line, a line, and two: of two tiles side by side, and of one."""

    def share(variant: Variant) -> float:
        estimate = cost(variant, SHAPE)
        return estimate.bytes_moved / estimate.memory_us / TARGET.cost.dram_bytes_per_us

    half, line, doubled = (share(gemm("down", 128, n=32, k=k)) for k in (64, 128, 256))
    assert half == pytest.approx(0.96 * 0.5**0.69)
    assert line == pytest.approx(0.96)
    assert doubled == pytest.approx(1.0)
    assert share(gemm("down", n=32, k=256)) == pytest.approx(1.0)
    # Priced as single lines, though they lie side by side too: ranking is no better otherwise.
    assert share(gemm("down", 256, n=32, k=128)) == pytest.approx(0.96)


def test_a_ring_of_many_short_stages_costs_more() -> None:
    """Six lines of 128 bytes are twelve stages of 64, four are eight: equal but for that."""
    long = Shape(experts=8, rows_per_expert=256, n=4096, k=5120)

    def ring(
        stages: int, group: int, k: int, spec: str = "w8a8", roles: str | None = "specialized"
    ) -> Cost:
        variant = gemm(
            group=group,
            spec=spec,
            m=128,
            n=128,
            k=k,
            warps=8,
            stages=stages,
            operands="weights_first",
            roles=roles,
        )
        return cost(variant, long)

    def ratio(more: Cost, fewer: Cost) -> float:
        return (more.total_us - TARGET.cost.launch_us) / (fewer.total_us - TARGET.cost.launch_us)

    assert ratio(ring(6, 320, 64), ring(4, 320, 64)) == pytest.approx(1.05, rel=0.01)
    equal = [
        (ring(6, 128, 128), ring(4, 128, 128)),
        (ring(6, 320, 32, "w4a8"), ring(2, 320, 32, "w4a8")),
        (ring(6, 320, 64, roles=None), ring(4, 320, 64, roles=None)),
    ]
    for more, fewer in equal:
        assert ratio(more, fewer) == pytest.approx(1.0, rel=0.01)


def test_lines_that_one_warp_copies_reach_all_of_the_bandwidth() -> None:
    """They follow one another, however short they are."""
    roles = "specialized"
    short = cost(gemm(group=320, m=128, n=128, k=64, operands="weights_first", roles=roles), SHAPE)
    assert short.bytes_moved / short.memory_us == pytest.approx(TARGET.cost.dram_bytes_per_us)


def test_quantize_reads_each_row_and_writes_it() -> None:
    estimate = cost(row_wise("quantize", block_m=4, block_k=512), SHAPE)
    assert counts(estimate) == (10, 40 * 256 * 4, 0)


def test_combine_owns_columns_of_a_row() -> None:
    estimate = cost(row_wise("combine", block_n=32), SHAPE)
    assert counts(estimate) == (80, 40 * 64 * 4, 0)


def test_route_is_one_launch() -> None:
    estimate = cost(row_wise("route", block_m=1024, block_n=1024), SHAPE)
    assert counts(estimate) == (1, 0, 0)
    assert estimate.total_us == TARGET.cost.launch_us


@pytest.mark.parametrize(
    ("figures", "resident"),
    [
        ({}, 1),  # 33792 of 65536 bytes of shared memory each
        ({"shared_per_processor": 2**17}, 3),
        # (32 results + 156) * 128 of 131072 registers each
        ({"shared_per_processor": 2**20}, 5),
        ({"shared_per_processor": 2**20, "register_file": 2**20}, 16),  # 128 of 2048 threads each
        ({"shared_per_processor": 1}, 1),  # one at least
    ],
)
def test_scarcest_resource_bounds_the_resident_programs(
    figures: dict[str, int], resident: int
) -> None:
    roomy = {"resident_threads": 2048, "register_file": 131072, "shared_per_processor": 65536}
    costs = TARGET.cost.model_copy(update=roomy | figures)
    variant = gemm(m=64, n=64, k=64, stages=4, cost=costs)
    assert variant.registers is not None
    assert (variant.shared_bytes, variant.registers.needed) == (33792, 188)
    assert variant.resident_programs == resident


def test_what_needs_more_registers_than_a_thread_may_take_has_those_it_may() -> None:
    """It spills, and is as many programs at once as one that takes all of them."""
    costs = TARGET.cost.model_copy(update={"register_file": 131072, "shared_per_processor": 2**20})
    variant = gemm(group=128, m=128, cost=costs)
    assert variant.registers is not None
    assert (variant.registers.needed, variant.registers.limit) == (296, 255)
    assert variant.resident_programs == 131072 // (255 * 128)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.data())
def test_more_rows_never_count_less(built: Program, data: st.DataObject) -> None:
    variant, fewer, more = grown(built, data)
    low, high = cost(variant, fewer), cost(variant, more)
    counted = ("programs", "waves", "bytes_moved", "operations", "cache_us", "math_us")
    for name in (*counted, "convert_us"):
        assert getattr(low, name) <= getattr(high, name) * ROUNDING, name


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.data())
def test_more_rows_never_cost_less(built: Program, data: st.DataObject) -> None:
    variant, fewer, more = grown(built, data)
    low, high = cost(variant, fewer), cost(variant, more)
    assert low.total_us <= high.total_us * ROUNDING


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.data())
def test_estimate_is_no_less_than_any_of_its_terms(built: Program, data: st.DataObject) -> None:
    variant, shape, _ = grown(built, data)
    estimate = cost(variant, shape)
    busy = estimate.math_us + estimate.convert_us
    terms = (estimate.memory_us, estimate.cache_us, estimate.chain_us, busy)
    assert estimate.total_us >= variant.target.cost.launch_us + max(terms)
