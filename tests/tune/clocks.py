"""Clocks and devices that say what a test tells them to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from generator.tune.timing import Call, Eager, Replay


@dataclass
class Clock:
    """Seconds that pass only when somebody lets them."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def passing(self, seconds: float) -> Callable[[], None]:
        def call() -> None:
            self.now += seconds

        return call


@dataclass
class ToldReplay:
    """Runs its calls, and says the next of its times."""

    calls: Sequence[Call]
    times: Iterator[float]
    log: list[str]
    name: str

    def sample(self) -> float:
        for call in self.calls:
            call()
        self.log.append(self.name)
        return next(self.times)


@dataclass
class ToldTimer:
    """A device with graphs: the n-th graph that is captured takes base * (n + 1) microseconds, then
    one more each time.
    """

    base: float = 100.0
    graphs: int = 0
    log: list[str] = field(default_factory=list)

    def eager(self, calls: Sequence[Call], count: int) -> Eager:
        for index in range(count):
            calls[index % len(calls)]()
        return Eager(wall=50.0, host=40.0)

    def capture(self, calls: Sequence[Call]) -> Replay | None:
        self.graphs += 1
        first = self.base * self.graphs
        times = (first + step for step in range(1000))
        return ToldReplay(calls, times, self.log, f"graph {self.graphs}")
