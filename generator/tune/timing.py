"""Time calls: eager ones by the host's clock, CUDA graphs by events; medians and spreads.

Subjects that are compared take turns, so that a drift of the clocks meets all of them. Nothing here
knows what a call computes; tests put their own clock in.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Sample:
    """Repeated measurements of one quantity, in microseconds a call."""

    median: float
    iqr: float  # between the first and the third quartile
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Sample:
        if len(values) < 2:
            return cls(values[0], 0.0, len(values))
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(middle, high - low, len(values))


@dataclass(frozen=True)
class Subject:
    """What is timed: calls that differ in weights or tokens alone, run in turn.

    `eager` are the calls where no graph is captured, if those differ.
    """

    name: str
    calls: tuple[Call, ...]
    eager: tuple[Call, ...] | None = None

    @property
    def eager_calls(self) -> tuple[Call, ...]:
        return self.calls if self.eager is None else self.eager


@dataclass(frozen=True, slots=True)
class Eager:
    """One run of back-to-back calls, in microseconds a call."""

    wall: float  # until the device was done with the last one
    host: float  # until the last one had returned


class Replay(Protocol):
    """A captured graph."""

    def sample(self) -> float:
        """Replay it once: microseconds a call."""


class Timer(Protocol):
    """A device to time on."""

    def eager(self, calls: Sequence[Call], count: int) -> Eager:
        """Run `count` calls back to back, in turn."""

    def capture(self, calls: Sequence[Call]) -> Replay | None:
        """All calls in one graph; None where there are no graphs. Raises RuntimeError where a call
        cannot be captured.
        """


@dataclass(frozen=True, slots=True)
class HostTimer:
    """The host's clock around calls: all that the CPU interpreter has."""

    clock: Callable[[], float] = time.perf_counter  # seconds
    synchronize: Callable[[], object] = lambda: None

    def eager(self, calls: Sequence[Call], count: int) -> Eager:
        self.synchronize()
        start = self.clock()
        for index in range(count):
            calls[index % len(calls)]()
        returned = self.clock()
        self.synchronize()
        done = self.clock()
        return Eager((done - start) * 1e6 / count, (returned - start) * 1e6 / count)

    def capture(self, calls: Sequence[Call]) -> Replay | None:
        return None


@dataclass(frozen=True)
class CudaReplay:
    """A CUDA graph of several calls, and the calls: what only they hold, the graph still reads."""

    graph: torch.cuda.CUDAGraph
    calls: tuple[Call, ...]

    def sample(self) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        # The first replay is not timed: it keeps the device busy while the timed one is submitted,
        # so that the host's time to launch a graph is not between the events.
        self.graph.replay()
        start.record()
        self.graph.replay()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) * 1e3 / len(self.calls)


@dataclass(frozen=True)
class CudaTimer:
    """A GPU: the host's clock for eager calls, events for graphs."""

    host: HostTimer

    def eager(self, calls: Sequence[Call], count: int) -> Eager:
        return self.host.eager(calls, count)

    def capture(self, calls: Sequence[Call]) -> Replay | None:
        # Whatever a first call compiles or allocates must be there before the capture, on a stream
        # that is not the default one, as in the capture.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for call in calls:
                call()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for call in calls:
                call()
        return CudaReplay(graph, tuple(calls))


def timer_for(device: torch.device) -> Timer:
    """Events and graphs on a GPU, the clock alone elsewhere."""
    if device.type == "cuda":
        return CudaTimer(HostTimer(synchronize=torch.cuda.synchronize))
    return HostTimer()


def graph_samples(replays: Sequence[Replay | None], repeat: int) -> list[Sample | None]:
    """`repeat` replays of each, by turns."""
    values: list[list[float]] = [[] for _ in replays]
    for _ in range(repeat):
        for own, replay in zip(values, replays, strict=True):
            if replay is not None:
                own.append(replay.sample())
    return [Sample.of(own) if own else None for own in values]


@dataclass(frozen=True, slots=True)
class EagerSamples:
    """Eager calls, in microseconds a call."""

    wall: Sample
    host: Sample


def eager_samples(
    subjects: Sequence[Subject], timer: Timer, repeat: int, count: int
) -> list[EagerSamples]:
    """`repeat` runs of `count` back-to-back calls of each, by turns, after one of each that
    compiles.
    """
    for subject in subjects:
        timer.eager(subject.eager_calls, 1)
    runs: list[list[Eager]] = [[] for _ in subjects]
    for _ in range(repeat):
        for own, subject in zip(runs, subjects, strict=True):
            own.append(timer.eager(subject.eager_calls, count))
    return [
        EagerSamples(Sample.of([e.wall for e in own]), Sample.of([e.host for e in own]))
        for own in runs
    ]
