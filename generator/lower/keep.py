"""The GEMM designs that a build keeps: what was timed, and what the cost model puts first."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from generator.lower.bands import Band, bands
from generator.lower.design import Design
from generator.lower.judge import Question, judged
from generator.lower.rank import RankedBand, accepts, covering, in_order
from generator.lower.shapes import ShapeSource
from generator.lower.variant import Variant


@cache
def kept(
    asked: Question,
    sources: tuple[ShapeSource, ...],
    banned: frozenset[Design],
    timed: tuple[Design, ...],
    whole: bool,
) -> tuple[tuple[Design, ...], tuple[RankedBand, ...]]:
    """What is kept, in order of first use, and the bands, each of which ranks all of it. `banned`
    the record speaks against; `whole`: every N and K was timed.
    """
    legal = [each for each in judged(asked).legal if each.design not in banned]
    every_band = bands({v.design.block_m for v in legal if v.design.block_m})
    variants = [asked.variant(design) for design in timed]
    # Where all was timed, the model adds the shortest and the tallest tile for shapes that none of
    # them takes: so calls of any rows have one not far off, and up and down one in common.
    for band in dict.fromkeys((every_band[0], every_band[-1])) if whole else every_band:
        # Turns of two tiles refuse every second K: only a timing can say that they are worth it.
        in_band = [v for v in legal if v.design.block_m == band.block_m and not v.doubles]
        missed = _missed(variants, sources, band) if whole else sources
        variants += covering(in_band, missed, band)
    own = list(dict.fromkeys(variants))
    return tuple(each.design for each in own), tuple(
        RankedBand(band, tuple(each.design for each in in_order(own, sources, band)))
        for band in every_band
    )


def _missed(
    known: Sequence[Variant], sources: Sequence[ShapeSource], band: Band
) -> list[ShapeSource]:
    """The shapes that no known design of a band's row tile takes."""
    own = [each for each in known if each.design.block_m == band.block_m]
    return [source for source in sources if not any(accepts(each, source) for each in own)]
