"""Lower one contract on one target: enumerate, prune, prove, rank, keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from generator.errors import BuildError, Finding
from generator.lower.bands import ANY, Band, bands
from generator.lower.contract import Contract
from generator.lower.cost import Shape, cost
from generator.lower.enumerate import designs
from generator.lower.prune import Rejection, reject
from generator.lower.variant import Design, Variant
from generator.spec.model import Spec, Target


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


@dataclass(frozen=True, slots=True)
class ShapeSource:
    """A real layer's GEMM, before its rows are known."""

    experts: int
    n: int
    k: int

    def at(self, rows_per_expert: int) -> Shape:
        return Shape(self.experts, rows_per_expert, self.n, self.k)


def lower(spec: Spec, contract: Contract, target: Target, sources: Sequence[ShapeSource]) -> Plan:
    """Choose the variants of one contract on one target; `sources` are the shapes to rank for.

    Raises BuildError, with every rule's first example, where no design is legal.
    """
    variants = [
        Variant(contract, design, target, spec.limits)
        for design in designs(spec, contract.operation)
    ]
    judged = [(variant, reject(variant)) for variant in variants]
    legal = [variant for variant, rejection in judged if rejection is None]
    rejections = tuple(rejection for _, rejection in judged if rejection is not None)
    if not legal:
        raise BuildError(_no_legal(contract, target, rejections))
    if target.keep == "one":
        best = _cheapest(legal, sources, ANY)
        kept: tuple[Variant, ...] = (best,)
        ranked: tuple[RankedBand, ...] = (RankedBand(ANY, (best.design,)),)
    else:
        kept, ranked = _per_band(legal, sources)
    if not kept:
        shapes = ", ".join(f"N={each.n} K={each.k}" for each in sources)
        what = f"no legal design accepts any of the shapes it is ranked for: {shapes}"
        raise BuildError(
            Finding(f"{contract.name} on {target.name}", what, "add smaller tiles to the spec")
        )
    return Plan(contract, target, len(variants), len(legal), kept, ranked, rejections)


def _per_band(
    legal: list[Variant], sources: Sequence[ShapeSource]
) -> tuple[tuple[Variant, ...], tuple[RankedBand, ...]]:
    """The cheapest design of each band; every band then ranks all that were kept."""
    every_band = bands(v.design.block_m for v in legal if v.design.block_m) or (ANY,)
    kept: list[Variant] = []
    for band in every_band:
        in_band = [v for v in legal if band.block_m in (None, v.design.block_m)]
        kept += _covering(in_band, sources, band)
    kept = list(dict.fromkeys(kept))
    ranked = tuple(
        RankedBand(band, tuple(v.design for v in _order(kept, sources, band)))
        for band in every_band
    )
    return tuple(kept), ranked


def _covering(variants: list[Variant], sources: Sequence[ShapeSource], band: Band) -> list[Variant]:
    """The cheapest design that accepts every shape, or as few as accept them all."""
    chosen: list[Variant] = []
    open_sources = list(sources)
    while open_sources:
        reach = {id(v): sum(_accepts(v, s) for s in open_sources) for v in variants}
        widest = max(reach.values())
        if widest == 0:
            break  # the portable variant serves these shapes
        best = _cheapest([v for v in variants if reach[id(v)] == widest], open_sources, band)
        chosen.append(best)
        open_sources = [s for s in open_sources if not _accepts(best, s)]
    return chosen


def _accepts(variant: Variant, source: ShapeSource) -> bool:
    sizes = source.at(1).sizes()
    return all(each.holds(sizes) for each in variant.requires)


def _order(variants: list[Variant], sources: Sequence[ShapeSource], band: Band) -> list[Variant]:
    """The band's own row tile first, then by shapes refused, then by mean cost; ties by name.

    The cost of a shape is relative to the best variant for it, so that no shape outweighs another.
    """
    costs: list[list[float]] = [[] for _ in variants]
    for source in sources:
        for rows in band.samples:
            here = {
                index: cost(variant, source.at(rows)).total_us
                for index, variant in enumerate(variants)
                if _accepts(variant, source)
            }
            for index, each in here.items():
                costs[index].append(each / min(here.values()))
    samples = len(sources) * len(band.samples)

    def key(index: int) -> tuple[bool, int, float, str]:
        own, design = costs[index], variants[index].design
        mean = round(sum(own) / len(own), 6) if own else 0.0
        return (design.block_m != band.block_m, samples - len(own), mean, design.name)

    return [variants[index] for index in sorted(range(len(variants)), key=key)]


def _cheapest(variants: list[Variant], sources: Sequence[ShapeSource], band: Band) -> Variant:
    return _order(variants, sources, band)[0]


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
            f" such as {each.variant.design.name}: {each.what}",
            "widen the design space of the spec, or mend the target's limits",
            each.rule.why,
        )
        for name, each in first.items()
    ]
