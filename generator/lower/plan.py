"""Lower one contract on one target: enumerate, prune, prove, rank, keep.

Contracts that move and multiply alike (`GemmContract.geometry`) are judged once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from generator.errors import BuildError, Finding
from generator.lower.bands import ANY, Band, bands
from generator.lower.contract import Contract, GemmContract
from generator.lower.cost import Shape, cost
from generator.lower.enumerate import designs, space
from generator.lower.measured import UNMEASURED, Measured, alike
from generator.lower.prune import Rejection, reject_design, reject_recorded, reject_variant
from generator.lower.variant import Design, Variant
from generator.spec.model import Frozen, Limits, Spec, Target


@dataclass(frozen=True, slots=True)
class RankedBand:
    """The kept designs of one band, cheapest first."""

    band: Band
    designs: tuple[Design, ...]


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
        return replace(self, kept=kept, bands=ranked)


@dataclass(frozen=True, slots=True)
class ShapeSource:
    """A real layer's GEMM, before its rows are known."""

    experts: int
    n: int
    k: int
    rows: int  # of its largest call

    def at(self, rows_per_expert: int) -> Shape:
        return Shape(self.experts, rows_per_expert, self.n, self.k)

    def sizes(self) -> dict[str, int]:
        """Of its largest call, by the names that conditions use."""
        return {"rows": self.rows, "N": self.n, "K": self.k, "experts": self.experts}


@dataclass(frozen=True, slots=True)
class Judged:
    """A whole design space after pruning."""

    enumerated: int
    legal: tuple[Variant, ...]
    rejections: tuple[Rejection, ...]


def lower(
    spec: Spec,
    contract: Contract,
    target: Target,
    sources: Sequence[ShapeSource],
    measured: Measured = UNMEASURED,
) -> Plan:
    """Choose the variants of one contract on one target; `sources` are the shapes to rank for,
    `measured` what is on record of compiled variants.

    Raises BuildError, with every rule's first example, where no design is legal.
    """
    listed = space(spec, contract.operation)
    geometry = contract.geometry if isinstance(contract, GemmContract) else contract
    judged = _judge(geometry, listed, target, spec.limits)
    recorded = _recorded(geometry, listed, target, spec.limits, measured)
    rejections = judged.rejections + recorded
    legal = len(judged.legal) - len(recorded)
    if not legal:
        raise BuildError(_no_legal(contract, target, rejections))
    banned = frozenset(each.design for each in recorded)
    chosen, ranked = _choose(geometry, listed, target, spec.limits, tuple(sources), banned)
    if not chosen:
        shapes = ", ".join(f"N={each.n} K={each.k}" for each in sources)
        what = f"no legal design accepts any of the shapes it is ranked for: {shapes}"
        raise BuildError(
            Finding(f"{contract.name} on {target.name}", what, "add smaller tiles to the spec")
        )
    kept = tuple(Variant(contract, design, target, spec.limits) for design in chosen)
    return Plan(contract, target, judged.enumerated, legal, kept, ranked, rejections)


@cache
def _sound(listed: Frozen, target: Target) -> tuple[tuple[Design, ...], tuple[Rejection, ...]]:
    """The designs that break no rule of designs, and the rejections of the others. Strategies that
    the space does not list are no competition.
    """
    dots = tuple(dot for dot in target.dots if dot in getattr(listed, "dot", target.dots))
    within = target.model_copy(update={"dots": dots}) if dots else target
    judged = [(design, reject_design(design, within)) for design in designs(listed)]
    return (
        tuple(design for design, rejection in judged if rejection is None),
        tuple(rejection for _, rejection in judged if rejection is not None),
    )


@cache
def _judge(geometry: Contract, listed: Frozen, target: Target, limits: Limits) -> Judged:
    sound, unsound = _sound(listed, target)
    legal, rejections = [], list(unsound)
    for design in sound:
        variant = Variant(geometry, design, target, limits)
        rejection = reject_variant(variant)
        if rejection is None:
            legal.append(variant)
        else:
            rejections.append(rejection)
    return Judged(len(legal) + len(rejections), tuple(legal), tuple(rejections))


