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
# Rows up to which one kernel routes and quantizes: each of its programs looks at every slot. 2048
# rows of 2048 elements took it 14.7 us, and three kernels 2, 11 and 7; 8192 rows 117, and 2, 12 and
# 20 (one H100, 2026-11-25, medians of graph replays).
DISPATCHED_ROWS = 2048


def bands(row_tiles: Iterable[int]) -> tuple[Band, ...]:
    """One band for each row tile; the tallest tile serves everything above the others."""
    tiles = sorted(set(row_tiles))
    cut: list[Band] = []
    low = 1
    for tile in tiles:
        high = max(low, _mean(tile))
        cut.append(Band(low, None if tile == tiles[-1] else high, tile))
        low = high + 1
    return tuple(cut)


def _mean(tile: int) -> int:
    """The largest mean of rows that a tile holds beside one standard deviation of them, which is
    its square root where tokens choose experts alike and by themselves (Poisson).
    """
    return max((mean for mean in range(1, tile) if (tile - mean) ** 2 >= mean), default=1)
