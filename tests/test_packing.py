"""The packing rule of int4: blocks cover a padded row once, and no plane leaves its group."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.packing import (
    K_UNIT,
    Block,
    block_length,
    blocks,
    groups_of,
    packs,
    padded,
)

# Lengths and groups of real layers, as they were checked by brute force before the rule was built.
REAL_K = (512, 768, 1280, 1408, 2048, 2560, 2880, 7168)
ODD_K = (96, 176, 192, 320, 352, 704, 2688, 6400)
REAL_GROUPS = (32, 64, 128, 192, 256, 320, 512, None)
LEAST_HALF = 32  # the least K of an int8 dot

lengths = st.integers(1, 20000)
groups = st.one_of(st.none(), st.just(32), st.integers(1, 64).map(lambda n: 64 * n))
quick = settings(deadline=None, derandomize=True)


def check(k: int, group_k: int | None) -> None:
    """Everything that kernels and `pack` rely on."""
    cut = blocks(k, group_k)
    starts = [block.start for block in cut]
    ends = [block.start + block.length for block in cut]
    assert starts == [0, *ends[:-1]]  # each element once, in order
    assert ends[-1] == padded(k)
    for block in cut:
        assert block.length == 2 * block.half
        assert block.half % LEAST_HALF == 0
        assert block.start % 2 == 0  # the byte offset start / 2 is whole
        for plane in (block.start, block.start + block.half):
            last = plane + block.half - 1
            assert group_k is None or plane // group_k == last // group_k
    assert sum(block.half for block in cut) == padded(k) // 2  # no byte is padding


@pytest.mark.parametrize(("k", "group_k"), [*product(REAL_K + ODD_K, REAL_GROUPS)])
def test_real_rows_are_covered_exactly(k: int, group_k: int | None) -> None:
    check(k, group_k)


@quick
@given(lengths, groups)
def test_any_row_is_covered_exactly(k: int, group_k: int | None) -> None:
    check(k, group_k)


@quick
@given(lengths, groups)
def test_byte_offset_of_a_block_is_half_its_start(k: int, group_k: int | None) -> None:
    at = 0
    for block in blocks(k, group_k):
        assert at == block.start // 2
        at += block.half  # bytes: two elements each


@quick
@given(lengths, groups)
def test_whole_blocks_come_first_and_the_rest_ends_at_group_borders(
    k: int, group_k: int | None
) -> None:
    cut, whole = blocks(k, group_k), block_length(group_k)
    full = padded(k) // whole
    assert [block.length for block in cut[:full]] == [whole] * full
    rest = cut[full:]
    assert sum(block.length for block in rest) == padded(k) - full * whole
    for block in rest:
        end = block.start + block.length
        assert end == padded(k) or (group_k is not None and end % group_k == 0)


@quick
@given(lengths)
def test_rows_are_padded_to_the_next_multiple_of_the_unit(k: int) -> None:
    assert padded(k) % K_UNIT == 0
    assert 0 <= padded(k) - k < K_UNIT


@quick
@given(lengths, st.integers(1, 4096))
def test_last_group_may_be_short(k: int, group_k: int) -> None:
    count = groups_of(k, group_k)
    assert (count - 1) * group_k < k <= count * group_k
    assert groups_of(k, None) == 1


def test_planes_exist_for_32_multiples_of_64_and_the_whole_row() -> None:
    assert packs(None)
    accepted = [size for size in range(-64, 400) if packs(size)]
    assert accepted == [32, 64, 128, 192, 256, 320, 384]


def test_block_is_two_short_groups_a_part_of_a_long_one_or_one_group() -> None:
    assert {group: block_length(group) for group in (*REAL_GROUPS, 384, 1024)} == {
        32: 64,
        64: 128,
        128: 256,
        192: 384,
        256: 256,
        320: 320,
        384: 384,
        512: 256,
        1024: 256,
        None: 256,
    }


@pytest.mark.parametrize(
    ("k", "group_k", "lengths"),
    [
        (1280, 320, [320] * 4),
        (512, 512, [256, 256]),
        (704, None, [256, 256, 192]),
        (704, 128, [256, 256, 128, 64]),  # one whole group, then a short one
        (192, 128, [128, 64]),  # DeepSeek-V2-Lite's 176, padded
        (960, 512, [256, 256, 256, 192]),
        (320, 192, [192, 128]),
        (96, 32, [64, 64]),
    ],
)
def test_blocks_by_hand(k: int, group_k: int | None, lengths: list[int]) -> None:
    assert [block.length for block in blocks(k, group_k)] == lengths


def test_block_states_its_planes() -> None:
    assert blocks(320, 320) == (Block(start=0, length=320),)
    assert blocks(320, 320)[0].half == 160
