"""Lower one contract on one target: judge its designs, keep what was timed and what the cost model
puts first, rank what is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from generator.errors import BuildError, Finding
from generator.lower.bands import ANY, Band
from generator.lower.contract import Contract, GemmContract
from generator.lower.design import Design
from generator.lower.enumerate import in_usual_order
from generator.lower.judge import Question, judged, no_legal, on_record, recorded
from generator.lower.keep import kept
from generator.lower.measured import UNMEASURED, Measured
from generator.lower.rank import RankedBand
from generator.lower.reaches import reaching
from generator.lower.rivals import rivals as every_rival
from generator.lower.rule import Rejection
from generator.lower.shapes import ShapeSource
from generator.lower.tuned import UNTUNED, Tuned, legal_tables
from generator.lower.variant import Variant
from generator.spec.model import Spec, Target


@dataclass(frozen=True, slots=True)
class Plan:
    """What lowering decided for one contract on one target."""

    contract: Contract
    target: Target
    enumerated: int
    legal: int
    kept: tuple[Variant, ...]  # in order of first use
    bands: tuple[RankedBand, ...]
    rejections: tuple[Rejection, ...]
    tuned: tuple[Tuned, ...] = UNTUNED  # of kept designs alone

    def rejected_by(self) -> dict[str, int]:
        """Rejections of each rule that fired."""
        counts: dict[str, int] = {}
        for each in self.rejections:
            counts[each.rule.name] = counts.get(each.rule.name, 0) + 1
        return counts

    def within(self, wanted: Sequence[Band]) -> Plan:
        """The plan with the designs alone that serve some bands: those of their row tiles."""
        tiles = {band.block_m for band in wanted}
        kept = tuple(v for v in self.kept if v.design.block_m in tiles)
        own = {v.design for v in kept}
        ranked = tuple(
            RankedBand(each.band, tuple(d for d in each.designs if d in own)) for each in self.bands
        )
        names = {design.name for design in own}
        tables = tuple(
            replace(each, buckets=tuple(b for b in each.buckets if b.design in names))
            for each in self.tuned
        )
        tables = tuple(each for each in tables if each.buckets)
        return replace(self, kept=kept, bands=ranked, tuned=tables)


def lower(
    spec: Spec,
    contract: Contract,
    target: Target,
    sources: Sequence[ShapeSource],
    measured: Measured = UNMEASURED,
    rivals: int = 0,
    tunings: tuple[Tuned, ...] = UNTUNED,
) -> Plan:
    """Choose the variants of one contract on one target.

    `sources` are the shapes to rank for, `measured` is what is on record of compiled variants,
    `tunings` what was chosen by timing. With `rivals` keep so many tiles of a GEMM a band and
    shape, in all their traits: what a tuner times.

    Raises BuildError, with every rule's first example, where no design is legal.
    """
    asked = Question.of(spec, contract, target)
    found = judged(asked)
    faulty = on_record(asked, measured.faulty)
    rejections = found.rejections + faulty
    banned = frozenset(each.design for each in faulty)
    left = len(found.legal) - len(banned)
    if not left:
        raise BuildError(no_legal(contract, target, rejections))
    tables: tuple[Tuned, ...] = UNTUNED
    others: tuple[Rejection, ...] = ()
    if not isinstance(contract, GemmContract):
        legal = [each for each in found.legal if each.design not in banned]
        row_wise = reaching(legal, sources, dispatched="dispatched" in spec.layer.plans)
        chosen = tuple(each.design for each in row_wise)
        ranked: tuple[RankedBand, ...] = (RankedBand(ANY, chosen),)
    elif rivals:
        legal = [each for each in found.legal if each.design not in banned]
        every = every_rival(legal, sources, rivals)
        against = {each.design for each in recorded(map(asked.variant, every), asked, measured)}
        chosen = tuple(each for each in every if each not in against)
        ranked = (RankedBand(ANY, chosen),)
    else:
        own = [table for table in tunings if table.is_of(sources)]
        timed = legal_tables(asked, own, measured)
        tables = timed.tables
        whole = all(any(table.fits(each) for table in tables) for each in sources)
        chosen, ranked = kept(asked, tuple(sources), banned, timed.designs, whole)
        chosen, ranked = _in_usual_orders(asked, chosen, ranked, timed.designs, measured)
        # In orders of programs that the space does not list.
        others = tuple(each for each in timed.faulty if each.design not in banned)
    if not chosen:
        shapes = ", ".join(f"N={each.n} K={each.k}" for each in sources)
        what = f"no legal design accepts any of the shapes it is ranked for: {shapes}"
        raise BuildError(
            Finding(f"{contract.name} on {target.name}", what, "add smaller tiles to the spec")
        )
    variants = tuple(Variant(contract, design, target, spec.limits) for design in chosen)
    enumerated = found.enumerated + len(others)
    rejections += others
    return Plan(contract, target, enumerated, left, variants, ranked, rejections, tables)


def _in_usual_orders(
    asked: Question,
    chosen: tuple[Design, ...],
    ranked: tuple[RankedBand, ...],
    timed: Sequence[Design],
    measured: Measured,
) -> tuple[tuple[Design, ...], tuple[RankedBand, ...]]:
    """The designs that were not timed in the usual order of programs, unless the record speaks
    against them in it.
    """
    usual = {d: in_usual_order(d, asked.target) for d in chosen if d not in timed}
    against = {
        each.design for each in recorded(map(asked.variant, usual.values()), asked, measured)
    }
    taken = {d: usual[d] if d in usual and usual[d] not in against else d for d in chosen}

    def ordered(designs: Sequence[Design]) -> tuple[Design, ...]:
        return tuple(dict.fromkeys(taken[each] for each in designs))

    return ordered(chosen), tuple(RankedBand(each.band, ordered(each.designs)) for each in ranked)
