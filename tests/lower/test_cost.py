"""The cost model counts what a kernel moves and multiplies, and never rewards more work."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.lower.cost import Cost, Shape, cost, resident_programs
from generator.lower.program import Program
from generator.lower.variant import Design, Variant
from tests.lower.conftest import LIMITS, TARGET, contract, gemm

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
    unit_k = variant.unit_k if variant.gemm else 32
    n, k = (unit * data.draw(st.integers(1, 64)) for unit in (unit_n, unit_k))
    experts, rows, more = (data.draw(st.integers(1, top)) for top in (256, 600, 600))
    return variant, Shape(experts, rows, n, k), Shape(experts, rows + more, n, k)


def test_down_counts_by_hand() -> None:
    variant = gemm("down", 128, m=16, n=32, k=128)
    programs = 2 * 2 * 2  # experts, row tiles of 16 over 20 rows, column tiles of 32 over 64
    weights = 2 * 64 * 256  # int8
    scales = 2 * 64 * 2 * 2  # experts, columns, groups of 128, bytes of bf16
    rows_in = 2 * 20 * 256  # int8
    rows_out = 2 * 20 * 64 * 2  # bf16
    operations = 2 * (2 * 32) * 64 * 256  # rows padded to 32
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
    operations = 2 * (2 * 32) * 128 * 256
    assert counts(cost(variant, SHAPE)) == (2, weights + scales + rows_in + rows_out, operations)


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
        ({}, 2),  # 32768 of 65536 bytes of shared memory each
        ({"shared_per_processor": 2**20}, 5),  # (32 sums + 150) * 128 of 131072 registers each
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
    assert (variant.shared_bytes, variant.sum_registers) == (32768, 32)
    assert resident_programs(variant) == resident


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.data())
def test_more_rows_never_count_less(built: Program, data: st.DataObject) -> None:
    variant, fewer, more = grown(built, data)
    low, high = cost(variant, fewer), cost(variant, more)
    for name in ("programs", "waves", "bytes_moved", "operations", "cache_us", "math_us"):
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
    terms = (estimate.memory_us, estimate.cache_us, estimate.math_us)
    assert estimate.total_us >= variant.target.cost.launch_us + max(terms)