@cache
def _recorded(
    geometry: Contract, listed: Frozen, target: Target, limits: Limits, measured: Measured
) -> tuple[Rejection, ...]:
    """What the record holds against designs that rules find legal."""
    if not measured.any_spills(tuple(f"{name}_{target.name}_" for name in alike(geometry))):
        return ()
    legal = _judge(geometry, listed, target, limits).legal
    return tuple(filter(None, (reject_recorded(each, measured) for each in legal)))


@cache
def _choose(
    geometry: Contract,
    listed: Frozen,
    target: Target,
    limits: Limits,
    sources: tuple[ShapeSource, ...],
    banned: frozenset[Design],
) -> tuple[tuple[Design, ...], tuple[RankedBand, ...]]:
    """The cheapest designs of each band; every band then ranks all that were kept."""
    judged = _judge(geometry, listed, target, limits).legal
    legal = [variant for variant in judged if variant.design not in banned]
    tiles = {v.design.block_m for v in legal if v.gemm and v.design.block_m}
    every_band = bands(tiles) if tiles else (ANY,)
    kept: list[Variant] = []
    for band in every_band:
        in_band = [v for v in legal if band.block_m in (None, v.design.block_m)]
        kept += _covering(in_band, sources, band)
    kept = list(dict.fromkeys(kept))
    ranked = tuple(
        RankedBand(band, tuple(v.design for v in _order(kept, sources, band)))
        for band in every_band
    )
    return tuple(v.design for v in kept), ranked


def _covering(variants: list[Variant], sources: Sequence[ShapeSource], band: Band) -> list[Variant]:
    """The cheapest design that accepts every shape, or as few as accept them all.

    Tails and wide offsets are emitted only for shapes that nothing simpler accepts.
    """
    chosen: list[Variant] = []
    open_sources = list(sources)
    for traits in (0, 1, 2):
        simple = [v for v in variants if _traits(v) == traits]
        while open_sources and simple:
            reach = {id(v): sum(_accepts(v, s) for s in open_sources) for v in simple}
            widest = max(reach.values())
            if widest == 0:
                break
            best = _order([v for v in simple if reach[id(v)] == widest], open_sources, band)[0]
            chosen.append(best)
            open_sources = [s for s in open_sources if not _accepts(best, s)]
    return chosen  # the portable variant serves shapes that are left


def _traits(variant: Variant) -> int:
    return (variant.design.tail == "any") + (variant.design.offsets == "int64")


def _accepts(variant: Variant, source: ShapeSource) -> bool:
    sizes = source.sizes()
    return all(each.holds(sizes) for each in variant.requires)


def _order(variants: list[Variant], sources: Sequence[ShapeSource], band: Band) -> list[Variant]:
    """The band's own row tile first, then by shapes refused, then by mean cost; ties by name.

    The cost of a shape is relative to the best variant for it, so that no shape outweighs another.
    """
    costs: list[list[float]] = [[] for _ in variants]
    for source in sources:
        accepting = [i for i, variant in enumerate(variants) if _accepts(variant, source)]
        for rows in band.samples if accepting else ():
            shape = source.at(rows)
            here = {index: cost(variants[index], shape).total_us for index in accepting}
            least = min(here.values())
            for index, each in here.items():
                costs[index].append(each / least)
    samples = len(sources) * len(band.samples)

    def key(index: int) -> tuple[bool, int, float, str]:
        own, design = costs[index], variants[index].design
        mean = round(sum(own) / len(own), 6) if own else 0.0
        foreign = band.block_m is not None and design.block_m != band.block_m
        return (foreign, samples - len(own), mean, design.name)

    return [variants[index] for index in sorted(range(len(variants)), key=key)]


def _no_legal(contract: Contract, target: Target, rejections: Sequence[Rejection]) -> list[Finding]:
    first: dict[str, Rejection] = {}
    counts: dict[str, int] = {}
    for each in rejections:
        first.setdefault(each.rule.name, each)
        counts[each.rule.name] = counts.get(each.rule.name, 0) + 1
    return [
        Finding(
            f"{contract.name} on {target.name}",
            f"no legal design: {name} rejects {counts[name]} of {len(rejections)},"
            f" such as {each.design.name}: {each.what}",
            "widen the design space of the spec, or mend the target's limits",
            each.rule.why,
        )
        for name, each in first.items()
    ]
