"""The proof is the tight bound of every accumulator that a group's sum goes through."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.formats import FORMATS
from generator.lower.contract import GemmContract
from generator.lower.exactness import FP32_INTEGERS, INT32_MAX, Proof, prove
from tests.lower.conftest import LIMITS, SPEC, SPECS, contract, gemm, shipped_contracts

INT8_SPECS = ("w8a8", "w4a8")
# How nibbles and bytes are multiplied: spec, unpack, greatest |weight| as the dot meets it.
FORMS = (
    ("w8a8", "none", 128),
    ("w4a8", "value", 8),
    ("w4a8", "shift", 128),
    ("w4a8", "ptx", 128),
)
# Longest group that fp32 sums without a chunk: 2**24 / (128 * |weight|).
LONGEST = {"none": 1024, "value": 16384, "shift": 1024, "ptx": 1024}
quick = settings(deadline=None, derandomize=True)


def proof_of(
    group: int | str = "channel",
    *,
    spec: str = "w8a8",
    dot: str = "int8",
    unpack: str = "none",
    k: int = LIMITS.k,
) -> Proof:
    limits = LIMITS.model_copy(update={"k": k})
    proof = prove(contract("down", group, spec=spec), limits, dot=dot, unpack=unpack)
    assert proof is not None
    return proof


@pytest.mark.parametrize(
    ("group", "text"),
    [
        (320, "|group sum| <= 320 * 128 * 128 = 5242880 < 2**31, held in int32"),
        ("channel", "|row sum| <= 16384 * 128 * 128 = 268435456 < 2**31, held in int32"),
    ],
)
def test_proof_reads_as_an_inequality(group: int | str, text: str) -> None:
    assert str(proof_of(group)) == text


@pytest.mark.parametrize(
    ("group", "spec", "unpack", "text"),
    [
        (
            1024,
            "w8a8",
            "none",
            "|group sum| <= 1024 * 128 * 128 = 16777216 <= 2**24, held in fp32",
        ),
        (
            1056,
            "w8a8",
            "none",
            "|chunk sum| <= 1024 * 128 * 128 = 16777216 <= 2**24, held in fp32;"
            " |group sum| <= 1056 * 128 * 128 = 17301504 < 2**31, held in int32",
        ),
        (
            "channel",
            "w4a8",
            "value",
            "|row sum| <= 16384 * 128 * 8 = 16777216 <= 2**24, held in fp32",
        ),
        (
            "channel",
            "w4a8",
            "shift",
            "|chunk sum| <= 1024 * 128 * (16 * 8) = 16777216 <= 2**24, held in fp32;"
            " |row sum| <= 16384 * 128 * (16 * 8) = 268435456 < 2**31, held in int32",
        ),
    ],
)
def test_proof_of_fp16_dots_reads_as_inequalities(
    group: int | str, spec: str, unpack: str, text: str
) -> None:
    assert str(proof_of(group, spec=spec, dot="fp16_exact", unpack=unpack)) == text


def test_proof_that_fails_says_so() -> None:
    proof = proof_of(k=131072)
    assert not proof.holds
    assert str(proof) == "|row sum| <= 131072 * 128 * 128 = 2147483648 >= 2**31, held in int32"


@pytest.mark.parametrize(("spec", "unpack", "weight"), FORMS)
def test_fp32_takes_a_whole_group_exactly_up_to_the_longest(
    spec: str, unpack: str, weight: int
) -> None:
    """The seed's claim: 1024 for int8, 16384 for int4, 1024 again for nibbles kept times 16."""
    longest = LONGEST[unpack]
    assert longest * 128 * weight == FP32_INTEGERS
    for k, whole in ((longest, True), (longest + 32, False)):
        proof = proof_of(spec=spec, dot="fp16_exact", unpack=unpack, k=k)
        assert proof.holds
        assert (proof.chunk is None) == whole
        assert [bound.what for bound in proof.bounds] == (["row"] if whole else ["chunk", "row"])
        assert proof.bounds[0].accumulator == "fp32"
        assert proof.chunk in (None, longest)


