"""The rules of resources foretell what compilers made of designs, legal or not, within margins.

`specs/resources/calibration/` holds what was compiled; `benchmarks/calibration.py` says of each
design what is foretold, and prints the tables of docs/calibration.md, which
`pytest tests/lower/test_calibration.py --update-golden` rewrites.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.calibration import Candidates, Sample, main, samples, tables
from generator.errors import BuildError
from generator.lower.candidates import candidates
from generator.lower.measured import alike
from generator.lower.prune import reject_recorded
from generator.resources import Calibration, Taken
from tests.lower.conftest import MEASURED, SHIPPED

PAGE = Path(__file__).parents[2] / "docs" / "calibration.md"
TABLES = re.compile(r"^\|.*^\|[^\n]*\n", re.MULTILINE | re.DOTALL)  # the first to the last row
COMMAND = "pytest tests/lower/test_calibration.py --update-golden"

# Bytes by which a design may take more than is foretold: scales of one stage more in flight.
SHARED_SHORTFALL = 1024
# Designs that fit and that `shared_memory` rejects, of all that fit: results and tiles are foretold
# to stand side by side, and compilers lay the ones over the others where they can.
SHARED_REJECTED = 0.10
# Designs without a stack that `accumulator_registers` rejects, of all without one: fragments are
# counted as if all lived at once, and a quarter of a space lost still leaves hundreds of designs.
REGISTERS_REJECTED = 0.25
# The same of each matrix family, kind of kernel and way to unpack: where the last few bytes decide,
# a fifth of the designs is left at least.
REGISTERS_REJECTED_OF_A_KIND = 0.80
ENOUGH = 20  # designs of a kind, to speak of a share
# Portable modules that spill on AMD and are kept, of all of them there: their reserves are those of
# NVIDIA's mma, and `spills` is the gate.
FOREIGN_KEPT = 0.10
# Where designs that spill with all the registers of a thread are not all foretold: by family, way
# to unpack and version of Triton.
MISSED_AT_THE_LIMIT = {("mma", "shift", "3.9.0")}
# Families of which no design that spills is kept. mma holds rows, weights and sums in registers
# alike, and compilers spill a few of them to run more programs side by side.
FORETOLD = {"wgmma", "mfma"}
# Bytes of stack that a design of another family may be kept with, and designs with one of all that
# are kept: what `spills` and the gates of `compile` are for.
UNFORESEEN_STACK = 128
UNFORESEEN = 0.06


@pytest.fixture(scope="session")
def on_record() -> list[Sample]:
    return samples(SHIPPED)


def compilers(found: Iterable[Sample]) -> dict[str, list[Sample]]:
    """The designs by target and version of Triton."""
    groups: dict[str, list[Sample]] = {}
    for each in found:
        groups.setdefault(each.compiler, []).append(each)
    return groups


def told(found: list[Sample]) -> str:
    """What a failure shows: the tables."""
    return "\n".join(["", *tables(found)])


def test_every_design_of_every_calibration_is_compared(on_record: list[Sample]) -> None:
    recorded = {
        (f"{each.target}, Triton {each.triton}", symbol): taken
        for each in SHIPPED.calibrations
        for symbol, taken in each.by_symbol().items()
    }
    assert {(each.compiler, each.variant.symbol): each.taken for each in on_record} == recorded
    assert len(on_record) == len(recorded) > 3000


def test_contracts_of_one_geometry_have_the_same_candidates() -> None:
    """Which is why each geometry is enumerated once."""
    known = Candidates(SHIPPED)
    portable = known.targets["portable"]
    for name in ("up_w8gn_a8_swiglu_fp16_amax_v1", "down_w8gn_a8_fp16_requantfp16_v1"):
        contract, spec = known.owners[name]
        assert contract != contract.geometry
        own, shared = (
            [each.design for each in candidates(spec, each, portable)]
            for each in (contract, contract.geometry)
        )
        assert own == shared != []


def test_no_design_that_takes_more_shared_memory_than_there_is_is_kept(
    on_record: list[Sample],
) -> None:
    """Than its own target has, which for portable modules is the least of all."""
    past = [each for each in on_record if each.taken.shared > each.variant.target.shared_memory]
    assert past
    assert [each.name for each in past if each.fits_shared] == []


def test_shared_memory_is_foretold_short_by_no_more_than_the_margin(
    on_record: list[Sample],
) -> None:
    short = {each.name: each.taken.shared - each.variant.shared_bytes for each in on_record}
    assert {name: by for name, by in short.items() if by > SHARED_SHORTFALL} == {}


def test_few_designs_that_fit_shared_memory_are_rejected(on_record: list[Sample]) -> None:
    fitting = [each for each in on_record if each.taken.shared <= each.variant.target.shared_memory]
    rejected = [each for each in fitting if not each.fits_shared]
    assert len(rejected) <= SHARED_REJECTED * len(fitting), told(on_record)


def test_designs_that_spill_much_are_foretold_and_of_some_families_all(
    on_record: list[Sample],
) -> None:
    spilled = [each for each in on_record if each.spills and not each.foreign]
    assert len({each.compiler for each in spilled}) == len(SHIPPED.calibrations)
    assert {each.family for each in spilled} > FORETOLD
    unforeseen = [
        each.name
        for each in spilled
        if each.fits_registers and (each.family in FORETOLD or each.taken.stack > UNFORESEEN_STACK)
    ]
    assert unforeseen == [], told(on_record)


def test_designs_that_spill_with_all_the_registers_of_a_thread_are_foretold(
    on_record: list[Sample],
) -> None:
    spilled = [each for each in on_record if each.spills and each.at_limit and not each.foreign]
    assert len({each.compiler for each in spilled}) == len(SHIPPED.calibrations)
    missed = [each for each in spilled if each.fits_registers]
    found = {(each.family, each.unpack, each.triton) for each in missed}
    assert found <= MISSED_AT_THE_LIMIT, told(on_record)


def test_few_designs_that_are_kept_spill(on_record: list[Sample]) -> None:
    for compiler, own in compilers(on_record).items():
        kept = [each for each in own if each.fits_registers and each.fits_shared]
        share = sum(each.spills for each in kept) / len(kept)
        assert share <= UNFORESEEN, f"{compiler}: {share:.1%}{told(on_record)}"


def test_only_portable_modules_on_amd_compile_to_a_family_that_their_target_does_not_name(
    on_record: list[Sample],
) -> None:
    foreign = [each for each in on_record if each.foreign]
    assert {(each.variant.target.name, each.family) for each in foreign} == {
        ("portable", "mma as mfma")
    }
    kept = [each for each in foreign if each.spills and each.fits_registers]
    assert len(kept) <= FOREIGN_KEPT * len(foreign), told(on_record)


def test_no_design_on_record_with_a_stack_is_kept_by_all_rules(
    on_record: list[Sample],
) -> None:
    """Those that spill below the limit are rejected by their record alone."""
    spilled = [each for each in on_record if each.spills]
    assert [each.name for each in spilled if not reject_recorded(each.variant, MEASURED)] == []
    unforeseen = [each for each in spilled if each.fits_registers]
    assert any(not each.at_limit for each in unforeseen)


def test_no_design_on_record_without_a_stack_is_rejected_by_its_record(
    on_record: list[Sample],
) -> None:
    """By no compiler's record of any contract of its geometry, nor by that of another design."""
    stacks = {each.variant.symbol for each in on_record if each.spills}
    stacks |= {
        symbol
        for record in SHIPPED.resources
        for symbol, figures in record.variants.items()
        if figures.stack
    }
    variants = {each.variant.symbol: each.variant for each in on_record}
    said = {symbol for symbol, each in variants.items() if reject_recorded(each, MEASURED)}
    assert said == {
        symbol
        for symbol, each in variants.items()
        if not stacks.isdisjoint(
            f"{name}_{each.target.name}_{each.design.name}" for name in alike(each.contract)
        )
    }


