"""The walk along K: exact power-of-two tiles, so that nothing is masked.

A turn of the outer loop covers one group, a pair of short int4 groups, a step or a block of a row
whose scale covers all K, or two of those where the design's tile is twice as long. Within a turn,
tiles lie in a row, or equal ones repeat in an inner loop before the rest. A tile of int8 weights
meets one tile of rows; a tile of int4 bytes meets two, one for each plane, half a block apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from generator.lower.derived import derived
from generator.packing import K_UNIT, LONG_BLOCK, block_length


@dataclass(frozen=True, slots=True)
class Plane:
    """The share of a weight tile that one tile of rows meets."""

    offset: int  # K elements from the loop's position to its rows
    group: int  # of the groups that a turn covers


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile of stored weights."""

    offset: int  # stored elements (bytes of int4) from the loop's position
    size: int  # stored elements, a power of two
    planes: tuple[Plane, ...]


@dataclass(frozen=True, slots=True)
class Advance:
    """How far the pointers move."""

    rows: int  # K elements
    weights: int  # stored elements


NOWHERE = Advance(0, 0)
LONG_BODY = 2  # tiles that a loop's body may hold in a row


@dataclass(frozen=True)
class Walk:
    """One turn: `blocks` times this: the tiles of `repeated`, `repeat` times, then those of
    `tiles`.
    """

    unit_k: int  # K elements of a turn
    groups: int  # scales of a turn
    blocks: int  # times that all of the following is done
    repeat: int  # turns of the inner loop; 0 where there is none
    repeated: tuple[Tile, ...]
    step: Advance  # after each turn of the inner loop
    tiles: tuple[Tile, ...]
    rest: Advance  # after the tiles in a row

    @derived
    def smallest(self) -> int:
        return min(tile.size for tile in self.repeated + self.tiles)

    @derived
    def turn_k(self) -> int:
        """K elements of one turn of the inner loop."""
        return sum(tile.size * len(tile.planes) for tile in self.repeated)

    @derived
    def dots(self) -> int:
        """Dots in a row, per tile of results: of an inner loop's body or of what follows it."""
        rows = (self.repeated, self.tiles)
        return max(sum(len(tile.planes) for tile in row) for row in rows)

    @property
    def row_k(self) -> int:
        """K elements of those dots."""
        rows = (self.repeated, self.tiles)
        return max(sum(tile.size * len(tile.planes) for tile in row) for row in rows)

    @derived
    def widest(self) -> int:
        return max(tile.size for tile in self.repeated + self.tiles)

    @derived
    def sizes(self) -> tuple[int, ...]:
        """Of every tile that a turn's blocks walk, one after the other."""
        return tuple([t.size for t in self.repeated] * self.repeat + [t.size for t in self.tiles])

    @derived
    def staged(self) -> tuple[int, int]:
        """Stored elements of a column that the pipelined loop and what follows it load."""
        body, rest = (sum(tile.size for tile in each) for each in (self.repeated, self.tiles))
        return (body, rest) if self.repeat else (rest, 0)


def cut(length: int, block_k: int) -> list[tuple[int, int]]:
    """Offset and size of tiles of `block_k`, then falling powers of two: 320 at 128 is 128 + 128 +
    64.

    `block_k` must be a power of two.
    """
    pieces, offset, size = [], 0, block_k
    while offset < length:
        while size > length - offset:
            size //= 2
        pieces.append((offset, size))
        offset += size
    return pieces


@cache
def rows_walk(length: int, block_k: int, *, loop: bool) -> Walk:
    """int8 weights: a turn of `length` elements that share a scale, or of one step."""

    def tiles(start: int, stop: int) -> tuple[Tile, ...]:
        return tuple(
            Tile(start + offset, size, (Plane(start + offset, 0),))
            for offset, size in cut(stop - start, block_k)
        )

    repeat = length // block_k if loop else 0
    done = repeat * block_k
    rest = tuple(
        Tile(each.offset - done, each.size, (Plane(each.offset - done, 0),))
        for each in tiles(done, length)
    )
    left = length - done
    return Walk(
        length,
        1,
        1,
        repeat,
        tiles(0, block_k) if loop else (),
        Advance(block_k, block_k),
        rest,
        Advance(left, left),
    )


