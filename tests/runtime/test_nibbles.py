"""int4 in bytes: pairs of rows, planes of blocks, and the rule that cuts the blocks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.packing import block_length, blocks, groups_of, packs, padded
from generator.runtime.nibbles import (
    pairs_of_rows,
    planes_of_rows,
    rows_of_pairs,
    rows_of_planes,
)

GROUPS = [None, 32, 64, 128, 192, 256, 320, 512, 576, 768]
ALL = torch.arange(-8, 8, dtype=torch.int8)

groups = st.sampled_from(GROUPS)
lengths = st.integers(1, 20).map(lambda units: 64 * units)


def values(*shape: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(-8, 8, shape, dtype=torch.int8, generator=random)


def hexes(bytes_: torch.Tensor) -> list[str]:
    return [f"{each & 0xFF:02X}" for each in bytes_.tolist()]


def test_a_pair_of_rows_is_low_and_high_nibble() -> None:
    rows = torch.tensor([[1, -8, 7, 0], [-2, 7, -1, -8]], dtype=torch.int8)
    assert hexes(pairs_of_rows(rows)[0]) == ["E1", "78", "F7", "80"]


def test_all_pairs_of_values_come_back() -> None:
    rows = torch.stack([ALL.repeat_interleave(16), ALL.repeat(16)])
    pairs = pairs_of_rows(rows)
    assert pairs.shape == (1, 256) and len(set(pairs[0].tolist())) == 256
    assert torch.equal(rows_of_pairs(pairs), rows)


def test_all_bytes_are_pairs_of_values() -> None:
    bytes_ = torch.arange(-128, 128, dtype=torch.int16).to(torch.int8)[None]
    rows = rows_of_pairs(bytes_)
    assert rows.min() == -8 and rows.max() == 7
    assert torch.equal(pairs_of_rows(rows), bytes_)


def test_rows_pair_up_in_order() -> None:
    rows = values(3, 6, 5)
    pairs = pairs_of_rows(rows)
    assert pairs.shape == (3, 3, 5)
    for row in range(6):
        nibble = pairs[:, row // 2] >> 4 if row % 2 else (pairs[:, row // 2] << 4) >> 4
        assert torch.equal(nibble, rows[:, row])


def test_planes_by_hand() -> None:
    """64 elements are a block of two planes of 32: byte j has elements j and 32 + j."""
    row = torch.zeros(64, dtype=torch.int8)
    row[0], row[1], row[31], row[32], row[33], row[63] = 1, 2, -8, 3, -1, 7
    for group in (None, 32, 64, 128, 320):
        got = hexes(planes_of_rows(row, group))
        assert (got[0], got[1], got[31]) == ("31", "F2", "78")
        assert set(got[2:31]) == {"00"}


def test_all_values_in_either_plane() -> None:
    """Two blocks of 256, whose planes meet in all 256 pairs of values."""
    low, high = ALL.repeat_interleave(16), ALL.repeat(16)
    row = torch.cat([low[:128], high[:128], low[128:], high[128:]])
    planes = planes_of_rows(row, None)
    assert len(set(planes.tolist())) == 256
    assert torch.equal(rows_of_planes(planes, None), row)


@pytest.mark.parametrize(
    ("k", "group_k", "cut"),
    [
        (64, None, [64]),
        (448, None, [256, 192]),
        (512, 256, [256, 256]),
        (832, 512, [256, 256, 256, 64]),
        (1024, 512, [256, 256, 256, 256]),
        (192, 32, [64, 64, 64]),
        (192, 64, [128, 64]),
        (448, 128, [256, 128, 64]),
        (704, 192, [384, 192, 128]),
        (640, 320, [320, 320]),
        (832, 320, [320, 320, 192]),
        (1280, 320, [320, 320, 320, 320]),
    ],
)
def test_blocks_by_hand(k: int, group_k: int | None, cut: list[int]) -> None:
    assert [each.length for each in blocks(k, group_k)] == cut


@given(lengths, groups)
def test_blocks_cover_a_row_and_no_plane_crosses_a_group(k: int, group_k: int | None) -> None:
    end = 0
    for each in blocks(k, group_k):
        assert each.start == end and each.length % 64 == 0 and each.half * 2 == each.length
        end += each.length
        for plane in (each.start, each.start + each.half):
            if group_k is not None:
                assert plane // group_k == (plane + each.half - 1) // group_k
    assert end == k


@settings(max_examples=60, deadline=None)
@given(lengths, groups)
def test_planes_and_rows_are_inverse(k: int, group_k: int | None) -> None:
    rows = values(2, 3, k)
    planes = planes_of_rows(rows, group_k)
    assert planes.shape == (2, 3, k // 2) and planes.dtype == torch.int8
    assert torch.equal(rows_of_planes(planes, group_k), rows)
    bytes_ = torch.randint(-128, 128, (3, k // 2), dtype=torch.int8)
    assert torch.equal(planes_of_rows(rows_of_planes(bytes_, group_k), group_k), bytes_)


@settings(max_examples=60, deadline=None)
@given(lengths, groups)
def test_every_element_is_where_the_rule_says(k: int, group_k: int | None) -> None:
    """The rule in words: the byte of element k lies in the block of k, whose first byte is half its
    first element; its low nibble belongs to the first half of the block.
    """
    planes = planes_of_rows(torch.arange(k).remainder(13).sub(6).to(torch.int8), group_k).tolist()
    for each in blocks(k, group_k):
        for element in range(each.start, each.start + each.length):
            inside = element - each.start
            byte = planes[each.start // 2 + inside % each.half] & 0xFF
            nibble = byte & 15 if inside < each.half else byte >> 4
            assert nibble == (element % 13 - 6) & 15


def test_which_groups_pack() -> None:
    assert all(packs(each) for each in GROUPS)
    assert not any(packs(each) for each in (0, 16, 48, 96, 100, -64))
    assert [block_length(each) for each in (None, 32, 192, 256, 320, 512)] == [
        *(256, 64, 384, 256, 320, 256)
    ]


def test_lengths() -> None:
    assert [padded(each) for each in (1, 63, 64, 65, 176)] == [64, 64, 64, 128, 192]
    assert [groups_of(each, 128) for each in (64, 128, 129, 256)] == [1, 1, 2, 2]
    assert groups_of(1280, None) == 1
