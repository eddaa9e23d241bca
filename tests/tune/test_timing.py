"""Medians, spreads, turns and clocks; no time that really passed."""

from __future__ import annotations

import pytest

from generator.tune.timing import (
    Eager,
    HostTimer,
    Sample,
    Subject,
    eager_samples,
    graph_samples,
)
from tests.tune.clocks import Clock, ToldReplay, ToldTimer


@pytest.mark.parametrize(
    ("values", "median", "iqr"),
    [([7.0], 7.0, 0.0), ([5.0, 1.0], 3.0, 2.0), ([9.0, 1.0, 2.0, 3.0, 4.0], 3.0, 2.0)],
)
def test_a_sample_is_a_median_and_the_distance_of_its_quartiles(
    values: list[float], median: float, iqr: float
) -> None:
    assert Sample.of(values) == Sample(median, iqr, len(values))


def test_the_host_timer_tells_returning_from_being_done() -> None:
    clock = Clock()
    waited: list[float] = []

    def synchronize() -> None:
        waited.append(clock.now)
        clock.now += 3.0 if len(waited) == 2 else 11.0  # the first is before the timed part

    timer = HostTimer(clock, synchronize)
    calls = [clock.passing(1.0), clock.passing(2.0)]
    assert timer.eager(calls, 4) == Eager(wall=(6.0 + 3.0) / 4 * 1e6, host=6.0 / 4 * 1e6)
    assert timer.capture(calls) is None


def test_subjects_take_turns() -> None:
    log: list[str] = []
    first = ToldReplay([], iter([1.0, 3.0, 2.0]), log, "a")
    second = ToldReplay([], iter([40.0, 40.0, 40.0]), log, "b")
    assert graph_samples([first, None, second], repeat=3) == [
        Sample.of([1.0, 3.0, 2.0]),
        None,
        Sample(40.0, 0.0, 3),
    ]
    assert log == ["a", "b"] * 3


def test_eager_samples_run_their_own_calls_after_one_that_compiles() -> None:
    ran: list[str] = []
    subjects = [
        Subject("a", (lambda: ran.append("a0"), lambda: ran.append("a1"))),
        Subject("b", (lambda: ran.append("graph"),), eager=(lambda: ran.append("b"),)),
    ]
    samples = eager_samples(subjects, ToldTimer(), repeat=2, count=3)
    assert ran == ["a0", "b"] + ["a0", "a1", "a0", "b", "b", "b"] * 2
    assert [(each.wall.median, each.host.median, each.wall.count) for each in samples] == [
        (50.0, 40.0, 2)
    ] * 2
