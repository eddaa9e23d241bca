"""The GEMM designs that a build keeps: what was timed, and what the cost model puts first."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from generator.lower.bands import Band, bands
from generator.lower.judge import Question, judged
from generator.lower.rank import RankedBand, covering, in_order
from generator.lower.shapes import ShapeSource
from generator.lower.variant import Design


@cache
def kept(
    asked: Question,
    sources: tuple[ShapeSource, ...],
    banned: frozenset[Design],
    timed: tuple[Design, ...],
    whole: bool,
) -> tuple[tuple[Design, ...], tuple[RankedBand, ...]]:
    """What is kept, in order of first use, and the bands, each of which ranks all of it. `banned`
    the record speaks against; `whole`: every shape was timed.
    """
    legal = [each for each in judged(asked).legal if each.design not in banned]
    every_band = bands({v.design.block_m for v in legal if v.design.block_m})
    variants = [asked.variant(design) for design in timed]
    for band in _modelled(every_band, timed) if whole else every_band:
        in_band = [v for v in legal if v.design.block_m == band.block_m]
        variants += covering(in_band, sources, band)
    own = list(dict.fromkeys(variants))
    return tuple(each.design for each in own), tuple(
        RankedBand(band, tuple(each.design for each in in_order(own, sources, band)))
        for band in every_band
    )


def _modelled(every_band: Sequence[Band], timed: Sequence[Design]) -> list[Band]:
    """The bands whose designs the cost model chooses where every shape was timed: those of the
    shortest and the tallest row tile, where no timed design has it. So calls of any rows have a
    tile that is not far off, and up and down always have one in common.
    """
    known = {design.block_m for design in timed}
    ends = dict.fromkeys((every_band[0], every_band[-1]))
    return [band for band in ends if band.block_m not in known]
