"""Walks touch every element of a row once, in exact power-of-two tiles and in the order of K."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.lower.walk import (
    NOWHERE,
    Advance,
    Plane,
    Tail,
    Tile,
    Walk,
    cut,
    doubled,
    planes_walk,
    rows_walk,
    tail,
)
from generator.packing import K_UNIT, block_length, blocks, groups_of, padded

lengths = st.integers(1, 20000)
powers = st.integers(0, 12).map(lambda power: 2**power)
int4_groups = st.one_of(st.none(), st.just(32), st.integers(1, 40).map(lambda n: 64 * n))
int8_groups = st.one_of(st.none(), st.integers(1, 80).map(lambda n: 32 * n))
quick = settings(deadline=None, derandomize=True)


def turn(walk: Walk) -> Iterator[Tile]:
    """Every tile that one turn touches, in the kernel's order, from the start of the turn."""
    at = NOWHERE
    for _ in range(walk.blocks):
        for _ in range(walk.repeat):
            yield from (moved(tile, at) for tile in walk.repeated)
            at = Advance(at.rows + walk.step.rows, at.weights + walk.step.weights)
        yield from (moved(tile, at) for tile in walk.tiles)
        at = Advance(at.rows + walk.rest.rows, at.weights + walk.rest.weights)


def end(walk: Walk) -> Advance:
    """Where a turn leaves the pointers."""
    rows = walk.blocks * (walk.repeat * walk.step.rows + walk.rest.rows)
    weights = walk.blocks * (walk.repeat * walk.step.weights + walk.rest.weights)
    return Advance(rows, weights)


def moved(tile: Tile, by: Advance) -> Tile:
    planes = tuple(Plane(plane.offset + by.rows, plane.group) for plane in tile.planes)
    return Tile(tile.offset + by.weights, tile.size, planes)


@st.composite
def int4_walks(draw: st.DrawFn) -> tuple[int | None, Walk, Walk]:
    """A group size, the walk of it in a row and one in a loop, at a tile that a plane holds."""
    group = draw(int4_groups)
    longest = block_length(group) // 2
    block_k = 1 << draw(st.integers(0, longest.bit_length() - 1))
    tight = draw(st.booleans())
    looped = planes_walk(group, block_k, loop=True, tight=tight)
    return group, planes_walk(group, block_k, loop=False, tight=tight), looped


def stored(k: int, group: int | None) -> dict[tuple[int, int], int]:
    """The element of each nibble, as packing states it: {(byte, nibble): k}."""
    return {
        (block.start // 2 + byte, nibble): block.start + nibble * block.half + byte
        for block in blocks(k, group)
        for byte in range(block.half)
        for nibble in (0, 1)
    }


def test_320_at_128_is_128_128_64() -> None:
    assert cut(320, 128) == [(0, 128), (128, 128), (256, 64)]


def test_no_length_has_no_pieces() -> None:
    assert cut(0, 128) == []


@quick
@given(lengths, powers)
def test_pieces_cover_the_length_exactly_in_order(length: int, block_k: int) -> None:
    sizes = [size for _, size in cut(length, block_k)]
    assert [offset for offset, _ in cut(length, block_k)] == [0, *accumulate(sizes)][:-1]
    assert sum(sizes) == length


@quick
@given(lengths, powers)
def test_pieces_are_falling_powers_of_two_up_to_block_k(length: int, block_k: int) -> None:
    sizes = [size for _, size in cut(length, block_k)]
    assert all(size.bit_count() == 1 for size in sizes)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] <= block_k


@quick
@given(lengths, powers)
def test_no_power_below_block_k_repeats(length: int, block_k: int) -> None:
    short = [size for _, size in cut(length, block_k) if size < block_k]
    assert len(short) == len(set(short))


@quick
@given(lengths, powers)
def test_rows_in_a_row_and_in_a_loop_touch_the_tiles_of_the_cut(length: int, block_k: int) -> None:
    unrolled, looped = (rows_walk(length, block_k, loop=loop) for loop in (False, True))
    expected = [Tile(start, size, (Plane(start, 0),)) for start, size in cut(length, block_k)]
    assert list(turn(unrolled)) == list(turn(looped)) == expected
    assert looped.repeat == length // block_k
    assert unrolled.repeat == 0


