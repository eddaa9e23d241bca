"""The walk along one group of K: exact power-of-two tiles, so that nothing is masked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tile:
    """One dot's share of a group."""

    offset: int  # K elements from the group's start
    size: int  # a power of two


@dataclass(frozen=True, slots=True)
class Walk:
    """How a kernel steps through one group: `repeat` equal tiles in a loop, then `tiles` in a row.

    A group that is unrolled has repeat 0. The whole K of a channel scale is one tile, repeated by a
    count that is known at run time only.
    """

    repeat: int
    step: int  # K elements of each repeated tile; 0 where none repeats
    tiles: tuple[Tile, ...]

    @property
    def smallest(self) -> int:
        return min([tile.size for tile in self.tiles] + ([self.step] if self.repeat else []))


def tiles(length: int, block_k: int) -> tuple[Tile, ...]:
    """Cut `length` into tiles of `block_k`, then falling powers of two: 320 at 128 is 128 + 128 +
    64.

    `block_k` must be a power of two.
    """
    cut, offset, size = [], 0, block_k
    while offset < length:
        while size > length - offset:
            size //= 2
        cut.append(Tile(offset, size))
        offset += size
    return tuple(cut)


def unrolled(length: int, block_k: int) -> Walk:
    return Walk(repeat=0, step=0, tiles=tiles(length, block_k))


def looped(length: int, block_k: int) -> Walk:
    """Equal tiles in an inner loop, the remainder after it."""
    repeat = length // block_k
    rest = tiles(length % block_k, block_k)
    shifted = tuple(Tile(repeat * block_k + tile.offset, tile.size) for tile in rest)
    return Walk(repeat=repeat, step=block_k, tiles=shifted)
