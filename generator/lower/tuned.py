"""What was measured of a contract on a target, as lowering and selection use it.

A table of one contract holds for all of its geometry: they move and multiply alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from generator.lower.contract import Contract, GemmContract
from generator.lower.measured import alike
from generator.spec.model import Target, TunedShape, Tuning


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

    def nearest(self, rows: int) -> TunedBucket:
        """The bucket whose rows are nearest, by ratio."""
        return min(self.buckets, key=lambda each: max(each.rows / rows, rows / each.rows))


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


def unreachable(tuning: Tuning, contracts: Sequence[GemmContract]) -> list[TunedShape]:
    """Shapes of contracts that are not built, nor anything of their geometry."""
    known = {name for contract in contracts for name in alike(contract)}
    return [shape for shape in tuning.shapes if shape.contract not in known]
