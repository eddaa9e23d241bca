"""The oracle against rationals, Python integers, float64 and the seed's formula."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generator.runtime import reference

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


def nearest_fp32(exact: Fraction) -> float:
    """The fp32 nearest to a rational, ties to even, found among the neighbours of a first guess."""
    guess = np.float32(float(exact)) if abs(exact) < 2**128 else np.float32(np.inf)
    if not np.isfinite(guess):
        guess = np.float32(np.copysign(np.finfo(np.float32).max, float(exact > 0) - 0.5))
    around = [np.nextafter(guess, np.float32(side)) for side in (-np.inf, np.inf)] + [guess]
    near = sorted(
        (abs(Fraction(float(each)) - exact), int(np.abs(each).view(np.int32)) & 1, float(each))
        for each in around
        if np.isfinite(each)
    )
    return near[0][2]


@given(finite, finite, finite)
def test_fma_rounds_the_exact_value_once(a: float, b: float, c: float) -> None:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    got = reference.fma(*(torch.tensor([each]) for each in (a, b, c))).item()
    if abs(exact) >= Fraction(2) ** 128 - Fraction(2) ** 103:
        assert got == (float("inf") if exact > 0 else float("-inf"))
    else:
        assert got == nearest_fp32(exact)


def test_fma_of_a_tie_looks_at_the_bits_below() -> None:
    one, tiny = torch.tensor([1.0]), torch.tensor([2.0**-30])
    tie = torch.tensor([1.0 + 2.0**-23])
    assert reference.fma(one, tie, torch.tensor([2.0**-24])).item() == 1.0 + 2.0**-22
    assert reference.fma(tiny, tiny, torch.tensor([1.0 + 2.0**-23])).item() == 1.0 + 2.0**-23


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_silu_is_within_two_ulp_of_float64(dtype: torch.dtype) -> None:
    g = reference.all_patterns(dtype, torch.device("cpu")).float()
    got = reference.silu(g, reference.exp_table(dtype, torch.device("cpu")))
    usual = torch.isfinite(g) & (g > -87.0) & (g != 0)
    exact = g[usual].double() / (1 + torch.exp(-g[usual].double()))
    ulp = torch.exp2(torch.floor(torch.log2(exact.abs())) - 23).clamp(min=2.0**-149)
    assert ((got[usual].double() - exact).abs() <= 2 * ulp).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_silu_at_the_ends(dtype: torch.dtype) -> None:
    g = reference.all_patterns(dtype, torch.device("cpu")).float()
    got = reference.silu(g, reference.exp_table(dtype, torch.device("cpu")))
    low = torch.isfinite(g) & (g < -88.0)
    assert (got[low] == 0).all() and torch.signbit(got[low]).all()
    assert got[g == float("inf")].item() == float("inf")
    assert torch.isnan(got[g == float("-inf")]).all()
    assert torch.isnan(got[torch.isnan(g)]).all()


@pytest.mark.parametrize("rounding", ["half_even", "half_away"])
def test_quantize_is_the_seeds_formula(rounding: str) -> None:
    x = torch.randn(50, 96).bfloat16()
    x[3] = 0
    inv_smooth = torch.rand(4, 96) + 0.5
    expert = torch.randint(0, 4, (50,))
    codes, scale = reference.quantize(x, inv_smooth, expert, rounding)
    for row in range(50):
        smoothed = x[row].float().numpy() * inv_smooth[expert[row]].numpy()
        s = np.float32(np.abs(smoothed).max() / np.float32(127))
        s = np.float32(1) if s < np.float32(1e-6) else s
        v = smoothed / s
        whole = np.rint(v)
        if rounding == "half_away":
            whole = np.trunc(v) + np.sign(v) * (np.abs(v - np.trunc(v)) >= 0.5)
        assert scale[row].item() == s
        assert (codes[row].numpy() == np.clip(whole, -128, 127)).all()


def test_half_away_differs_from_half_even_on_ties_only() -> None:
    x = torch.tensor([[127.0, 2.5, -2.5, 0.5, -0.5, 3.5, 2.49]])
    ones, expert = torch.ones(1, 7), torch.zeros(1, dtype=torch.int32)
    even, _ = reference.quantize(x, ones, expert, "half_even")
    away, _ = reference.quantize(x, ones, expert, "half_away")
    assert even.tolist() == [[127, 2, -2, 0, 0, 4, 2]]
    assert away.tolist() == [[127, 3, -3, 1, -1, 4, 2]]


@pytest.mark.parametrize(
    ("k", "group_k", "groups"), [(64, 32, 2), (80, 32, 3), (24, 32, 1), (64, None, 1)]
)
def test_gemm_sums_groups_in_integers_and_scales_by_fma(
    k: int, group_k: int | None, groups: int
) -> None:
    """The last group is what is left of K."""
    codes = torch.randint(-128, 128, (3, k), dtype=torch.int8)
    weight = torch.randint(-128, 128, (2, 4, k), dtype=torch.int8)
    scale, weight_scale = torch.rand(3) + 0.5, torch.rand(2, groups, 4).bfloat16()
    expert = torch.tensor([0, 1, 1], dtype=torch.int32)
    got = reference.gemm(codes, scale, weight, weight_scale, expert, group_k)
    for row in range(3):
        for column in range(4):
            acc = 0.0
            for group in range(groups):
                length = group_k or k
                part = slice(length * group, length * group + length)
                pairs = zip(
                    codes[row, part].tolist(),
                    weight[expert[row], column, part].tolist(),
                    strict=True,
                )
                total = sum(a * b for a, b in pairs)
                step = Fraction(weight_scale[expert[row], group, column].item())
                acc = nearest_fp32(total * step + Fraction(acc))
            assert got[row, column].item() == nearest_fp32(
                Fraction(acc) * Fraction(scale[row].item())
            )


def test_amax_orders_nan_above_infinity_above_all_else() -> None:
    x = torch.tensor([[1.0, -3.0], [float("-inf"), 2.0], [float("nan"), float("inf")], [0.0, -0.0]])
    inv_smooth, expert = torch.tensor([[2.0, 0.5], [1.0, 1.0]]), torch.tensor([0, 1, 0, 1])
    got = reference.amax_bits(x.bfloat16(), inv_smooth, expert).view(torch.float32)
    assert got[0] == 2.0 and got[1] == float("inf") and torch.isnan(got[2]) and got[3] == 0
    assert not torch.signbit(got).any()


def test_combine_skips_absent_slots() -> None:
    y = torch.tensor([[1.0], [float("nan")], [3.0]]).bfloat16()
    slot_row = torch.tensor([0, -1, 2, -1], dtype=torch.int32)
    weights = torch.tensor([[0.5, float("nan")], [2.0, 1.0]])
    assert reference.combine(y, slot_row, weights).tolist() == [[0.5], [6.0]]


def test_bit_patterns_are_in_order() -> None:
    patterns = reference.all_patterns(torch.bfloat16, torch.device("cpu"))
    assert patterns[0x3F80].item() == 1.0
    assert struct.pack("<f", patterns[0xC000].float().item()) == struct.pack("<f", -2.0)
