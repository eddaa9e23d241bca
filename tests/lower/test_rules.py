"""Every pruning rule rejects something, says why in numbers, and keeps what follows its advice."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest

from generator.lower.design import Design
from generator.lower.measured import UNMEASURED, Measured
from generator.lower.program import Program
from generator.lower.prune import (
    DESIGN_RULES,
    RECORD_RULES,
    RULES,
    VARIANT_RULES,
    reject,
    reject_design,
    reject_recorded,
    reject_variant,
)
from generator.lower.rule import Rejection
from generator.lower.variant import Variant
from generator.spec.model import AcceptMultiples
from tests.lower.conftest import (
    LIMITS,
    MFMA,
    TARGET,
    WGMMA,
    calibrated,
    contract,
    gemm,
    recorded,
)

ANY_LAYER = AcceptMultiples(n=64, k=64)
AMD = {
    "warp_size": 64,
    "registers": 512,
    "matrix": MFMA,
    "cost": TARGET.cost.model_copy(update={"register_file": 131072}),
}
# Long steps of fp16 dots on a target of resources for them.
CHUNKS = {"dot": "fp16_exact", "dots": ("fp16_exact",), "shared_memory": 2**20, "registers": 512}


@dataclass(frozen=True)
class Case:
    """Two variants on either side of one rule, and what the rule says of the first."""

    rule: str
    rejected: Variant
    text: str
    kept: Variant
    measured: Measured = UNMEASURED


def nibbles(group: int | str, k: int, **changes: Any) -> Variant:
    """A variant of int4 weights."""
    return gemm(group=group, k=k, spec="w4a8", **changes)


def quantize(row: str, k: int) -> Variant:
    return Variant(
        contract("quantize"), Design(4, 1, block_m=1, block_k=k, row=row), TARGET, LIMITS
    )


CASES = (
    Case(
        "strategy_on_target",
        gemm(dots=("fp16_exact", "rank1")),
        "dot `int8` is not right on lab; it has fp16_exact, rank1",
        gemm(dots=("fp16_exact", "int8")),
    ),
    Case(
        "slower_strategy",
        gemm(dot="fp16_exact", dots=("int8", "fp16_exact", "rank1")),
        "dot `fp16_exact` does 750000 operations a microsecond < 1500000; use int8",
        gemm(dot="int8", dots=("int8", "fp16_exact", "rank1")),
    ),
    Case(
        "slower_strategy",
        gemm(dot="rank1", k=1, dots=("rank1", "fp16_exact")),
        "dot `rank1` does 30000 operations a microsecond < 750000; use fp16_exact",
        gemm(dot="rank1", k=1, dots=("rank1",)),
    ),
    Case(
        "unpack_on_target",
        nibbles("channel", 64, unpack="ptx", unpacks=("none", "value", "shift")),
        "unpack `ptx` does not compile for lab; it has value, shift",
        nibbles("channel", 64, unpack="shift", unpacks=("none", "value", "shift")),
    ),
    Case(
        "row_tile",
        gemm(m=16, row_tiles=(32,)),
        "block_m 16 is no row tile of lab (32); use 32",
        gemm(m=32, row_tiles=(32,)),
    ),
    Case(
        "row_tile",
        gemm(m=32, row_tiles=(16, 64, 128)),
        "block_m 32 is no row tile of lab (16, 64, 128); use 16",
        gemm(m=16, row_tiles=(16, 64, 128)),
    ),
    Case(
        "outer_products",
        gemm(k=1, dot="rank1", dots=("rank1",), operands="weights_first"),
        "an outer product of weights and rows is that of rows and weights; use rows_first",
        gemm(k=1, dot="rank1", dots=("rank1",), operands="rows_first"),
    ),
    Case(
        "short_steps",
        quantize(row="steps", k=2048),
        "steps of 2048 > 1024; use block_k 1024",
        quantize(row="steps", k=1024),
    ),
    Case(
        "short_steps",
        quantize(row="steps", k=2048),
        "steps of 2048 > 1024; use block_k 1024",
        quantize(row="whole", k=2048),
    ),
    Case(
        "joined_gates",
        gemm("up", gates="joined"),
        "gate and up rows are one operand where weights come first; use weights_first or apart",
        gemm("up", gates="joined", operands="weights_first"),
    ),
    Case(
        "joined_gates",
        gemm("up", gates="joined"),
        "gate and up rows are one operand where weights come first; use weights_first or apart",
        gemm("up", gates="apart"),
    ),
    Case(
        "specialized_walk",
        gemm("down", group=192, k=128, operands="weights_first", roles="specialized"),
        "stages of 128 bytes of a row; the longest that divide runs of 192 are of 64;"
        " use block_k 64",
        gemm("down", group=192, k=64, operands="weights_first", roles="specialized"),
    ),
    Case(
        "specialized_walk",
        gemm("down", 128, m=64, k=128, stages=1, operands="weights_first", roles="pingpong"),
        "sums of 128 weight rows by 64 rows leave four warps no room for sums of a group;"
        " use roles specialized",
        gemm("down", m=64, k=128, stages=1, operands="weights_first", roles="pingpong"),
    ),
    Case(
        "dot_minimum",
        gemm(group=128, k=16),
        "a dot of K = 16 < 32; use block_k 32 or more",
        gemm(group=128, k=32),
    ),
    Case(
        "dot_minimum",
        gemm(group=128, k=8, dot="fp16_exact", dots=("fp16_exact",)),
        "a dot of K = 8 < 16; use block_k 16 or more",
        gemm(group=128, k=16, dot="fp16_exact", dots=("fp16_exact",)),
    ),
    Case(
        "dot_minimum",
        gemm(k=32, dot="rank1", dots=("rank1",)),
        "outer products of 32 K > 1; use block_k 1",
        gemm(k=1, dot="rank1", dots=("rank1",)),
    ),
    Case(
        "block_k_exceeds_group",
        gemm(group=192, k=256),
        "block_k 256 > group 192; at most 128 fits",
        gemm(group=192, k=128),
    ),
    Case(  # a block of two groups of 64: each plane is one of them
        "block_k_exceeds_group",
        nibbles(64, 256),
        "block_k 256 > plane 64 of a block; at most 64 fits",
        nibbles(64, 128),
    ),
    Case(  # the whole row is one group, and a block of it 256
        "block_k_exceeds_group",
        nibbles("channel", 512),
        "block_k 512 > plane 128 of a block; at most 128 fits",
        nibbles("channel", 256),
    ),
    Case(  # half of 320 is no power of two
        "block_k_exceeds_group",
        nibbles(320, 256),
        "block_k 256 > plane 160 of a block; at most 128 fits",
        nibbles(320, 128),
    ),
    Case(
        "accumulator_exact",
        gemm(limits={"k": 131072, "n": 1024}),
        "|row sum| <= 131072 * 128 * 128 = 2147483648 >= 2**31, held in int32;"
        " up to 131071 K are exact",
        gemm(limits={"k": 131071, "n": 1024}),
    ),
    Case(  # chunks are exact, their total is not
        "accumulator_exact",
        gemm(dot="fp16_exact", dots=("fp16_exact",), limits={"k": 131072, "n": 1024}),
        "|chunk sum| <= 1024 * 128 * 128 = 16777216 <= 2**24, held in fp32;"
        " |row sum| <= 131072 * 128 * 128 = 2147483648 >= 2**31, held in int32;"
        " up to 131071 K are exact",
        gemm(dot="fp16_exact", dots=("fp16_exact",), limits={"k": 131071, "n": 1024}),
    ),
    Case(
        "accumulator_exact",
        gemm(k=2048, **CHUNKS),
        "a step of 2048 K > 1024, what fp32 sums exactly; use a shorter block_k",
        gemm(k=1024, **CHUNKS),
    ),
    Case(  # the same within a group
        "accumulator_exact",
        gemm(group=4096, k=2048, **CHUNKS),
        "a step of 2048 K > 1024, what fp32 sums exactly; use a shorter block_k",
        gemm(group=4096, k=1024, **CHUNKS),
    ),
    Case(
        "tail_cannot_occur",
        gemm(k=64, tail="any"),
        "turns of 64 K divide every K, a multiple of 64; use tail none",
        gemm(k=64, tail="none"),
    ),
    Case(  # two groups of 32 make one turn
        "tail_cannot_occur",
        nibbles(32, 32, tail="any"),
        "turns of 64 K divide every K, a multiple of 64; use tail none",
        nibbles(64, 32, tail="any"),
    ),
    Case(  # a turn of two groups
        "two_tiles_a_turn",
        gemm(group=128, k=256, tail="any"),
        "turns of 2 tiles of 128 may leave a whole one behind; use tail none, or block_k 128",
        gemm(group=128, k=256),
    ),
    Case(
        "two_tiles_a_turn",
        gemm(group=128, k=256, dot="fp16_exact", dots=("fp16_exact",)),
        "turns of 2 tiles of 128 are for warps that are alike and int8 dots of codes;"
        " use block_k 128",
        gemm(group=128, k=128, dot="fp16_exact", dots=("fp16_exact",)),
    ),
    Case(  # two blocks make a group, and one after the other is two tiles already
        "two_tiles_a_turn",
        nibbles(512, 256),
        "turns of 2 tiles of 128, of which a group has 2 anyway; use block_k 128",
        nibbles(512, 128),
    ),
    Case(  # 320 at 128 is 128 + 128 + 64
        "one_stage_of_two_lengths",
        gemm(group=320, m=64, n=64, k=128, stages=1, operands="weights_first", matrix=WGMMA),
        "one stage of tiles of 128 and 64 K; use 2 stages, or block_k 64",
        gemm(group=320, m=64, n=64, k=64, stages=1, operands="weights_first", matrix=WGMMA),
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
        gemm(n=128, offsets="int64", accept_multiples=ANY_LAYER),
        "block_n 128 does not divide 64; use at most 64",
        gemm(n=64, offsets="int64", accept_multiples=ANY_LAYER),
    ),
    Case(
        "accept_multiples",
        gemm(n=128, offsets="int64", accept_multiples=AcceptMultiples(n=192, k=64)),
        "block_n 128 does not divide 192; use at most 64",
        gemm(n=64, offsets="int64", accept_multiples=AcceptMultiples(n=192, k=64)),
    ),
    Case(
        "accept_multiples",
        gemm(k=128, offsets="int64", accept_multiples=ANY_LAYER),
        "turns of 128 K do not divide 64; use tail any",
        gemm(k=128, offsets="int64", tail="any", accept_multiples=ANY_LAYER),
    ),
    Case(
        "accept_multiples",
        gemm(accept_multiples=ANY_LAYER),
        "limits rows * n or k = 68719476736 >= 2**31, the int32 offset of a row; use int64",
        gemm(offsets="int64", accept_multiples=ANY_LAYER),
    ),
    Case(
        "warp_work",
        gemm(m=16, n=32, warps=8),
        "64 outputs a warp < 128; use at most 4 warps",
        gemm(m=16, n=32, warps=4),
    ),
    Case(  # a joined dot has the rows of gate and of up
        "warp_work",
        gemm("up", n=16, warps=8, operands="weights_first", gates="joined"),
        "64 outputs a warp < 128; use at most 4 warps",
        gemm("up", n=32, warps=8, operands="weights_first", gates="joined"),
    ),
    Case(
        "accumulator_registers",
        gemm(group=128, m=128, warps=4),
        "128 registers of sums + 168 > 255 a thread; 8 warps hold them",
        gemm(group=128, m=128, warps=8),
    ),
    Case(  # wgmma leaves the operands in shared memory
        "accumulator_registers",
        gemm(m=128, n=128, stages=1),
        "128 registers of sums + 164 > 255 a thread; 8 warps hold them",
        gemm(m=128, n=128, stages=1, matrix=WGMMA),
    ),
    Case(  # a pair of groups is summed apart: two sums and an fp32 accumulator
        "accumulator_registers",
        nibbles(64, 64, m=128),
        "192 registers of sums + 140 > 255 a thread; 8 warps hold them",
        nibbles(64, 64, m=128, warps=8),
    ),
    Case(  # so many threads share the registers of a processor that each has few
        "accumulator_registers",
        gemm(m=64, warps=16),
        "8 registers of sums + 150 > 128 a thread; 8 warps hold them",
        gemm(m=64, warps=8),
    ),
    Case(  # the same on AMD, whose threads may take twice as many
        "accumulator_registers",
        gemm(group=128, m=128, warps=8, **AMD),
        "32 registers of sums + 235 > 256 a thread; 4 warps hold them",
        gemm(group=128, m=128, warps=4, **AMD),
    ),
    Case(  # 16 warps or more would share fewer registers than the epilogue takes
        "accumulator_registers",
        nibbles(64, 64, m=128, n=128, warps=8, unpack="value", stages=1, shared_memory=2**20),
        "192 registers of sums + 92 > 255 a thread; use smaller tiles",
        nibbles(64, 64, m=128, n=64, warps=8, unpack="value", stages=1, shared_memory=2**20),
    ),
    Case(  # rows that are quantized on their way: a call leaves 168 registers
        "accumulator_registers",
        gemm(plan="folded", m=32, k=128),
        "16 registers of sums + 160 > 168 a thread; 8 warps hold them",
        gemm(plan="folded", m=32, k=128, warps=8),
    ),
    Case(
        "shared_memory",
        gemm(m=64, n=128, k=128, stages=3),
        "66560 bytes of shared memory > 65536; at most 2 stages fit",
        gemm(m=64, n=128, k=128, stages=2),
    ),
    Case(  # wgmma reads every stage from there
        "shared_memory",
        gemm(m=64, n=128, k=128, stages=2, matrix=WGMMA),
        "66560 bytes of shared memory > 65536; at most 1 stages fit",
        gemm(m=64, n=128, k=128, stages=1, matrix=WGMMA),
    ),
    Case(  # too long to unroll: 128 + 128 in a loop with stages, 64 after it without
        "shared_memory",
        gemm(group=320, m=64, k=128, warps=8, stages=4),
        "66944 bytes of shared memory > 65536; at most 3 stages fit",
        gemm(group=320, m=64, k=128, warps=8, stages=3),
    ),
    Case(
        "shared_memory",
        gemm(m=128, n=128, k=256, warps=8, stages=3),
        "164864 bytes of shared memory > 65536; one stage takes 99328: use smaller tiles",
        gemm(m=64, n=64, k=256, warps=8, stages=2),
    ),
    Case(
        "spills",
        gemm(m=64),
        "24 bytes of stack in down_w8gn_a8_bf16_v1, compiled for sm_0 by Triton 3.9.0;"
        " use other warps or tiles",
        gemm(m=64, warps=8),
        measured=recorded({gemm(m=64): 24, gemm(m=64, warps=8): 0}),
    ),
    Case(  # a calibration counts as much as a record, and the largest stack is told
        "spills",
        gemm(m=64),
        "32 bytes of stack in down_w8gn_a8_bf16_v1, compiled for sm_1 by Triton 3.6.0;"
        " use other warps or tiles",
        gemm(m=64, warps=8),
        measured=Measured(
            recorded({gemm(m=64): 24}).records,
            calibrated({gemm(m=64): 32, gemm(m=64, warps=8): 0}).calibrations,
        ),
    ),
    Case(
        "miscompiled",
        gemm(m=64),
        "2 registers read and never set in down_w8gn_a8_bf16_v1, compiled for sm_0 by"
        " Triton 3.9.0; use other stages or tiles",
        gemm(m=64, warps=8),
        measured=recorded({gemm(m=64): 2, gemm(m=64, warps=8): 0}, figure="unset"),
    ),
)
# Rules that the shipped specs never break on the targets built by default, and why they are there.
SILENT = {
    "accumulator_exact": "limits.k of 16384 bounds a sum by 2**28; longer limits can break it",
    "strategy_on_target": "every default target has every strategy; ilu lacks all but fp16",
    "outer_products": "a target with other dots has faster ones, whose rule speaks first",
    "miscompiled": "what is known is rejected by one_stage_of_two_lengths already",
    "offsets_fit": "the shipped limits multiply to 2**30; larger ones can break it",
}
# Rules that compare words, and name the legal ones instead of numbers.
OF_WORDS = {"strategy_on_target", "unpack_on_target", "outer_products", "joined_gates"}

by_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)


def violations(variant: Variant, measured: Measured = UNMEASURED) -> dict[str, str]:
    """What each broken rule says."""
    said = {rule.name: rule.violation(variant, measured) for rule in RULES}
    return {name: what for name, what in said.items() if what is not None}


def rejected(variant: Variant, measured: Measured) -> Rejection | None:
    """As lowering judges: what foretells first, then what is on record."""
    return reject(variant) or reject_recorded(variant, measured)


def test_every_rule_has_a_case() -> None:
    assert list(dict.fromkeys(case.rule for case in CASES)) == [rule.name for rule in RULES]


@by_case
def test_rule_rejects_in_numbers_and_no_other_rule_does(case: Case) -> None:
    assert violations(case.rejected, case.measured) == {case.rule: case.text}


@by_case
def test_what_follows_the_advice_is_kept(case: Case) -> None:
    assert violations(case.kept, case.measured) == {}
    assert rejected(case.kept, case.measured) is None


@by_case
def test_rejection_carries_design_rule_and_text(case: Case) -> None:
    rejection = rejected(case.rejected, case.measured)
    assert rejection is not None
    assert rejection.design is case.rejected.design
    assert (rejection.rule.name, rejection.what) == (case.rule, case.text)


@by_case
def test_rules_of_designs_variants_and_records_together_say_what_all_do(case: Case) -> None:
    found = (
        reject_design(case.rejected.design, case.rejected.target),
        reject_variant(case.rejected),
        reject_recorded(case.rejected, case.measured),
    )
    [rejection] = filter(None, found)
    whole = rejected(case.rejected, case.measured)
    assert whole is not None and rejection == whole and rejection.what == whole.what
    kinds = (DESIGN_RULES, VARIANT_RULES, RECORD_RULES)
    assert rejection.rule in kinds[found.index(rejection)]


def test_rules_of_designs_stand_before_those_of_variants_and_records_last() -> None:
    """Else the first reason in the order of RULES would not be the one that is told."""
    assert RULES == DESIGN_RULES + VARIANT_RULES + RECORD_RULES
    for rule in RULES:
        ways = (rule.of_design, rule.of_variant, rule.of_record)
        assert sum(way is not None for way in ways) == 1, rule.name


def test_nothing_spills_that_is_not_on_record() -> None:
    rule = next(rule for rule in RULES if rule.name == "spills")
    assert rule.violation(gemm(m=64)) is None
    assert reject_recorded(gemm(m=64), UNMEASURED) is None


def test_first_rule_in_order_gives_the_reason() -> None:
    both = gemm(group=32, k=128, m=16, n=32, warps=8)
    assert list(violations(both)) == ["block_k_exceeds_group", "warp_work"]
    rejection = reject(both)
    assert rejection is not None
    assert rejection.rule.name == "block_k_exceeds_group"


def test_strategies_of_equal_speed_are_all_kept() -> None:
    rates = TARGET.cost.dot_ops_per_us.model_copy(update={"fp16_exact": 1500000})
    cost = TARGET.cost.model_copy(update={"dot_ops_per_us": rates})
    dots = ("int8", "fp16_exact", "rank1")
    assert violations(gemm(dot="int8", dots=dots, cost=cost)) == {}
    assert violations(gemm(dot="fp16_exact", dots=dots, cost=cost)) == {}


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_rule_works_on_the_shipped_specs_or_is_known_to_be_silent(
    rule: str, built: Program
) -> None:
    rejected = sum(plan.rejected_by().get(rule, 0) for plan in built.plans)
    assert (rejected == 0) == (rule in SILENT), f"{rule} rejects {rejected} shipped variants"


def test_every_rejection_of_the_shipped_specs_states_two_numbers(built: Program) -> None:
    reasons = {(each.rule.name, each.what) for plan in built.plans for each in plan.rejections}
    assert reasons
    for rule, what in reasons:
        numbers = re.findall(r"\b\d+\b", what)
        assert len(numbers) >= 2 or rule in OF_WORDS, what
