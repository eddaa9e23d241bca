"""What a tuner times of a GEMM in place of what a build keeps: the cost model's first few tiles of
every shape, each in all of its schedules.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from generator.lower.bands import bands
from generator.lower.cost import cost
from generator.lower.design import Design
from generator.lower.enumerate import in_every_order
from generator.lower.rank import accepts, simple
from generator.lower.shapes import ShapeSource
from generator.lower.variant import Variant


def rivals(
    legal: Sequence[Variant], sources: Sequence[ShapeSource], most: int
) -> tuple[Design, ...]:
    """For each band and shape the `most` cheapest tiles, warps and stages, each with every order
    of operands and programs and each role of warps, and the cheapest of its other traits.
    """
    kept: dict[Design, None] = {}
    for band in bands({v.design.block_m for v in legal if v.design.block_m}):
        in_band = [v for v in legal if v.design.block_m == band.block_m]
        for source, rows in product(sources, band.samples):
            accepting = [variant for variant in in_band if accepts(variant, source)]
            shape = source.at(rows)
            costs = {v.design: cost(v, shape).total_us for v in accepting}
            cheapest = sorted(costs, key=lambda each: (simple(each), costs[each], each.name))
            tiles: dict[tuple[object, ...], dict[tuple[object, ...], Design]] = {}
            for design in cheapest:
                tile = (design.block_m, design.block_n, design.block_k, design.warps, design.stages)
                if tile in tiles or len(tiles) < most:
                    schedule = (design.operands, design.gates, design.roles)
                    tiles.setdefault(tile, {}).setdefault(schedule, design)
            for chosen in tiles.values():
                kept.update(dict.fromkeys(chosen.values()))
    target = legal[0].target
    return tuple(each for design in kept for each in in_every_order(design, target))
