"""Bands of rows per expert, and the row tile of each.

The up and the down kernel of a layer share one tile map, so a band fixes the row tile for both: the
tile as tall as the band's rows. A taller one multiplies padding, a shorter one reads the weights
twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Band:
    """A range of rows per expert, both ends included."""

    low: int
    high: int | None  # None: no upper end
    block_m: int | None  # None: any row tile

    def holds(self, rows_per_expert: int) -> bool:
        return self.low <= rows_per_expert and (self.high is None or rows_per_expert <= self.high)

    @property
    def samples(self) -> tuple[int, ...]:
        """Rows per expert at which designs are compared."""
        if self.low == 1 and self.high is None:  # one band serves every batch
            return (4, 64)
        if self.high is None:
            return (2 * self.low, 16 * self.low)
        return tuple(sorted({max(self.low, self.high // 8), self.high}))


ANY = Band(1, None, None)
# Of row-wise operations. Few rows want a program each; many want programs of several, which share
# their expert's smooth scales.
FEW_ROWS = 16
ROW_WISE = (Band(1, FEW_ROWS, None), Band(FEW_ROWS + 1, None, None))


def bands(row_tiles: Iterable[int]) -> tuple[Band, ...]:
    """One band for each row tile; the tallest tile serves everything above the others."""
    tiles = sorted(set(row_tiles))
    edges = [0, *tiles[:-1]]
    return tuple(
        Band(low + 1, None if tile == tiles[-1] else tile, tile)
        for low, tile in zip(edges, tiles, strict=True)
    )
