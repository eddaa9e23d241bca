"""Counting bits: every one counts, NaNs compare as a class."""

from __future__ import annotations

import pytest
import torch

from generator.verify.compare import compare, differing_bits


def test_equal_tensors_differ_in_no_bit() -> None:
    x = torch.randn(100).bfloat16()
    assert differing_bits(x, x.clone()) == 0


def test_one_bit_is_one_bit() -> None:
    for dtype in (torch.int8, torch.int32, torch.int64):
        x = torch.zeros(9, dtype=dtype)
        y = x.clone()
        y[4] = 4
        assert differing_bits(x, y) == 1
    assert (
        differing_bits(torch.tensor([-1], dtype=torch.int8), torch.zeros(1, dtype=torch.int8)) == 8
    )
    assert differing_bits(torch.tensor([0.0]), torch.tensor([-0.0])) == 1


def test_nans_are_one_class() -> None:
    quiet = torch.tensor([0x7FC00000, -1], dtype=torch.int32).view(torch.float32)
    other = torch.tensor([0x7F800001, 0x7FC00000], dtype=torch.int32).view(torch.float32)
    assert differing_bits(quiet, other) == 0
    assert differing_bits(quiet, torch.zeros(2)) > 0


def test_shapes_and_types_must_match() -> None:
    with pytest.raises(ValueError, match="compared"):
        differing_bits(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="compared"):
        differing_bits(torch.zeros(2), torch.zeros(2).half())


def test_a_comparison_adds_all_tensors_of_a_stage() -> None:
    one, two = torch.zeros(4), torch.zeros(4, dtype=torch.int8)
    result = compare("up", [(one, one), (two, two + 1)], "portable/x", "only one")
    assert (result.bits, result.different) == (4 * 32 + 4 * 8, 4)
