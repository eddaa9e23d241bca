"""No call finds its weights in the cache, as far as memory allows."""

from __future__ import annotations

import pytest

from generator.tune.rotation import (
    CACHE_SIZES,
    FEWEST_CALLS,
    LEAST_CALL_US,
    REPLAY_US,
    Memory,
    calls_of,
    copies_allowed,
    copies_for,
)

MB = 1 << 20


@pytest.mark.parametrize("weight_bytes", [MB, 7 * MB, 60 * MB, 239 * MB, 240 * MB, 1400 * MB])
def test_copies_get_past_the_cache_and_no_copy_is_spare(weight_bytes: int) -> None:
    memory = Memory(cache=60 * MB, free=0)
    copies = copies_for(weight_bytes, memory)
    assert copies * weight_bytes >= CACHE_SIZES * memory.cache
    assert copies == 1 or (copies - 1) * weight_bytes < CACHE_SIZES * memory.cache


def test_without_a_cache_there_is_nothing_to_get_past() -> None:
    assert copies_for(MB, Memory(0, 0)) == 1


def test_memory_bounds_the_copies_and_one_is_there_already() -> None:
    assert copies_allowed(100, Memory(0, 0)) == 1
    assert copies_allowed(100, Memory(0, 1000)) == 5


@pytest.mark.parametrize(("copies", "floor"), [(1, 0.5), (1, 2200.0), (7, 3.0), (69, 1.0)])
def test_a_graph_uses_every_copy_as_often_and_lasts(copies: int, floor: float) -> None:
    calls = calls_of(copies, floor)
    assert calls % copies == 0 and calls >= FEWEST_CALLS
    assert calls * max(floor, LEAST_CALL_US) >= REPLAY_US
    fewer = calls - copies
    lasting = fewer * max(floor, LEAST_CALL_US) >= REPLAY_US
    assert fewer < max(FEWEST_CALLS, 1) or not lasting


def test_without_graphs_one_call_a_copy_is_enough() -> None:
    assert calls_of(1, None) == 1