@quick
@given(lengths, powers, st.booleans())
def test_turn_of_rows_ends_where_the_next_one_starts(length: int, block_k: int, loop: bool) -> None:
    walk = rows_walk(length, block_k, loop=loop)
    assert (walk.unit_k, walk.groups) == (length, 1)
    assert end(walk) == Advance(length, length)


def test_loop_over_rows_takes_the_whole_tiles_and_leaves_the_remainder() -> None:
    assert rows_walk(320, 128, loop=True) == Walk(
        unit_k=320,
        groups=1,
        blocks=1,
        repeat=2,
        repeated=(Tile(0, 128, (Plane(0, 0),)),),
        step=Advance(128, 128),
        tiles=(Tile(0, 64, (Plane(0, 0),)),),
        rest=Advance(64, 64),
    )


@quick
@given(int4_walks())
def test_planes_in_a_row_and_in_a_loop_touch_the_same_tiles(
    walks: tuple[int | None, Walk, Walk],
) -> None:
    _, unrolled, looped = walks
    assert list(turn(looped)) == list(turn(unrolled))
    assert unrolled.repeat == 0
    assert (looped.unit_k, looped.groups) == (unrolled.unit_k, unrolled.groups)


@quick
@given(int4_walks())
def test_turn_of_planes_covers_every_byte_once_in_order(
    walks: tuple[int | None, Walk, Walk],
) -> None:
    for walk in walks[1:]:
        tiles = list(turn(walk))
        sizes = [tile.size for tile in tiles]
        assert [tile.offset for tile in tiles] == [0, *accumulate(sizes)][:-1]
        assert sum(sizes) == walk.unit_k // 2
        assert all(size.bit_count() == 1 for size in sizes)
        assert end(walk) == Advance(walk.unit_k, walk.unit_k // 2)


@quick
@given(int4_walks(), st.integers(1, 6000))
def test_whole_turns_visit_exactly_the_nibbles_that_packing_states(
    walks: tuple[int | None, Walk, Walk], k: int
) -> None:
    """The promise between the text that unpacks and the code that packs."""
    group, *both = walks
    for walk in both:
        whole = padded(k) // walk.unit_k * walk.unit_k
        visited = [
            ((start // 2 + tile.offset + index, nibble), start + plane.offset + index)
            for start in range(0, whole, walk.unit_k)
            for tile in turn(walk)
            for nibble, plane in enumerate(tile.planes)
            for index in range(tile.size)
        ]
        expected = {at: element for at, element in stored(k, group).items() if element < whole}
        assert len(visited) == len(expected)
        assert dict(visited) == expected


@quick
@given(int4_walks())
def test_planes_meet_the_rows_of_their_own_group_and_groups_ascend(
    walks: tuple[int | None, Walk, Walk],
) -> None:
    group, *both = walks
    for walk in both:
        length = group or walk.unit_k
        planes = [(plane, tile.size) for tile in turn(walk) for plane in tile.planes]
        for plane, size in planes:
            assert plane.offset // length == plane.group == (plane.offset + size - 1) // length
        assert {plane.group for plane, _ in planes} == set(range(walk.groups))
        assert walk.groups == (groups_of(walk.unit_k, group) if group else 1)


@pytest.mark.parametrize(
    ("group", "block_k", "tight", "expected"),
    [
        (  # a pair of short groups: one byte holds an element of each
            32,
            32,
            False,
            Walk(
                64,
                2,
                1,
                1,
                (Tile(0, 32, (Plane(0, 0), Plane(32, 1))),),
                Advance(32, 32),
                (),
                Advance(32, 0),
            ),
        ),
        (  # 160 bytes of one group: 128 in the loop, 32 after it, then past the other plane
            320,
            64,
            False,
            Walk(
                320,
                1,
                1,
                2,
                (Tile(0, 64, (Plane(0, 0), Plane(160, 0))),),
                Advance(64, 64),
                (Tile(0, 32, (Plane(0, 0), Plane(160, 0))),),
                Advance(192, 32),
            ),
        ),
        (  # a long group of two blocks: a step a block
            512,
            64,
            False,
            Walk(
                512,
                1,
                1,
                2,
                (
                    Tile(0, 64, (Plane(0, 0), Plane(128, 0))),
                    Tile(64, 64, (Plane(64, 0), Plane(192, 0))),
                ),
                Advance(256, 128),
                (),
                NOWHERE,
            ),
        ),
        (  # the same where a body may hold one tile alone
            512,
            64,
            True,
            Walk(
                512,
                1,
                2,
                2,
                (Tile(0, 64, (Plane(0, 0), Plane(128, 0))),),
                Advance(64, 64),
                (),
                Advance(128, 0),
            ),
        ),
    ],
    ids=["pair", "remainder", "block_after_block", "tight"],
)
def test_loop_over_planes_by_hand(group: int, block_k: int, tight: bool, expected: Walk) -> None:
    assert planes_walk(group, block_k, loop=True, tight=tight) == expected


@quick
@given(int4_walks(), int8_groups, powers, st.booleans())
def test_doubled_is_two_turns_in_a_row(
    walks: tuple[int | None, Walk, Walk], length: int | None, block_k: int, planes: bool
) -> None:
    once = walks[1] if planes else rows_walk(length or block_k, block_k, loop=False)
    for grouped in (True, False):
        twice = doubled(once, grouped=grouped)
        added = once.groups if grouped else 0
        second = [
            replace(tile, planes=tuple(replace(p, group=p.group + added) for p in tile.planes))
            for tile in (moved(each, end(once)) for each in turn(once))
        ]
        assert list(turn(twice)) == [*turn(once), *second]
        assert end(twice) == Advance(2 * end(once).rows, 2 * end(once).weights)
        assert (twice.unit_k, twice.groups) == (2 * once.unit_k, once.groups + added)


def test_short_groups_are_walked_in_pairs_and_rows_without_groups_in_blocks() -> None:
    turns = {
        group: planes_walk(group, 32, loop=False)
        for group in (32, 64, 128, 192, 256, 320, 512, None)
    }
    assert {group: (walk.unit_k, walk.groups) for group, walk in turns.items()} == {
        32: (64, 2),
        64: (128, 2),
        128: (256, 2),
        192: (384, 2),
        256: (256, 1),
        320: (320, 1),
        512: (512, 1),
        None: (256, 1),
    }


@quick
@given(lengths, powers, st.booleans())
def test_figures_of_a_walk_are_those_of_its_tiles(length: int, block_k: int, loop: bool) -> None:
    walk = rows_walk(length, block_k, loop=loop and length >= block_k)
    sizes = [tile.size for tile in turn(walk)]
    body = [tile.size for tile in walk.repeated]
    assert walk.smallest == min(sizes)
    assert walk.turn_k == sum(body)
    assert walk.dots == max(len(body), len(walk.tiles))
    assert walk.row_k == max(sum(body), length - walk.repeat * block_k)
    assert walk.staged == ((block_k, length % block_k) if walk.repeat else (length, 0))


def test_figures_of_planes_count_both_planes_of_a_byte() -> None:
    row = planes_walk(320, 64, loop=False)
    assert [tile.size for tile in row.tiles] == [64, 64, 32]
    assert (row.dots, row.row_k, row.staged) == (6, 320, (160, 0))
    loop = planes_walk(320, 64, loop=True)
    assert (loop.dots, loop.row_k, loop.turn_k, loop.staged) == (2, 128, 128, (64, 32))


@pytest.mark.parametrize(
    ("group", "unit_k", "expected"),
    [
        (None, 64, None),
        (None, 128, Tail(64, 1, 128, False, 64, 64)),
        (32, 32, None),
        (64, 64, None),
        (96, 96, Tail(32, 1, 96, False, 32, 64)),
        (128, 128, Tail(64, 1, 128, False, 64, 64)),
        (320, 320, Tail(64, 1, 320, False, 64, 256)),
    ],
)
def test_tail_of_rows(group: int | None, unit_k: int, expected: Tail | None) -> None:
    assert tail(group, unit_k, planes=False, single=False) == expected


@pytest.mark.parametrize(
    ("group", "unit_k", "expected"),
    [
        (None, 256, Tail(32, 2, 256, False, 64, 192)),
        (32, 64, None),
        (64, 128, Tail(32, 2, 64, True, 64, 64)),
        (128, 256, Tail(32, 2, 128, True, 64, 192)),
        (256, 256, Tail(32, 2, 256, False, 64, 192)),
        (320, 320, Tail(32, 2, 320, False, 64, 256)),
        (512, 512, Tail(32, 2, 256, False, 64, 448)),
    ],
)
def test_tail_of_planes(group: int | None, unit_k: int, expected: Tail | None) -> None:
    assert tail(group, unit_k, planes=True, single=False) == expected


def test_outer_products_take_a_tail_one_stored_element_a_step() -> None:
    assert tail(320, 320, planes=False, single=True) == Tail(1, 1, 320, False, 64, 256)
    assert tail(320, 320, planes=True, single=True) == Tail(1, 2, 320, False, 64, 256)


def int4_tail(group: int | None) -> Tail:
    found = tail(group, planes_walk(group, 32, loop=False).unit_k, planes=True, single=False)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("group", "one_piece", "one_step"),
    [
        (64, True, True),  # the one group that has no partner
        (128, False, False),  # a group, and a part of its partner
        (192, False, False),
        (256, True, False),
        (320, True, False),
        (448, True, False),
        (512, False, False),  # a block, and a part of the next one
        (576, True, False),
        (768, False, False),
        (None, True, False),
    ],
)
def test_tail_of_planes_is_one_piece_where_no_other_block_fits(
    group: int | None, one_piece: bool, one_step: bool
) -> None:
    assert (int4_tail(group).one_piece, int4_tail(group).one_step) == (one_piece, one_step)


def test_tail_of_rows_is_one_piece_and_one_step_where_a_turn_is_two_of_them() -> None:
    tails = {group: tail(group, group, planes=False, single=False) for group in (96, 128, 192)}
    assert {group: each.one_piece for group, each in tails.items() if each} == dict.fromkeys(
        tails, True
    )
    assert {group: each.one_step for group, each in tails.items() if each} == {
        96: False,
        128: True,
        192: False,
    }
    single = tail(128, 128, planes=False, single=True)
    assert single is not None and not single.one_step


@quick
@given(int4_groups, st.integers(1, 6000))
def test_what_whole_turns_of_planes_leave_is_a_tail(group: int | None, k: int) -> None:
    """Its pieces are the blocks that packing states past the last whole turn."""
    unit = planes_walk(group, 32, loop=False).unit_k
    whole = padded(k) // unit * unit
    pieces = [block for block in blocks(k, group) if block.start >= whole]
    assert sum(piece.length for piece in pieces) == padded(k) - whole
    expected = tail(group, unit, planes=True, single=False)
    if expected is None:
        assert pieces == []
        return
    assert (padded(k) - whole) % expected.unit_k == 0
    assert padded(k) - whole <= expected.longest
    assert len(pieces) <= 1 or not expected.one_piece
    for piece in pieces:
        assert piece.half % expected.tile == 0
        assert piece.length <= expected.piece_k
    groups = [piece.start // group if group else 0 for piece in pieces]
    assert len(set(groups)) == (len(pieces) if expected.scaled else min(1, len(pieces)))


@quick
@given(int4_groups)
def test_longest_tail_of_planes_is_met_and_says_whether_a_loop_over_pieces_turns_twice(
    group: int | None,
) -> None:
    unit = planes_walk(group, 32, loop=False).unit_k
    expected = tail(group, unit, planes=True, single=False)
    if expected is None:
        return
    every = [
        [block for block in blocks(unit + left, group) if block.start >= unit]
        for left in range(K_UNIT, unit, K_UNIT)
    ]
    assert max(sum(piece.length for piece in pieces) for pieces in every) == expected.longest
    assert expected.one_piece == (max(map(len, every)) == 1)
    assert expected.one_step == all(
        [2 * expected.tile] == [piece.length for piece in pieces] for pieces in every
    )


@quick
@given(int8_groups, st.integers(5, 8).map(lambda power: 2**power), st.integers(1, 6000))
def test_what_whole_turns_of_rows_leave_is_a_tail_of_one_group(
    group: int | None, block_k: int, k: int
) -> None:
    unit = group or block_k
    left = padded(k) % unit
    expected = tail(group, unit, planes=False, single=False)
    if expected is None:
        assert left == 0
        return
    assert left % expected.tile == left % expected.unit_k == 0
    assert left <= expected.longest < expected.piece_k == unit
    assert expected.one_step == (unit == 2 * expected.tile)
    assert K_UNIT % expected.unit_k == 0
