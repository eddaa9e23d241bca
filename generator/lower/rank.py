"""The cheapest GEMM designs of a row tile, and the order of what is kept: by the cost model, for
the shapes that a contract meets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import methodcaller

from generator.lower.bands import Band
from generator.lower.cost import costs
from generator.lower.design import Design
from generator.lower.shapes import ShapeSource
from generator.lower.variant import Variant


@dataclass(frozen=True, slots=True)
class RankedBand:
    """The kept designs of one band, cheapest first."""

    band: Band
    designs: tuple[Design, ...]


def covering(variants: list[Variant], sources: Sequence[ShapeSource], band: Band) -> list[Variant]:
    """The cheapest design that accepts every shape, or as few as accept them all.

    Tails and wide offsets are emitted only for shapes that nothing simpler accepts.
    """
    chosen: list[Variant] = []
    open_sources = list(sources)
    for traits in (0, 1, 2):
        plain = [v for v in variants if simple(v.design) == traits]
        while open_sources and plain:
            reach = [sum(accepts(v, source) for source in open_sources) for v in plain]
            widest = max(reach)
            if widest == 0:
                break
            widely = [v for v, own in zip(plain, reach, strict=True) if own == widest]
            best = in_order(widely, open_sources, band)[0]
            chosen.append(best)
            open_sources = [s for s in open_sources if not accepts(best, s)]
    return chosen  # the portable variant serves shapes that are left


def simple(design: Design) -> int:
    """Designs with a tail or wide offsets come after all that have none."""
    wide = design.offsets == "int64" and not design.specialized  # theirs cost nothing
    return (design.tail == "any") + wide


def accepts(variant: Variant, source: ShapeSource) -> bool:
    return all(map(methodcaller("holds", source.sizes), variant.requires))


def in_order(
    variants: Sequence[Variant], sources: Sequence[ShapeSource], band: Band
) -> list[Variant]:
    """The band's own row tile first, then the nearest taller one, then the nearest shorter; all
    alike where the own one is missing, for then the next may multiply much padding. Among these,
    designs without traits, which a call that they refuse does not take; by shapes refused, then
    by mean cost; ties by name.

    The cost of a shape is relative to the best variant for it, so that no shape outweighs another.
    """
    own_costs: list[list[float]] = [[] for _ in variants]
    priced = [costs(variant) for variant in variants]
    for source in sources:
        accepting = [i for i, variant in enumerate(variants) if accepts(variant, source)]
        for rows in band.samples if accepting else ():
            shape = source.at(rows)
            here = {index: priced[index](shape).total_us for index in accepting}
            least = min(here.values())
            for index, each in here.items():
                own_costs[index].append(each / least)
    samples = len(sources) * len(band.samples)
    has_own = any(each.design.block_m == band.block_m for each in variants)

    def key(index: int) -> tuple[bool, int, int, int, float, str]:
        own, design = own_costs[index], variants[index].design
        mean = round(sum(own) / len(own), 6) if own else 0.0
        away = (design.block_m or 0) - (band.block_m or 0) if band.block_m and has_own else 0
        return (away < 0, abs(away), simple(design), samples - len(own), mean, design.name)

    return [variants[index] for index in sorted(range(len(variants)), key=key)]
