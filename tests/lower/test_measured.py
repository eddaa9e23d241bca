"""What compilers made of variants: found again by symbol, in a listing and by the rule `spills`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from generator.lower.listing import ListedVariant, listed_lines, listing
from generator.lower.measured import UNMEASURED, Compiled, Measured
from generator.lower.program import Program, Selection, program
from generator.resources import Record
from tests.lower.conftest import SHIPPED, calibrated, figures, gemm, recorded

FIRST, SECOND = gemm(), gemm(m=64)


def test_records_of_several_compilers_stand_beside_each_other() -> None:
    old = Record("sm_90", "3.6.0", {FIRST.symbol: figures(registers=90)})
    new = Record("sm_90", "3.9.0", {FIRST.symbol: figures(), SECOND.symbol: figures()})
    measured = Measured((old, new))
    assert measured.of(FIRST.symbol) == (
        Compiled("sm_90", "3.6.0", figures(registers=90)),
        Compiled("sm_90", "3.9.0", figures()),
    )
    assert measured.of(SECOND.symbol) == (Compiled("sm_90", "3.9.0", figures()),)
    assert measured.of(gemm(m=128).symbol) == UNMEASURED.of(FIRST.symbol) == ()


def test_calibrations_say_what_spills_and_nothing_of_the_rest() -> None:
    """They hold too little for a record of a variant."""
    measured = calibrated({FIRST: 40, SECOND: 0})
    assert measured.of(FIRST.symbol) == ()
    assert measured.spills(FIRST) == (
        f"40 bytes of stack in {FIRST.contract.name}, compiled for sm_1 by Triton 3.6.0;"
        " use other warps or tiles"
    )
    assert measured.spills(SECOND) is None


def test_what_is_faulty_in_one_contract_is_told_of_all_of_its_geometry() -> None:
    """As the designs of all of them are judged by one."""
    contract = FIRST.gemm
    assert contract is not None and contract.output == "bf16"
    twin = replace(FIRST, contract=replace(contract, output="fp16"))
    other = replace(FIRST, contract=replace(contract, group_k=64))
    for measured in (recorded({FIRST: 24}), calibrated({FIRST: 24})):
        told = measured.spills(twin)
        assert told is not None and f" in {contract.name}, " in told
        assert measured.spills(other) is None
    erred = recorded({FIRST: 2}, figure="unset")
    told = erred.miscompiled(twin)
    assert told is not None and f" in {contract.name}, " in told
    assert erred.miscompiled(other) is None and erred.spills(twin) is None


def test_rules_ask_by_what_is_faulty_alone() -> None:
    fine = recorded({SECOND: 0})
    assert fine.faulty.records == Measured((replace(fine.records[0], variants={}),)).records
    for figure in ("stack", "unset"):
        faulty = recorded({FIRST: 2, SECOND: 0}, figure=figure)
        assert list(faulty.faulty.records[0].variants) == [FIRST.symbol]
        assert faulty.faulty.any_faulty(FIRST.contract, FIRST.target.name)
        assert not fine.any_faulty(FIRST.contract, FIRST.target.name)


def test_no_design_is_kept_that_spills_in_a_contract_of_its_geometry(built: Program) -> None:
    every = program(SHIPPED, Selection(everything=True))
    kept = {variant for each in (every, built) for plan in each.plans for variant in plan.kept}
    assert len(kept) > 1000
    assert [each.symbol for each in kept if every.measured.spills(each)] == []


@pytest.mark.parametrize(("record", "calibration", "by"), [(8, 40, "sm_1"), (40, 8, "sm_0")])
def test_the_largest_stack_is_told(record: int, calibration: int, by: str) -> None:
    measured = Measured(
        recorded({FIRST: record}).records, calibrated({FIRST: calibration}).calibrations
    )
    told = measured.spills(FIRST)
    assert told is not None and told.startswith("40 bytes of stack in ")
    assert f", compiled for {by} by " in told


@pytest.fixture(scope="module")
def combine() -> Program:
    """One variant of one contract."""
    return program(SHIPPED, Selection(contracts=("combine_bf16_v1",), targets=("portable",)))


def listed(built: Program, *records: Record) -> tuple[ListedVariant, str]:
    [variant] = listing(replace(built, measured=Measured(records)), kind="variants").variants
    [line] = listed_lines(listing(replace(built, measured=Measured(records)), kind="variants"))
    return variant, line


def test_a_listing_shows_the_most_that_any_compiler_made_a_variant_take(combine: Program) -> None:
    [symbol] = (variant.symbol for plan in combine.plans for variant in plan.kept)
    few = figures(registers=40, stack=0, shared=512)
    much = figures(registers=30, stack=16, shared=2048)
    variant, line = listed(
        combine, Record("sm_80", "3.6.0", {symbol: few}), Record("sm_90", "3.9.0", {symbol: much})
    )
    assert [each.figures for each in variant.compiled] == [few, much]
    assert " 40 registers, 2048 bytes shared, 16 of stack; N % " in line
    _, line = listed(combine, Record("sm_80", "3.6.0", {symbol: few}))
    assert " 40 registers, 512 bytes shared; N % " in line


def test_a_listing_says_what_is_not_on_record(combine: Program) -> None:
    variant, line = listed(combine)
    assert variant.compiled == ()
    assert " not compiled; N % " in line
