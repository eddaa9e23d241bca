"""int4 in bytes: the seed's pairs of rows, and the kernel layout's planes of generator/packing.py.

Values are int8 tensors of -8 .. 7; bytes are int8 tensors, two's complement in either nibble.
"""

from __future__ import annotations

import torch

from ..packing import blocks


def _low(bytes_: torch.Tensor) -> torch.Tensor:
    return (bytes_ << 4) >> 4


def _high(bytes_: torch.Tensor) -> torch.Tensor:
    return bytes_ >> 4


def _bytes(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    return (low & 15) | (high << 4)


def rows_of_pairs(pairs: torch.Tensor) -> torch.Tensor:
    """[..., N / 2, K] bytes, rows 2i and 2i + 1 in the low and the high nibble, to [..., N, K]."""
    return torch.stack([_low(pairs), _high(pairs)], dim=-2).flatten(-3, -2)


def pairs_of_rows(rows: torch.Tensor) -> torch.Tensor:
    """[..., N, K] values to [..., N / 2, K] bytes, the seed's layout."""
    even, odd = rows.unflatten(-2, (-1, 2)).unbind(-2)
    return _bytes(even, odd)


def planes_of_rows(rows: torch.Tensor, group_k: int | None) -> torch.Tensor:
    """[..., K] values, K a multiple of 64, to [..., K / 2] bytes in planes."""
    planes = [
        _bytes(*rows[..., each.start : each.start + each.length].chunk(2, dim=-1))
        for each in blocks(rows.shape[-1], group_k)
    ]
    return torch.cat(planes, dim=-1)


def rows_of_planes(planes: torch.Tensor, group_k: int | None) -> torch.Tensor:
    """[..., K / 2] bytes in planes to [..., K] values."""
    rows = []
    for each in blocks(2 * planes.shape[-1], group_k):
        own = planes[..., each.start // 2 : each.start // 2 + each.half]
        rows += [_low(own), _high(own)]
    return torch.cat(rows, dim=-1)
