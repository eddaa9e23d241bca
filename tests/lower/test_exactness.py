"""The proof is the tight bound of a group's sum, and every shipped contract has one that holds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.formats import FORMATS
from generator.lower.contract import GemmContract
from generator.lower.exactness import prove
from tests.lower.conftest import LIMITS, SPEC, contract, shipped_contracts


@pytest.mark.parametrize(
    ("group", "text"),
    [
        (320, "|group sum| <= 320 * 128 * 128 = 5242880 < 2**31, held in int32"),
        ("channel", "|group sum| <= 16384 * 128 * 128 = 268435456 < 2**31, held in int32"),
    ],
)
def test_proof_reads_as_an_inequality(group: int | str, text: str) -> None:
    assert str(prove(contract("down", group), LIMITS)) == text


def test_proof_that_fails_says_so() -> None:
    proof = prove(contract("down"), LIMITS.model_copy(update={"k": 131072}))
    assert proof is not None
    assert not proof.holds
    assert str(proof) == "|group sum| <= 131072 * 128 * 128 = 2147483648 >= 2**31, held in int32"


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 2**18))
def test_bound_is_reached_by_the_extreme_codes(k: int) -> None:
    proof = prove(contract("up"), LIMITS.model_copy(update={"k": k}))
    lowest, highest = FORMATS["int8"].lowest, FORMATS["int8"].highest
    assert lowest is not None
    assert highest is not None
    extremes = [a * b for a in (lowest, highest) for b in (lowest, highest)]
    assert proof is not None
    assert proof.bound == max(abs(k * each) for each in extremes)
    assert proof.holds == all(-(2**31) <= k * each < 2**31 for each in extremes)


def test_group_bounds_the_sum_whatever_the_limits() -> None:
    wide = LIMITS.model_copy(update={"k": 2**30})
    assert prove(contract("down", 128), wide) == prove(contract("down", 128), LIMITS)


@pytest.mark.parametrize("operation", ["route", "quantize", "requantize", "combine"])
def test_operations_without_integer_sums_need_no_proof(operation: str) -> None:
    assert prove(contract(operation), LIMITS) is None


def test_every_shipped_gemm_is_proved_within_its_limits() -> None:
    gemms = [each for each in shipped_contracts() if isinstance(each, GemmContract)]
    assert gemms
    for each in gemms:
        proof = prove(each, SPEC.limits)
        assert proof is not None
        assert proof.holds, each.name
        assert proof.terms == (each.group_k or SPEC.limits.k)