@quick
@given(st.sampled_from(FORMS), st.integers(1, 2**18))
def test_chunks_are_summed_exactly_and_their_total_is_in_int32(
    form: tuple[str, str, int], k: int
) -> None:
    spec, unpack, weight = form
    proof = proof_of(spec=spec, dot="fp16_exact", unpack=unpack, k=k)
    *chunks, total = proof.bounds
    assert (total.terms, total.sum) == (k, k * 128 * weight)
    if proof.chunk is None:
        assert chunks == []
        assert total.sum <= FP32_INTEGERS
        return
    (chunk,) = chunks
    assert chunk.terms == proof.chunk == chunk.longest
    assert chunk.sum <= FP32_INTEGERS < (proof.chunk + 1) * 128 * weight
    assert total.sum > FP32_INTEGERS
    assert (total.accumulator, total.capacity) == ("int32", INT32_MAX)
    assert proof.holds == (total.sum <= INT32_MAX)


@pytest.mark.parametrize("dot", ["int8", "rank1"])
@pytest.mark.parametrize(("spec", "unpack", "weight"), FORMS)
def test_integer_dots_are_held_in_int32_whatever_the_weights(
    dot: str, spec: str, unpack: str, weight: int
) -> None:
    (bound,) = proof_of(spec=spec, dot=dot, unpack=unpack).bounds
    assert (bound.what, bound.accumulator, bound.capacity) == ("row", "int32", 2**31 - 1)
    assert bound.sum == LIMITS.k * 128 * weight


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 2**18))
def test_bound_is_reached_by_the_extreme_codes(k: int) -> None:
    (bound,) = proof_of(k=k).bounds
    lowest, highest = FORMATS["int8"].lowest, FORMATS["int8"].highest
    assert lowest is not None
    assert highest is not None
    extremes = [a * b for a in (lowest, highest) for b in (lowest, highest)]
    assert bound.sum == max(abs(k * each) for each in extremes)
    assert bound.holds == all(-(2**31) <= k * each < 2**31 for each in extremes)


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 2**18), st.sampled_from([("value", 1), ("shift", 16), ("ptx", 16)]))
def test_bound_of_nibbles_is_reached_by_their_extremes(k: int, form: tuple[str, int]) -> None:
    unpack, factor = form
    (bound,) = proof_of(spec="w4a8", unpack=unpack, k=k).bounds
    lowest = FORMATS["int4"].lowest
    assert lowest is not None
    assert bound.sum == abs(k * -128 * lowest * factor)


def test_group_bounds_the_sum_whatever_the_limits() -> None:
    assert proof_of(128, k=2**30) == proof_of(128)
    assert proof_of(128, k=2**30, dot="fp16_exact") == proof_of(128, dot="fp16_exact")


@pytest.mark.parametrize("spec", INT8_SPECS)
@pytest.mark.parametrize("operation", ["route", "quantize", "requantize", "combine"])
def test_operations_without_integer_sums_need_no_proof(operation: str, spec: str) -> None:
    assert prove(contract(operation, spec=spec), LIMITS) is None


@pytest.mark.parametrize("dot", ["int8", "fp16_exact", "rank1"])
def test_every_shipped_gemm_is_proved_within_its_limits(dot: str) -> None:
    gemms = [each for each in shipped_contracts() if isinstance(each, GemmContract)]
    assert {each.weights for each in gemms} == {"int8", "int4"}
    for each in gemms:
        spec = SPECS["w4a8"] if each.weights == "int4" else SPEC
        for unpack in spec.designs.down.unpack:
            proof = prove(each, spec.limits, dot=dot, unpack=unpack)
            assert proof is not None
            assert proof.holds, each.name
            assert proof.bounds[-1].terms == (each.group_k or spec.limits.k)


@pytest.mark.parametrize(
    ("group", "block_k", "turns"),
    [
        (512, 128, None),  # a whole group in fp32: nothing is cut
        (1280, 128, 5),  # 10 turns of 128: five are 640, all ten would be 1280
        (2048, 128, 8),  # 8 of 16 turns are 1024
        (1280, 256, 1),  # 5 turns of 256: no other divisor of 5 stays within 1024
        ("channel", 128, 8),
        ("channel", 32, 32),
    ],
)
def test_loop_is_cut_at_turns_that_fp32_holds(
    group: int | str, block_k: int, turns: int | None
) -> None:
    variant = gemm(group=group, k=block_k, dot="fp16_exact")
    assert variant.chunk_turns == turns
    if turns is not None:
        assert turns * block_k <= 1024


def test_int8_dots_are_never_cut() -> None:
    assert gemm(group=2048, k=128).chunk_turns is None
