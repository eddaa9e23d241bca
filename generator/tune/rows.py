"""What a bench says: one row for each thing timed. Data alone, for the table, the files and the
plots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from generator.tune.ceilings import Ceilings
from generator.tune.environment import Environment
from generator.tune.timing import Sample
from generator.tune.work import Work


@dataclass(frozen=True, slots=True)
class Times:
    """Microseconds a call, as far as they were taken."""

    graph: Sample | None = None  # of a CUDA graph's replay
    eager: Sample | None = None  # of back-to-back calls, until the device is done
    host: Sample | None = None  # of the same, until the last call returns


@dataclass(frozen=True, slots=True)
class Compared:
    """Bits held against the oracle's."""

    bits: int
    different: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What all rows of one batch share."""

    model: str
    layer: str
    tokens: int
    routing: str
    work: Work  # the mean of the calls
    floor_us: float | None  # None without a GPU
    copies: int  # of the weights, rotated through
    calls: int  # of a graph
    cold: bool  # whether all that memory the rotation asks for was there


@dataclass(frozen=True, slots=True)
class Row:
    """One subject on one batch."""

    facts: Facts
    subject: str  # layer | stage NAME | bf16 torch | vllm int8 | seed
    times: Times = Times()
    compared: Compared | None = None
    plan: str | None = None
    designs: Mapping[str, str] = field(default_factory=dict)  # by operation
    workspace_bytes: int | None = None
    launches: int | None = None  # of a call
    note: str = ""

    @property
    def best(self) -> Sample | None:
        """The device's time where there is one, else the host's."""
        return self.times.graph or self.times.eager

    @property
    def is_stage(self) -> bool:
        """Whether it is a part of a layer, whose floor is not the layer's."""
        return self.subject.startswith("stage ")

    @property
    def floor_us(self) -> float | None:
        return None if self.is_stage else self.facts.floor_us

    @property
    def share(self) -> float | None:
        """Of the floor in the time of a replay: 1 is the floor itself."""
        graph, floor = self.times.graph, self.floor_us
        return None if graph is None or floor is None else floor / graph.median

    @property
    def tops(self) -> float | None:
        """Operations of the layer per time of a replay."""
        graph = self.times.graph
        if graph is None or self.is_stage:
            return None
        return self.facts.work.operations / graph.median / 1e6


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run, or as much of it as is done."""

    environment: Environment
    ceilings: Ceilings | None
    rows: tuple[Row, ...]

    @property
    def bits(self) -> int:
        return sum(row.compared.bits for row in self.rows if row.compared)

    @property
    def different(self) -> int:
        return sum(row.compared.different for row in self.rows if row.compared)
