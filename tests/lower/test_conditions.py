"""Conditions: one predicate, its refusal in numbers, and the data that carries it."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.conditions import (
    AtMost,
    Condition,
    Multiple,
    ProductBelow,
    condition_from_data,
    nearest_timed,
    rows_per_expert,
)
from generator.lower.bands import Band

DIMENSIONS = ("rows", "N", "K", "experts")
sizes_of_all = st.fixed_dictionaries(dict.fromkeys(DIMENSIONS, st.integers(0, 2**20)))
names = st.sampled_from(DIMENSIONS)
conditions = st.one_of(
    st.builds(Multiple, names, st.integers(1, 2**20)),
    st.builds(ProductBelow, st.lists(names, min_size=1).map(tuple), st.integers(1, 2**40)),
    st.builds(AtMost, names, st.integers(0, 2**20)),
)
quick = settings(deadline=None, derandomize=True)


@pytest.mark.parametrize(
    ("condition", "text", "holds", "fails"),
    [
        (Multiple("N", 64), "N % 64 == 0", [64, 128], [0, 1, 63, 65]),
        (ProductBelow(("N", "K"), 2**31), "N * K < 2**31", [0, 2**21 - 1], [2**21, 2**22]),
        (ProductBelow(("N", "K"), 3 * 2**10), "N * K < 3072", [0, 2], [3, 4]),
        (AtMost("N", 1024), "N <= 1024", [0, 1024], [1025]),
    ],
    ids=str,
)
def test_condition_holds_exactly_up_to_its_bound(
    condition: Condition, text: str, holds: list[int], fails: list[int]
) -> None:
    assert str(condition) == text
    assert [n for n in holds + fails if condition.holds({"N": n, "K": 2**10})] == holds


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (Multiple("N", 64), "N = 100 is no multiple of 64 (nearest: 64 or 128)"),
        (Multiple("N", 128), "N = 100 is no multiple of 128 (nearest: 128)"),
        (ProductBelow(("N", "K"), 1000), "N (100) * K (10) = 1000 is not below 1000"),
        (AtMost("N", 64), "N = 100 exceeds 64"),
    ],
    ids=str,
)
def test_refusal_reads_in_numbers(condition: Condition, text: str) -> None:
    assert condition.failure({"N": 100, "K": 10}) == text


@quick
@given(st.integers(0, 2**20), st.integers(1, 2**10))
def test_sizes_that_a_multiple_suggests_are_accepted(size: int, by: int) -> None:
    condition = Multiple("K", by)
    nearest = condition.failure({"K": size}).partition("nearest: ")[2]
    suggested = [int(number) for number in re.findall(r"\d+", nearest)]
    assert suggested
    assert all(condition.holds({"K": each}) and abs(each - size) <= by for each in suggested)


@quick
@given(conditions)
def test_condition_survives_the_manifest(condition: Condition) -> None:
    assert condition_from_data(json.loads(json.dumps(condition.data()))) == condition


@quick
@given(conditions, sizes_of_all)
def test_condition_read_back_decides_and_speaks_alike(
    condition: Condition, sizes: dict[str, int]
) -> None:
    again = condition_from_data(condition.data())
    assert again.holds(sizes) == condition.holds(sizes)
    assert again.failure(sizes) == condition.failure(sizes)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"kind": "even", "of": "N"},
        {"kind": "multiple", "of": "N"},
        {"kind": "multiple", "of": "N", "by": "64"},
        {"kind": "multiple", "of": "N", "by": 64, "unless": "K"},
        {"kind": "product_below", "of": "N", "bound": 1},
        {"kind": "at_most", "of": ["N"], "bound": 1},
    ],
    ids=str,
)
def test_unknown_kind_or_field_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"unknown condition {data}")):
        condition_from_data(data)


@pytest.mark.parametrize(
    ("rows", "experts", "mean"),
    [(0, 8, 1), (1, 8, 1), (8, 8, 1), (9, 8, 2), (64, 8, 8), (3, 0, 3), (0, 0, 1)],
)
def test_rows_are_shared_by_the_experts_that_can_own_one(
    rows: int, experts: int, mean: int
) -> None:
    assert rows_per_expert(rows, experts) == mean


@pytest.mark.parametrize(
    ("timed", "rows", "nearest"),
    [
        ([388], 388, 388),
        ([388], 194, 388),  # half
        ([388], 193, None),  # 9 rows an expert, of another band than 17
        ([388], 776, 388),
        ([388], 777, None),  # 33 an expert
        ([8], 288, 8),  # far, but 1 and 12 rows an expert
        ([288], 8, 288),
        ([289], 8, None),  # 13 an expert
        ([16384], 10**6, 16384),  # the last band has no end
        ([10**6], 16384, 10**6),
        ([8, 128], 31, 8),  # by ratio
        ([8, 128], 33, 128),
        ([24, 900], 250, 24),  # 900 are nearer, but not near: 38 rows an expert
        ([], 8, None),
    ],
)
def test_what_was_timed_speaks_for_calls_nearby_and_of_its_band(
    timed: list[int], rows: int, nearest: int | None
) -> None:
    ends = ((1, 12), (13, 26), (27, 117), (118, None))
    bands = [Band(low, high, None) for low, high in ends]
    assert nearest_timed(timed, rows, 24, bands) == nearest