def test_few_designs_without_a_stack_are_rejected_for_registers(on_record: list[Sample]) -> None:
    fine = [each for each in on_record if not each.spills]
    kinds: dict[str, list[Sample]] = {}
    for each in fine:
        kinds.setdefault(f"{each.family} {each.kind} {each.unpack}", []).append(each)
    shares = {name: (own, REGISTERS_REJECTED) for name, own in compilers(fine).items()}
    shares |= {
        name: (own, REGISTERS_REJECTED_OF_A_KIND)
        for name, own in kinds.items()
        if len(own) >= ENOUGH
    }
    for name, (own, most) in shares.items():
        share = sum(not each.fits_registers for each in own) / len(own)
        assert share <= most, f"{name}: {share:.1%}{told(on_record)}"


@pytest.mark.parametrize(
    ("contract", "name"),
    [
        ("down_w8g128_a8_bf16_v1", "sm_90/m16n32k1024_w4s2"),
        ("down_w8g128_a8_bf16_v1", "sm_91/m16n32k128_w4s2"),
        ("down_w8g129_a8_bf16_v1", "sm_90/m16n32k128_w4s2"),
    ],
    ids=["design", "target", "contract"],
)
def test_a_design_on_record_that_is_no_candidate_any_more_asks_for_calibration(
    contract: str, name: str
) -> None:
    gone = Calibration("sm_90", "3.6.0", {contract: {name: Taken(96, 0, 4096)}})
    with pytest.raises(BuildError) as caught:
        samples(SHIPPED.model_copy(update={"calibrations": (gone,)}))
    assert str(caught.value) == (
        "[build] specs/resources/calibration: 1 designs on record are no candidates any more,"
        f" such as {contract} {name} of sm_90-triton3.6.0.json;"
        " calibrate again, as CONTRIBUTING.md says of a kernel's resources"
    )


def test_a_design_that_spills_at_the_limit_and_below_it_is_told_apart(
    on_record: list[Sample],
) -> None:
    first = next(each for each in on_record if each.need.limit == 255)
    for registers, at_limit in ((252, False), (253, True), (255, True)):
        taken = Taken(registers, 8, 4096)
        assert replace(first, taken=taken).at_limit == at_limit


def test_the_page_shows_what_the_program_prints(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    main([])
    printed = capsys.readouterr().out
    page = PAGE.read_text(encoding="utf-8")
    expected = TABLES.sub(lambda _: printed, page, count=1)
    if request.config.getoption("--update-golden"):
        PAGE.write_text(expected, encoding="utf-8")
    elif page != expected:
        change = difflib.unified_diff(
            page.splitlines(), expected.splitlines(), PAGE.name, "printed", lineterm=""
        )
        pytest.fail("\n".join([*change, "", f"if this is meant: {COMMAND}"]), pytrace=False)
