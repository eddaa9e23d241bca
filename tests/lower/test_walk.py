"""A group is walked in exact power-of-two tiles, whatever its length."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given, settings
from hypothesis import strategies as st

from generator.lower.walk import Tile, Walk, looped, tiles, unrolled

lengths = st.integers(1, 20000)
blocks = st.integers(0, 12).map(lambda power: 2**power)
quick = settings(deadline=None, derandomize=True)


def flat(walk: Walk) -> list[Tile]:
    """Every tile that a kernel touches, in its order."""
    return [Tile(index * walk.step, walk.step) for index in range(walk.repeat)] + [*walk.tiles]


def test_320_at_128_is_128_128_64() -> None:
    assert tiles(320, 128) == (Tile(0, 128), Tile(128, 128), Tile(256, 64))


def test_no_length_has_no_tiles() -> None:
    assert tiles(0, 128) == ()


@quick
@given(lengths, blocks)
def test_tiles_cover_the_length_exactly_in_order(length: int, block_k: int) -> None:
    cut = tiles(length, block_k)
    assert [tile.offset for tile in cut] == [0, *accumulate(tile.size for tile in cut)][:-1]
    assert sum(tile.size for tile in cut) == length


@quick
@given(lengths, blocks)
def test_tiles_are_falling_powers_of_two_up_to_block_k(length: int, block_k: int) -> None:
    sizes = [tile.size for tile in tiles(length, block_k)]
    assert all(size.bit_count() == 1 for size in sizes)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] <= block_k


@quick
@given(lengths, blocks)
def test_no_power_below_block_k_repeats(length: int, block_k: int) -> None:
    short = [tile.size for tile in tiles(length, block_k) if tile.size < block_k]
    assert len(short) == len(set(short))


@quick
@given(lengths, blocks)
def test_looped_and_unrolled_touch_the_same_tiles(length: int, block_k: int) -> None:
    assert flat(looped(length, block_k)) == flat(unrolled(length, block_k))


@quick
@given(lengths, blocks)
def test_smallest_is_the_least_tile_touched(length: int, block_k: int) -> None:
    for walk in (looped(length, block_k), unrolled(length, block_k)):
        assert walk.smallest == min(tile.size for tile in flat(walk))


def test_loop_takes_the_whole_tiles_and_leaves_the_remainder() -> None:
    assert looped(320, 128) == Walk(repeat=2, step=128, tiles=(Tile(256, 64),))
    assert unrolled(320, 128) == Walk(repeat=0, step=0, tiles=tiles(320, 128))
