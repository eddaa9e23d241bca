"""Every pruning rule rejects something, says why in numbers, and keeps what follows its advice."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from generator.lower.program import Program
from generator.lower.prune import RULES, reject
from generator.lower.variant import Variant
from generator.spec.model import AcceptMultiples, SharedOperands
from tests.lower.conftest import gemm


@dataclass(frozen=True)
class Case:
    """Two variants on either side of one rule, and what the rule says of the first."""

    rule: str
    rejected: Variant
    text: str
    kept: Variant


CASES = (
    Case(
        "block_k_exceeds_group",
        gemm(group=192, k=256),
        "block_k 256 > group 192; at most 128 fits",
        gemm(group=192, k=128),
    ),
    Case(
        "dot_minimum",
        gemm(group=128, k=16),
        "a dot of K = 16 < 32; use block_k 32 or more",
        gemm(group=128, k=32),
    ),
    Case(
        "accumulator_exact",
        gemm(limits={"k": 131072, "n": 1024}),
        "|group sum| <= 131072 * 128 * 128 = 2147483648 >= 2**31, held in int32;"
        " groups of up to 131071 are exact",
        gemm(limits={"k": 131071, "n": 1024}),
    ),
    Case(
        "strategy_on_target",
        gemm(dots=("fp16_exact", "rank1")),
        "dot `int8` is not right on lab; it has fp16_exact, rank1",
        gemm(dots=("fp16_exact", "int8")),
    ),
    Case(
        "offsets_fit",
        gemm(limits={"k": 32768, "n": 65536}),
        "limits n * k = 2147483648 >= 2**31, the int32 offset within one expert;"
        " lower limits.n to 65535",
        gemm(limits={"k": 32768, "n": 65535}),
    ),
    Case(
        "accept_multiples",
        gemm(n=128, accept_multiples=AcceptMultiples(n=64, k=64)),
        "block_n 128 does not divide 64; use at most 64",
        gemm(n=64, accept_multiples=AcceptMultiples(n=64, k=64)),
    ),
    Case(
        "accept_multiples",
        gemm(k=128, accept_multiples=AcceptMultiples(n=64, k=64)),
        "block_k 128 does not divide 64; use at most 64",
        gemm(k=64, accept_multiples=AcceptMultiples(n=64, k=64)),
    ),
    Case(
        "row_tile",
        gemm(m=16, row_tile=32),
        "block_m 16 is not the row tile 32 of lab; use 32",
        gemm(m=32, row_tile=32),
    ),
    Case(
        "warp_work",
        gemm(m=16, n=32, warps=8),
        "64 outputs a warp < 128; use at most 4 warps",
        gemm(m=16, n=32, warps=4),
    ),
    Case(
        "accumulator_registers",
        gemm(group=128, m=128, warps=4),
        "128 registers of sums + 174 > 255 a thread; 8 warps hold them",
        gemm(group=128, m=128, warps=8),
    ),
    Case(
        "accumulator_registers",
        gemm("up", m=128, shared_operands=SharedOperands(block_m=64, operand_registers=80)),
        "128 registers of results + 130 > 255 a thread; 8 warps hold them",
        gemm("up", m=64, shared_operands=SharedOperands(block_m=64, operand_registers=80)),
    ),
    Case(
        "shared_memory",
        gemm(m=64, n=128, k=128, stages=3),
        "73728 bytes of shared memory > 65536; at most 2 stages fit",
        gemm(m=64, n=128, k=128, stages=2),
    ),
    Case(  # too long to unroll: 128 + 128 in a loop with stages, 64 after it without
        "shared_memory",
        gemm(group=320, m=64, n=128, k=128, warps=8, stages=3),
        "86016 bytes of shared memory > 65536; at most 2 stages fit",
        gemm(group=320, m=64, n=128, k=128, warps=8, stages=2),
    ),
)
# Rules that the shipped specs never break, and why they are there all the same.
SILENT = {
    "accumulator_exact": "limits.k of 16384 bounds a sum by 2**28; longer limits can break it",
    "strategy_on_target": "every shipped target has the one dot strategy that is emitted",
    "offsets_fit": "the shipped limits multiply to 2**30; larger ones can break it",
}

by_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)


def violations(variant: Variant) -> dict[str, str]:
    """What each broken rule says."""
    said = {rule.name: rule.violation(variant) for rule in RULES}
    return {name: what for name, what in said.items() if what is not None}


def test_every_rule_has_a_case() -> None:
    assert list(dict.fromkeys(case.rule for case in CASES)) == [rule.name for rule in RULES]


@by_case
def test_rule_rejects_in_numbers_and_no_other_rule_does(case: Case) -> None:
    assert violations(case.rejected) == {case.rule: case.text}


@by_case
def test_what_follows_the_advice_is_kept(case: Case) -> None:
    assert violations(case.kept) == {}
    assert reject(case.kept) is None


@by_case
def test_rejection_carries_variant_rule_and_text(case: Case) -> None:
    rejection = reject(case.rejected)
    assert rejection is not None
    assert rejection.variant is case.rejected
    assert (rejection.rule.name, rejection.what) == (case.rule, case.text)


def test_first_rule_in_order_gives_the_reason() -> None:
    both = gemm(group=32, k=64, m=16, n=32, warps=8)
    assert list(violations(both)) == ["block_k_exceeds_group", "warp_work"]
    rejection = reject(both)
    assert rejection is not None
    assert rejection.rule.name == "block_k_exceeds_group"


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_rule_works_on_the_shipped_specs_or_is_known_to_be_silent(
    rule: str, built: Program
) -> None:
    rejected = sum(plan.rejected_by().get(rule, 0) for plan in built.plans)
    assert (rejected == 0) == (rule in SILENT), f"{rule} rejects {rejected} shipped variants"


def test_every_rejection_of_the_shipped_specs_states_two_numbers(built: Program) -> None:
    for plan in built.plans:
        for each in plan.rejections:
            numbers = [word for word in each.what.replace(";", "").split() if word.isdigit()]
            assert len(numbers) >= 2, each.what
