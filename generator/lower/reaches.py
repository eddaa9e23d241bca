"""The row-wise designs that are kept. Each takes rows up to a length and, where it counts experts,
up to a number of them; one that reaches further does more work, so the shortest that suffices goes
first.
"""

from __future__ import annotations

from collections.abc import Sequence

from generator.lower.bands import ANY, ROW_WISE, Band
from generator.lower.contract import Contract
from generator.lower.rank import in_order
from generator.lower.shapes import ShapeSource
from generator.lower.variant import Variant


def row_bands(contract: Contract) -> tuple[Band, ...]:
    """Routing does the same work, whoever owns the rows."""
    row_wise = contract.operation in ("quantize", "requantize", "combine")
    return ROW_WISE if row_wise else (ANY,)


def reaching(
    variants: Sequence[Variant], sources: Sequence[ShapeSource], band: Band
) -> list[Variant]:
    """The cheapest design of each reach that a shape needs, and of the longest, which takes every
    layer.
    """
    reaches = sorted({_reach(each) for each in variants})
    users: dict[tuple[int, int], list[ShapeSource]] = {reaches[-1]: []}
    for source in sources:
        for reach in reaches:
            if _within(source, reach):
                users.setdefault(reach, []).append(source)
                break
    chosen = []
    for reach, own_sources in sorted(users.items()):
        own = [each for each in variants if _reach(each) == reach]
        within = own_sources or [each for each in sources if _within(each, reach)]
        chosen.append(in_order(own, within, band)[0])
    return chosen


def _reach(variant: Variant) -> tuple[int, int]:
    """The longest row and the most experts that a design takes."""
    most = {each.of: each.bound for each in variant.bounds}
    return most.get("K", 0), most.get("experts", 0)


def _within(source: ShapeSource, reach: tuple[int, int]) -> bool:
    longest, experts = reach
    return (not longest or source.k <= longest) and (not experts or source.experts <= experts)
