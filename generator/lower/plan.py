"""Lower one contract on one target: judge its designs, keep what was timed and what the cost model
puts first, rank what is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from generator.errors import BuildError, Finding
from generator.lower.bands import ANY, Band, bands
from generator.lower.contract import Contract, GemmContract
from generator.lower.judge import Question, judged, no_legal, recorded, spilling
from generator.lower.measured import UNMEASURED, Measured
from generator.lower.prune import Rejection
from generator.lower.rank import RankedBand, covering, in_order
from generator.lower.reaches import reaching, row_bands
from generator.lower.rivals import rivals as every_rival
from generator.lower.shapes import ShapeSource
from generator.lower.tuned import UNTUNED, Tuned, legal_tables
from generator.lower.variant import Design, Variant
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
    spilt = spilling(asked, measured)
    rejections = found.rejections + spilt
    legal = len(found.legal) - len(spilt)
    if not legal:
        raise BuildError(no_legal(contract, target, rejections))
    banned = frozenset(each.design for each in spilt)
    tables: tuple[Tuned, ...] = UNTUNED
    if rivals and isinstance(contract, GemmContract):
        left = [each for each in found.legal if each.design not in banned]
        every = every_rival(left, sources, rivals)
        against = {each.design for each in recorded(map(asked.variant, every), asked, measured)}
        chosen = tuple(design for design in every if design not in against)
        ranked: tuple[RankedBand, ...] = (RankedBand(ANY, chosen),)
    else:
        tables, timed = legal_tables(asked, tunings, measured)
        chosen, ranked = _choose(asked, tuple(sources), banned)
        chosen = tuple(dict.fromkeys([*timed, *chosen]))
    if not chosen:
        shapes = ", ".join(f"N={each.n} K={each.k}" for each in sources)
        what = f"no legal design accepts any of the shapes it is ranked for: {shapes}"
        raise BuildError(
            Finding(f"{contract.name} on {target.name}", what, "add smaller tiles to the spec")
        )
    kept = tuple(Variant(contract, design, target, spec.limits) for design in chosen)
    return Plan(contract, target, found.enumerated, legal, kept, ranked, rejections, tables)


@cache
def _choose(
    asked: Question,
    sources: tuple[ShapeSource, ...],
    banned: frozenset[Design],
) -> tuple[tuple[Design, ...], tuple[RankedBand, ...]]:
    """The cheapest designs of each band; every band of a GEMM then ranks all that were kept."""
    legal = [each for each in judged(asked).legal if each.design not in banned]
    tiles = {v.design.block_m for v in legal if v.gemm and v.design.block_m}
    if not tiles:
        row_wise = [(band, reaching(legal, sources, band)) for band in row_bands(asked.geometry)]
        kept = dict.fromkeys(each.design for _, own in row_wise for each in own)
        return tuple(kept), tuple(
            RankedBand(band, tuple(each.design for each in own)) for band, own in row_wise
        )
    every_band = bands(tiles)
    variants: list[Variant] = []
    for band in every_band:
        in_band = [v for v in legal if v.design.block_m == band.block_m]
        variants += covering(in_band, sources, band)
    variants = list(dict.fromkeys(variants))
    ranked = [(band, in_order(variants, sources, band)) for band in every_band]
    return tuple(each.design for each in variants), tuple(
        RankedBand(band, tuple(each.design for each in own)) for band, own in ranked
    )
