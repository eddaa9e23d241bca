"""The row-wise designs that are kept, in one band for all rows. Each takes rows up to a length and,
where it counts experts, up to a number of them; one that reaches further does more work, so the
shortest that suffices goes first.

Numbers are of one H100, medians of graph replays (2026-11-27 where no other date stands). 4096 rows
of 2048 elements take 8.6 us by one, two and four warps a row, 32768 of them 55, 52 and 51; 8 rows
of 768 take 1.7 by one warp and 1.6 by four, 32768 of them 29 and 34: bands of rows would keep twice
the designs for little. Two rows a program take 49 us where one takes 51 (32768 of 2048), and 265
where one takes 241 (of 7168). Rows in the order of their tokens, which are read once then, take 205
us instead of 241, but 58 instead of 51: smooth scales of one expert no longer follow one another.
"""

from __future__ import annotations

from collections.abc import Sequence

from generator.lower.bands import ANY, DISPATCHED_ROWS, Band
from generator.lower.contract import QuantizeContract, RouteContract
from generator.lower.rank import in_order
from generator.lower.shapes import ShapeSource
from generator.lower.variant import Variant

Reach = tuple[int, int]  # the longest row and the most experts; 0: any
# Rows an expert of calls that are gathered: fewer rows in all are dispatched where a layer may.
GATHERED = Band(17, None, None)


def reaching(
    variants: Sequence[Variant], sources: Sequence[ShapeSource], *, dispatched: bool
) -> list[Variant]:
    """The cheapest design of each reach that is worth one. `dispatched`: whether few rows are."""
    reaches = sorted({_reach(each) for each in variants})
    gathers = dispatched and _source(variants[0]) == "gather"
    band = GATHERED if gathers else ANY
    chosen: list[Variant] = []
    open_sources = list(sources)
    for reach in _worth(variants[0], reaches, sources):
        within = [each for each in open_sources if _within(each, reach)]
        open_sources = [each for each in open_sources if each not in within]
        own = [each for each in variants if _reach(each) == reach]
        many = [each for each in within if each.rows > DISPATCHED_ROWS] if gathers else within
        chosen.append(in_order(own, many or within or sources, band)[0])
    return chosen


def _worth(variant: Variant, reaches: list[Reach], sources: Sequence[ShapeSource]) -> list[Reach]:
    """Reaches that get a design of their own, shortest first; the last takes every layer."""
    operation, source = variant.contract.operation, _source(variant)
    if operation == "quantize":
        # In steps, a row is read twice: 32768 rows of 2048 took 89 us so and 80 held whole, but 388
        # of 512 took 2.1 and 1.9 (2026-11-26), and few rows are mostly dispatched.
        sources = [each for each in sources if each.rows > DISPATCHED_ROWS]
    if operation == "dispatch":  # what none reaches, three kernels do
        return _needed(reaches, sources) or reaches[-1:]
    if source == "counts":  # which each program sums: 0.3 us more where there is room for 1024
        return reaches[-1:]
    return sorted({*_needed(reaches, sources), reaches[-1]})


def _needed(reaches: list[Reach], sources: Sequence[ShapeSource]) -> list[Reach]:
    """The shortest that suffices for each shape."""
    shortest = (next((r for r in reaches if _within(each, r)), None) for each in sources)
    return sorted({reach for reach in shortest if reach is not None})


def _source(variant: Variant) -> str | None:
    contract = variant.contract
    return contract.source if isinstance(contract, QuantizeContract | RouteContract) else None


def _reach(variant: Variant) -> Reach:
    most = {each.of: each.bound for each in variant.bounds}
    return most.get("K", 0), most.get("experts", 0)


def _within(source: ShapeSource, reach: Reach) -> bool:
    longest, experts = reach
    return (not longest or source.k <= longest) and (not experts or source.experts <= experts)
