"""What `explain` says: it agrees with what a build keeps and with what the runtime chooses."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import product
from math import hypot, prod

import pytest

from generator.data import folder
from generator.emit.outputs import outputs
from generator.emit.sync import write
from generator.errors import BuildError
from generator.lower.choice import (
    NEXT,
    NOT_TUNED,
    UNUSED,
    ChoiceFacts,
    Problem,
    choice,
    problem,
    unused_tile,
)
from generator.lower.enumerate import specialized
from generator.lower.facts import ContractReport, LayerReport, SpecReport
from generator.lower.measured import Compiled
from generator.lower.plan import Plan
from generator.lower.program import Program, Selection, program
from generator.lower.report import explain
from generator.lower.report_text import lines
from generator.resources import Record
from generator.runtime.manifest import Manifest, load
from generator.runtime.problem import Problem as RuntimeProblem
from generator.runtime.select import candidates

from .conftest import SHIPPED, SPECS, TARGETS, figures

DOWN = "down_w8g128_a8_bf16_v1"
UP = "up_w4g512_a8_swiglu_bf16_v1"
FOLDED = "down_w8gn_a8_bf16_requantbf16_v1"
NARROW = "down_w4g320_a8_bf16_v1"  # by narrower designs in its lower bands
CHOSEN_FOR = ("portable", "sm_90", "ilu")
PROBLEMS = [
    Problem(rows, n, k, experts)
    for rows, (n, k), experts in product(
        (1, 97, 384, 600, 1344, 40000, 2**20 + 1),  # 1344: the last of a band with 24 experts
        ((2048, 768), (96, 512), (2048, 704), (4096, 20480), (2048, 2560)),
        (24, 1000),
    )
]


@pytest.fixture(scope="module")
def emitted() -> Program:
    names = (DOWN, UP, FOLDED, NARROW)
    return program(SHIPPED, Selection(contracts=names, targets=CHOSEN_FOR))


@pytest.fixture(scope="module")
def manifest(emitted: Program, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    out = tmp_path_factory.mktemp("emitted")
    write(out, outputs(emitted, folder("templates")))
    return load(out)


def contract(name: str, *targets: str, asked: Problem | None = None) -> ContractReport:
    report = explain(SHIPPED, name, asked, targets)
    assert isinstance(report, ContractReport)
    return report


def spec_of(plan: Plan) -> str:
    return "w4a8" if "_w4" in plan.contract.name else "w8a8"


def runtime_designs(plan: Plan, asked: Problem, manifest: Manifest) -> list[tuple[str, str]]:
    """Every design that the runtime would take, best first, with the start of its reason."""
    there = RuntimeProblem(
        contract=plan.contract.name,
        rows=asked.rows,
        n=asked.n,
        k=asked.k,
        experts=asked.experts,
        targets=(plan.target.name,),
        interpreted=False,
    )
    return [
        (each.entry.design, each.why.partition(" on ")[0]) for each in candidates(there, manifest)
    ]


@pytest.mark.parametrize(
    ("name", "target"),
    [
        (name, target)
        for name, target in product((DOWN, UP, FOLDED, NARROW), CHOSEN_FOR)
        if (name, target) != (FOLDED, "sm_90")  # which takes no plan with it
    ],
)
def test_the_choice_is_the_runtimes(
    name: str, target: str, emitted: Program, manifest: Manifest
) -> None:
    [plan] = (p for p in emitted.plans if (p.contract.name, p.target.name) == (name, target))
    refused, ranks, bands = 0, set(), set()
    for asked in PROBLEMS:
        found = choice(plan, SPECS[spec_of(plan)], asked, {None})
        expected = runtime_designs(plan, asked, manifest)
        if found.design is None:
            assert expected == [], asked
            refused += 1
            continue
        assert expected[0] == (found.design, f"rank {found.rank} of {found.ranked}"), asked
        shown = [each.design for each in found.others if each.rank and each.cost]
        assert [design for design, _ in expected[1:]][: len(shown)] == shown, asked
        ranks.add(found.rank)
        bands.add(found.low)
    assert refused  # some problems have no variant
    assert len(bands) == len(plan.bands)
    assert ranks == ({1} if len(plan.kept) == 1 else ranks)


def test_some_choice_is_not_the_first_of_its_band(emitted: Program) -> None:
    [plan] = (p for p in emitted.plans if (p.contract.name, p.target.name) == (NARROW, "sm_90"))
    found = choice(plan, SPECS["w4a8"], Problem(rows=40000, n=96, k=640, experts=24), {None})
    assert found.rank is not None and found.rank > 1
    refusing = found.others[: found.rank - 1]
    assert [each.rank for each in refusing] == list(range(1, found.rank))
    columns = {variant.design.name: variant.design.block_n for variant in plan.kept}
    for each in refusing:
        assert each.why.startswith(f"refuses: N = 96 is no multiple of {columns[each.design]} (")
    assert all(each.cost is None for each in refusing)


def test_explain_keeps_what_a_build_keeps(built: Program) -> None:
    """Over every contract and target of the default build."""
    for name in dict.fromkeys(plan.contract.name for plan in built.plans):
        facts = {each.target: each for each in contract(name).targets}
        own = {plan.target.name: plan for plan in built.plans if plan.contract.name == name}
        assert {target for target, each in facts.items() if each.kept} == set(own), name
        for target, plan in own.items():
            there = facts[target]
            assert (there.enumerated, there.legal) == (plan.enumerated, plan.legal)
            assert [kept.design for kept in there.kept] == [v.design.name for v in plan.kept]
            assert [list(kept.requires) for kept in there.kept] == [
                [str(each) for each in variant.requires] for variant in plan.kept
            ]
            assert [(b.low, b.high, list(b.designs)) for b in there.bands] == [
                (r.band.low, r.band.high, [design.name for design in r.designs]) for r in plan.bands
            ]
            assert {each.rule: each.rejected for each in there.rejected} == plan.rejected_by()


def test_layers_take_the_plans_that_a_build_ranks(built: Program) -> None:
    for layer in built.layers:
        report = explain(SHIPPED, layer.contract.name)
        assert isinstance(report, LayerReport)
        assert report.values == layer.contract.values()
        assert [(each.name, each.tokens, each.rows) for each in report.plans] == [
            (p.name, tuple(c.name for c in p.tokens), tuple(c.name for c in p.rows))
            for p in layer.plans
        ]
        found = {
            facts.target: [
                (band.low, band.high, [(each.plan, list(each.requires)) for each in band.plans])
                for band in facts.bands
            ]
            for facts in report.targets
        }
        assert found == {
            target: [
                (
                    each.band.low,
                    each.band.high,
                    [(c.plan, [str(r) for r in c.requires]) for c in each.choices],
                )
                for each in bands
            ]
            for target, bands in layer.bands.items()
        }


@pytest.mark.parametrize("name", SPECS)
def test_a_specs_totals_are_those_of_its_build(name: str) -> None:
    report = explain(SHIPPED, name, targets=("sm_90",))
    assert isinstance(report, SpecReport)
    plans = program(SHIPPED, Selection(specs=(name,), targets=("sm_90",))).plans
    [total] = report.targets
    assert (total.target, total.contracts) == ("sm_90", len(plans))
    assert total.enumerated == sum(plan.enumerated for plan in plans)
    assert total.kept == sum(len(plan.kept) for plan in plans)
    rejected = sum(each.rejected for each in total.rejected)
    assert total.enumerated == total.legal + rejected


def test_a_space_is_told_of_the_targets_that_share_it() -> None:
    """Of each operation that one of them has: the axes of the spec, and for GEMMs those of the
    target that a rule or the cost model asks for.
    """
    asked = ("portable", "sm_80", "sm_90")
    report = explain(SHIPPED, "w8a8", targets=asked)
    assert isinstance(report, SpecReport)
    told = {(each.operation, target): each for each in report.spaces for target in each.targets}
    targets = [TARGETS[name] for name in asked]
    having = [(each, target) for target in targets for each in target.operations]
    assert set(told) == {(operation, target.name) for operation, target in having}
    for operation, target in having:
        listed = getattr(SPECS["w8a8"].designs, operation)
        values = {axis: getattr(listed, axis) for axis in type(listed).model_fields}
        if operation in ("up", "down"):
            values |= {"operands": target.operands}
        if operation == "up":
            values |= {"gates": target.gates}
        facts = told[operation, target.name]
        assert dict(facts.axes) == values
        others = specialized(listed, target) if operation in ("up", "down") else ()
        assert facts.designs == prod(len(each) for each in values.values()) + len(others)
    assert told["up", "portable"] is told["up", "sm_80"] is not told["up", "sm_90"]
    text = lines(report)
    for each in report.spaces:
        where = f"{each.operation} on {', '.join(each.targets)}: {each.designs} designs = "
        assert sum(line.startswith(where) for line in text) == 1


def test_every_design_is_legal_or_rejected_by_a_rule_with_its_inequality() -> None:
    [facts] = contract(DOWN, "sm_90").targets
    assert facts.enumerated == facts.legal + sum(each.rejected for each in facts.rejected)
    block = next(each for each in facts.rejected if each.rule == "two_tiles_a_turn")
    assert block.what == (
        "turns of 2 tiles of 128 may leave a whole one behind; use tail none, or block_k 128"
    )
    assert block.why.startswith("a turn of two tiles")


def test_the_proof_of_fp16_chunks_says_where_they_are_cut() -> None:
    [facts] = contract("down_w8gn_a8_bf16_v1", "ilu").targets
    [rule] = (each for each in facts.rejected if each.rule == "strategy_on_target")
    assert rule.what == "dot `int8` is not right on ilu; it has fp16_exact"
    assert facts.proofs[0].proof.startswith("|chunk sum| <= 1024 * 128 * 128 = 16777216 <= 2**24")
    assert facts.proofs[0].cut is not None
    assert facts.proofs[0].cut.startswith("fp32 is rounded to int32 every 1024 K (")
    assert [name for proof in facts.proofs for name in proof.designs] == [
        each.design for each in facts.kept
    ]


def test_a_contract_without_integer_sums_needs_no_proof() -> None:
    report = contract("combine_bf16_v1")
    assert report.targets[0].proofs == ()
    assert "  proof      none is needed: no integers are summed" in lines(report)


def test_contracts_of_two_specs_name_both() -> None:
    assert contract("combine_bf16_v1").specs == tuple(SPECS)


def test_what_no_layer_takes_is_kept_nowhere() -> None:
    name = "up_w4g128_a8_swiglu_fp16_gatebf16_amax_v1"
    by_target = {each.target: each for each in contract(name).targets}
    assert by_target["portable"].kept and not by_target["sm_90"].kept
    assert not any(band.used for band in by_target["sm_90"].bands)
    asked = Problem(rows=97, n=1280, k=512, experts=24)
    [facts] = contract(name, "sm_90", asked=asked).targets
    assert facts.choice is not None and facts.choice.design is None
    assert facts.choice.nothing == UNUSED
    assert {each.why for each in facts.choice.others} == {f"not emitted, {UNUSED}"}


def test_a_row_tile_that_no_layer_uses_is_told_as_such() -> None:
    """On ilu, up of this layer has no design with row tiles of 64, so that down is not emitted with
    them, though they are legal and cheaper.
    """
    asked = Problem(rows=9700, n=2048, k=768, experts=24)
    [facts] = contract("down_w4g128_a8_bf16_v1", "ilu", asked=asked).targets
    assert [(band.block_m, band.used) for band in facts.bands] == [(16, True), (64, False)]
    assert facts.choice is not None and facts.choice.design is not None
    because = f"cheaper here by the model, but not emitted, {unused_tile(64)}"
    assert {each.why for each in facts.choice.others if "m64" in each.design} == {because}
    report = contract("down_w4g128_a8_bf16_v1", "ilu", asked=asked)
    assert any(line.endswith(f"({unused_tile(64)})") for line in lines(report))
    assert not any(f"({UNUSED})" in line for line in lines(report))


def on_record(stack: int) -> tuple[ContractReport, str]:
    """A contract's report where its first design on sm_90 is on record with so much stack, and the
    name of that design.
    """
    [before] = contract(DOWN, "sm_90").targets
    first = before.kept[0].design
    made = Record("sm_90", "3.9.0", {f"{DOWN}_sm_90_{first}": figures(stack=stack)})
    report = explain(SHIPPED.model_copy(update={"resources": (made,)}), DOWN, None, ("sm_90",))
    assert isinstance(report, ContractReport)
    return report, first


def test_a_kept_design_shows_what_was_compiled_beside_what_was_foretold() -> None:
    report, first = on_record(stack=0)
    [facts] = report.targets
    assert [each.design for each in facts.kept if each.compiled] == [first]
    kept = facts.kept[0]
    assert kept.compiled == (Compiled("sm_90", "3.9.0", figures()),)
    text = lines(report)
    at = text.index(
        f"  kept       {first}: {kept.shared_bytes} bytes of shared memory,"
        f" {kept.held_registers} registers of sums + {kept.beside_registers}"
        f" <= {kept.registers} a thread, foretold"
    )
    assert text[at + 2].strip() == (
        "sm_90, Triton 3.9.0: 128 registers, 0 bytes of stack, 16384 of shared memory,"
        " 4096 of code; mma m16n8k32 s32 s8 s8 s32"
    )
    assert sum("Triton 3.9.0" in line for line in text) == 1


def test_a_design_on_record_with_a_stack_is_rejected_and_says_so() -> None:
    report, first = on_record(stack=24)
    [facts] = report.targets
    assert first not in {each.design for each in facts.kept}
    [spills] = (each for each in facts.rejected if each.rule == "spills")
    [before] = contract(DOWN, "sm_90").targets
    known = sum(each.rejected for each in before.rejected if each.rule == "spills")
    assert spills.rejected == known + 1
    # It may stand in an order of programs that the space does not list.
    assert facts.enumerated - facts.legal == before.enumerated - before.legal + 1
    assert f"bytes of stack in {DOWN}, compiled for sm_90 by" in spills.what


def test_row_wise_designs_refuse_longer_rows_or_do_more_work() -> None:
    """A row-wise operation has one band without a row tile; what takes shorter rows is tried
    first.
    """
    asked = Problem(rows=97, n=2048, k=2048, experts=24)
    [facts] = contract("requantize_a8_bf16_v1", "portable", asked=asked).targets
    assert [band.block_m for band in facts.bands] == [None]
    found = facts.choice
    assert found is not None and found.rank is not None and found.rank > 1
    refusals = {each.why for each in found.others if each.rank and each.rank < found.rank}
    assert refusals == {"refuses: K = 2048 exceeds 1024"}
    behind = {each.why for each in found.others if each.rank and each.rank > found.rank}
    assert behind == {"the band ranks by the models' shapes"}


def test_a_spec_says_of_each_gemm_what_its_contract_says() -> None:
    asked = Problem(rows=97, n=2048, k=768, experts=24)
    report = explain(SHIPPED, "w4a8", asked, ("sm_90", "portable"))
    assert isinstance(report, SpecReport)
    chosen = 0
    for total in report.targets:
        for built in total.built:
            if not built.contract.startswith(("up_", "down_")):
                assert built.choice is None and not built.proofs and built.kept
                continue
            [facts] = contract(built.contract, total.target, asked=asked).targets
            assert (built.choice, built.proofs) == (facts.choice, facts.proofs)
            assert built.kept == tuple(each.design for each in facts.kept)
            chosen += bool(built.choice and built.choice.design)
    assert chosen > 4
    assert sum(line.startswith("  kept ") for line in lines(report)) == sum(
        total.contracts for total in report.targets
    )


def chosen(asked: Problem, name: str = DOWN, target: str = "sm_90") -> ChoiceFacts:
    [facts] = contract(name, target, asked=asked).targets
    assert facts.choice is not None
    return facts.choice


@pytest.fixture(scope="module")
def choices(emitted: Program) -> list[ChoiceFacts]:
    """Those of a contract on sm_90 for every problem."""
    [plan] = (p for p in emitted.plans if (p.contract.name, p.target.name) == (DOWN, "sm_90"))
    return [choice(plan, SPECS["w8a8"], asked, {None}) for asked in PROBLEMS]


def test_costs_are_the_terms_that_add_up(choices: list[ChoiceFacts]) -> None:
    costs = [found.cost for found in choices if found.cost]
    assert costs
    for found in costs:
        hidden = hypot(found.memory_us, found.cache_us, found.math_us, found.chain_us)
        total = found.launch_us + hidden + found.serial_us
        assert total == pytest.approx(found.total_us, abs=0.003)
        terms = ("launch", "memory", "cache", "math", "chain", "serial")
        assert found.most == max(terms, key=lambda term: getattr(found, f"{term}_us"))


def test_a_cheaper_design_is_said_to_be_cheaper(choices: list[ChoiceFacts]) -> None:
    said = set()
    for found in choices:
        assert found.tuning == NOT_TUNED
        for each in found.others:
            below = bool(each.cost and found.cost and each.cost.total_us < found.cost.total_us)
            assert each.why.startswith("cheaper here by the model, but ") == below
            said.add(below)
        if found.cost and found.cheapest_us is not None:
            assert (found.cheaper > 0) == (found.cheapest_us < found.cost.total_us)
    assert said == {True, False}


def test_designs_that_are_not_kept_follow_the_kept_ones() -> None:
    found = chosen(Problem(rows=97, n=2560, k=512, experts=24), target="portable")
    assert (found.rank, found.ranked) == (1, 1)
    assert [each.rank for each in found.others] == [None] * NEXT
    costs = [each.cost.total_us for each in found.others if each.cost]
    assert costs == sorted(costs) and len(costs) == NEXT


def test_rows_are_shared_by_experts_that_can_own_one() -> None:
    found = chosen(Problem(rows=5, n=2560, k=512, experts=24))
    assert (found.owners, found.rows_per_expert) == (5, 1)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("w8a8", None),
        ("w4a8", PROBLEMS[0]),
        ("layer_w4g512g320_a8_swiglu_bf16_v1", None),
        (DOWN, PROBLEMS[0]),
    ],
)
def test_reports_are_plain_data_and_text(name: str, asked: Problem | None) -> None:
    report = explain(SHIPPED, name, asked)
    assert json.loads(json.dumps(asdict(report)))["name"] == name
    text = lines(report)
    assert name in text[0]
    assert all(line == line.rstrip() and "\n" not in line for line in text)


def test_explaining_twice_says_the_same() -> None:
    assert explain(SHIPPED, UP, PROBLEMS[3]) == explain(SHIPPED, UP, PROBLEMS[3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "rows=1,n=2,k=3",
            "[build] --problem: lacks experts; write rows=ROWS,n=N,k=K,experts=EXPERTS",
        ),
        (
            "rows=0,n=x,k=3,experts=4",
            "[build] --problem: rows = `0` is no whole number above 0; write rows=1 or more\n"
            "[build] --problem: n = `x` is no whole number above 0; write n=1 or more",
        ),
        (
            "rows=1,rows=2,n=2,k=3,experts=4",
            "[build] --problem: rows stands there twice; write rows=ROWS,n=N,k=K,experts=EXPERTS",
        ),
        (
            "rows=1,m=2,n=2,k=3,experts=4",
            "[build] --problem: `m=2` is none of its facts;"
            " write rows=ROWS,n=N,k=K,experts=EXPERTS",
        ),
        (
            "",
            "[build] --problem: `` is none of its facts; write rows=ROWS,n=N,k=K,experts=EXPERTS",
        ),
    ],
)
def test_a_bad_problem_names_every_defect(text: str, message: str) -> None:
    with pytest.raises(BuildError) as caught:
        problem(text)
    assert str(caught.value) == message


def test_a_problem_is_read_whatever_its_order() -> None:
    assert problem("experts=24, k=512,n=2560,rows=97") == Problem(97, 2560, 512, 24)


@pytest.mark.parametrize(
    ("name", "asked", "targets", "message"),
    [
        (
            "w8a9",
            None,
            (),
            "[build] explain w8a9: names no spec, no contract and no layer (nearest: w8a8);"
            " `python -m generator list --all` names all but layers of two group sizes",
        ),
        (
            "?",
            None,
            (),
            "[build] explain ?: names no spec, no contract and no layer;"
            " `python -m generator list --all` names all but layers of two group sizes",
        ),
        (
            "layer_w8gn_a8_swiglu_bf16_v1",
            PROBLEMS[0],
            (),
            "[build] --problem: layer_w8gn_a8_swiglu_bf16_v1 is a layer, no single operation;"
            " name one of up_w8gn_a8_swiglu_bf16_v1, down_w8gn_a8_bf16_v1,"
            " up_w8gn_a8_swiglu_bf16_amax_v1, down_w8gn_a8_bf16_requantbf16_v1",
        ),
        (
            "route_ids_v1",
            None,
            ("sm_90",),
            "[build] explain route_ids_v1: route is not emitted for sm_90; use --target portable",
        ),
    ],
)
def test_a_bad_question_says_what_to_ask(
    name: str, asked: Problem | None, targets: tuple[str, ...], message: str
) -> None:
    with pytest.raises(BuildError) as caught:
        explain(SHIPPED, name, asked, targets)
    assert str(caught.value) == message


def test_an_unknown_target_names_those_there_are() -> None:
    with pytest.raises(BuildError) as caught:
        explain(SHIPPED, DOWN, None, ("sm90",))
    known = ", ".join(target.name for target in SHIPPED.targets)
    assert str(caught.value) == f"[build] --target sm90: no such target; use one of {known}"


def test_no_legal_design_is_an_error_that_names_the_rules() -> None:
    small = [
        target.model_copy(update={"shared_memory": 1024}) if target.name == "sm_90" else target
        for target in SHIPPED.targets
    ]
    with pytest.raises(BuildError, match=f"{DOWN} on sm_90: no legal design: shared_memory"):
        explain(SHIPPED.model_copy(update={"targets": tuple(small)}), DOWN, None, ("sm_90",))


def test_a_target_without_both_gemms_has_no_layers() -> None:
    half = tuple(
        target.model_copy(update={"operations": ("down",)}) if target.name == "ilu" else target
        for target in SHIPPED.targets
    )
    with pytest.raises(BuildError) as caught:
        explain(
            SHIPPED.model_copy(update={"targets": half}),
            "layer_w8gn_a8_swiglu_bf16_v1",
            None,
            ("ilu",),
        )
    assert str(caught.value) == (
        "[build] layer_w8gn_a8_swiglu_bf16_v1: ilu lacks one of a layer's GEMMs, up and down;"
        " name another target"
    )
