"""What was measured of a contract on a target, as lowering and selection use it.

A table of one contract holds for all of its geometry: they move and multiply alike. But each
contract keeps the tables of its own shapes alone, for no shipped model brings it the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from generator.conditions import nearest_timed
from generator.lower.bands import Band
from generator.lower.contract import Contract, GemmContract
from generator.lower.design import Design
from generator.lower.judge import Question, in_orders, judged, recorded
from generator.lower.measured import Measured, alike
from generator.lower.rule import Rejection
from generator.lower.shapes import ShapeSource
from generator.lower.variant import Variant
from generator.spec.model import Target, Tuning


@dataclass(frozen=True, slots=True)
class TunedBucket:
    """A design and the number of routed rows that it was the choice for."""

    rows: int
    design: str
    us: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """The choices at one shape, by ascending rows."""

    n: int
    k: int
    experts: int
    device: str
    date: str
    buckets: tuple[TunedBucket, ...]

    def is_of(self, sources: Sequence[ShapeSource]) -> bool:
        """Whether its shape is one of those."""
        own = (self.n, self.k, self.experts)
        return any(own == (each.n, each.k, each.experts) for each in sources)

    def fits(self, source: ShapeSource) -> bool:
        """Whether a call of the shape multiplies as what was timed did; over how many experts it
        spreads its rows, the rows that it was timed at say.
        """
        return (self.n, self.k) == (source.n, source.k)

    def choice(self, rows: int, bands: Sequence[Band]) -> TunedBucket | None:
        """The bucket whose rows are nearest to a call's, of those that say anything of it."""
        by_rows = {each.rows: each for each in self.buckets}
        near = nearest_timed(by_rows, rows, self.experts, bands)
        return None if near is None else by_rows[near]


UNTUNED: tuple[Tuned, ...] = ()


def tuned(contract: Contract, target: Target, tunings: Sequence[Tuning]) -> tuple[Tuned, ...]:
    """Every shape of a contract that was measured on a target."""
    if not isinstance(contract, GemmContract):
        return UNTUNED
    names = set(alike(contract))
    return tuple(
        Tuned(
            shape.n,
            shape.k,
            shape.experts,
            tuning.device,
            tuning.date,
            tuple(TunedBucket(each.rows, each.design, each.us) for each in shape.buckets),
        )
        for tuning in tunings
        if tuning.target == target.name
        for shape in tuning.shapes
        if shape.contract in names
    )


@dataclass(frozen=True, slots=True)
class Legal:
    """The tables without designs that a rule has come to reject since, whose rows go to the nearest
    others; the designs that are left, and what the record holds against others.
    """

    tables: tuple[Tuned, ...]
    designs: tuple[Design, ...]
    faulty: tuple[Rejection, ...]


def legal_tables(asked: Question, tables: Sequence[Tuned], measured: Measured) -> Legal:
    """What may be kept of what was timed, each design judged in its own order of programs."""
    wanted = dict.fromkeys(bucket.design for table in tables for bucket in table.buckets)
    known = _named(asked, tuple(wanted))
    faulty = recorded(known.values(), asked, measured)
    against = {each.design for each in faulty}
    left = {name: v.design for name, v in known.items() if v.design not in against}
    kept = (
        replace(table, buckets=tuple(b for b in table.buckets if b.design in left))
        for table in tables
    )
    return Legal(tuple(table for table in kept if table.buckets), tuple(left.values()), faulty)


@cache
def _named(asked: Question, names: tuple[str, ...]) -> Mapping[str, Variant]:
    """The designs of those names that no rule but those of the record rejects, whatever the order
    of their programs.
    """
    near = (v for v in judged(asked).legal if any(n.startswith(v.design.stem) for n in names))
    found = {each.design.name: each for each in in_orders(near)}
    return {name: found[name] for name in names if name in found}