@cache
def planes_walk(group_k: int | None, block_k: int, *, loop: bool, tight: bool = False) -> Walk:
    """int4 weights in planes: a turn is a pair of groups, one group, or one block of a row.

    `tight`: an inner loop takes one tile a step, also where its body could hold a whole block.
    """
    block = block_length(group_k)
    half = block // 2
    short = group_k is not None and group_k < LONG_BLOCK  # its block is a pair of groups
    unit = group_k if group_k is not None and not short else block
    second = 1 if short else 0

    def tiles(block_start: int, start: int, stop: int) -> tuple[Tile, ...]:
        """Bytes start .. stop of a block that begins at K element `block_start`."""
        return tuple(
            Tile(
                block_start // 2 + start + offset,
                size,
                (
                    Plane(block_start + start + offset, 0),
                    Plane(block_start + start + offset + half, second),
                ),
            )
            for offset, size in cut(stop - start, block_k)
        )

    blocks = unit // block
    if not loop:
        whole = tuple(tile for index in range(blocks) for tile in tiles(index * block, 0, half))
        return Walk(unit, 1 + second, 1, 0, (), NOWHERE, whole, Advance(unit, unit // 2))
    if blocks > 1 and half // block_k <= (1 if tight else LONG_BODY):  # block after block
        return Walk(unit, 1, 1, blocks, tiles(0, 0, half), Advance(block, half), (), NOWHERE)
    repeat, left = half // block_k, half % block_k
    return Walk(
        unit,
        1 + second,
        blocks,
        repeat,
        tiles(0, 0, block_k),
        Advance(block_k, block_k),
        tiles(0, 0, left),
        Advance(left + half, left),  # past the other plane
    )


@cache
def doubled(walk: Walk, *, grouped: bool) -> Walk:
    """Two turns without inner loop in one, so that a row is read by runs twice as long. `grouped`:
    they have scales of their own.
    """
    assert walk.repeat == 0 and walk.blocks == 1

    def second(tile: Tile) -> Tile:
        planes = tuple(
            Plane(each.offset + walk.rest.rows, each.group + (walk.groups if grouped else 0))
            for each in tile.planes
        )
        return Tile(tile.offset + walk.rest.weights, tile.size, planes)

    return replace(
        walk,
        unit_k=2 * walk.unit_k,
        groups=2 * walk.groups if grouped else walk.groups,
        tiles=walk.tiles + tuple(map(second, walk.tiles)),
        rest=Advance(2 * walk.rest.rows, 2 * walk.rest.weights),
    )


@dataclass(frozen=True, slots=True)
class Tail:
    """What is left of K after whole turns: pieces that are short groups or short blocks."""

    tile: int  # stored elements of a column in one step; every piece is a multiple of it
    planes: int  # planes of a step: 2 in a block of int4
    piece_k: int  # what a piece has at most
    scaled: bool  # each piece has a scale of its own; else all share one
    unit_k: int  # a tail is a multiple of it
    longest: int  # K elements of the longest tail

    @property
    def one_piece(self) -> bool:
        """Whether no tail has several pieces."""
        return self.longest <= self.piece_k

    @property
    def one_step(self) -> bool:
        """Whether every tail is a single step."""
        return self.longest == self.planes * self.tile


@cache
def tail(group_k: int | None, unit_k: int, *, planes: bool, single: bool) -> Tail | None:
    """The tail of a walk by turns of `unit_k`; None where padded rows leave none. `single`: one
    element a step.
    """
    if K_UNIT % unit_k == 0:
        return None
    if planes:
        tile = 1 if single else K_UNIT // 2
        short = group_k is not None and group_k < LONG_BLOCK
        piece = group_k if group_k is not None and short else block_length(group_k)
        return Tail(tile, 2, piece, short, K_UNIT, unit_k - K_UNIT)
    unit = K_UNIT if group_k is None or group_k % K_UNIT == 0 else 32
    return Tail(1 if single else unit, 1, unit_k, False, unit, unit_k - unit)
