"""Plans keep only what is legal, serve every shipped model, and refuse with names and reasons."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import generator
from generator.data import folder
from generator.errors import BuildError
from generator.lower.bands import ANY, DISPATCHED_ROWS, Band, bands
from generator.lower.contract import Contract, GemmContract
from generator.lower.cost import Shape, cost
from generator.lower.enumerate import designs
from generator.lower.judge import Question, judged
from generator.lower.layer_contract import layer_contract
from generator.lower.plan import Plan, lower
from generator.lower.program import Program, Selection, program
from generator.lower.prune import reject, reject_recorded
from generator.lower.rank import in_order, simple
from generator.lower.shapes import ShapeSource
from generator.lower.variant import Variant
from generator.packing import padded
from generator.spec.load import load
from generator.spec.model import AcceptMultiples, Model
from tests.lower.conftest import (
    MEASURED,
    SHIPPED,
    SPEC,
    SPECS,
    TARGET,
    TARGETS,
    changed,
    contract,
    layer_plan,
    layer_plans,
    recorded,
)

SOURCES = (ShapeSource(experts=8, n=4096, k=4096, rows=4096),)
EVEN_K = 7680  # a multiple of every group, pair of groups and tile of the shipped specs
LONG_K = EVEN_K * (SPEC.limits.k // EVEN_K + 1)
# What a build decides, printed by a process of its own.
DECISIONS = """
from generator.data import folder
from generator.lower.program import Selection, program
from generator.spec.load import load

built = program(load(folder("specs")), Selection(targets=("portable", "sm_90")))
for plan in built.plans:
    print(*(variant.symbol for variant in plan.kept), plan.bands, plan.rejected_by())
for layer in built.layers:
    print(layer.contract.name, layer.bands)
"""


def tiles_all_rows(cut: Sequence[Band]) -> bool:
    """Each band starts one past the last one's end, the first at 1; the last has no end."""
    ends = [band.high for band in cut]
    return ends[-1] is None and [band.low - 1 for band in cut] == [0, *ends[:-1]]


def sizes(each: Contract, model: Model, rows: int) -> dict[str, int]:
    """What one operation of a model's layer is asked for."""
    hidden, intermediate = padded(model.hidden), padded(model.intermediate)
    n, k = {
        "up": (intermediate, hidden),
        "down": (hidden, intermediate),
        "requantize": (intermediate, intermediate),
    }.get(each.operation, (hidden, hidden))
    return {"rows": rows, "experts": model.experts, "N": n, "K": k}


def accepting(plan: Plan, asked: dict[str, int]) -> list[Variant]:
    return [v for v in plan.kept if all(each.holds(asked) for each in v.requires)]


def models_of() -> dict[str, list[Model]]:
    """The shipped models that use a contract, by its name."""
    found: dict[str, list[Model]] = {}
    for model in SHIPPED.models:
        for each in model.layers:
            for plan in layer_plans(layer_contract(SPECS[each.spec], each)):
                for stage in plan.contracts:
                    found.setdefault(stage.name, []).append(model)
    return found


MODELS_OF = models_of()


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 10).map(lambda power: 2**power), min_size=1))
def test_bands_tile_the_rows_without_gaps(row_tiles: list[int]) -> None:
    cut = bands(row_tiles)
    assert tiles_all_rows(cut)
    assert [band.block_m for band in cut] == sorted(set(row_tiles))
    for band in cut:
        assert all(band.low <= rows <= (band.high or rows) for rows in band.samples)


def test_bands_of_each_plan_tile_the_rows_without_gaps(built: Program) -> None:
    for plan in built.plans:
        assert tiles_all_rows([ranked.band for ranked in plan.bands])


def test_plan_accounts_for_every_design() -> None:
    space = SPEC.designs.down
    plan = lower(SPEC, contract("down", 128), TARGET, SOURCES)
    assert plan.enumerated == prod(len(getattr(space, axis)) for axis in type(space).model_fields)
    assert plan.legal + len(plan.rejections) == plan.enumerated
    assert sum(plan.rejected_by().values()) == len(plan.rejections)


@pytest.mark.parametrize(
    ("operation", "spec", "promise"),
    [
        ("up", "w8a8", "none"),
        ("up", "w4a8", "none"),
        ("down", "w4a8", TARGETS["portable"].accept_multiples),
        ("quantize", "w8a8", TARGETS["portable"].accept_multiples),
    ],
)
def test_designs_judged_together_are_judged_as_each_alone(
    operation: str, spec: str, promise: AcceptMultiples | str
) -> None:
    """What rules of a kind do not ask of designs is told of many at once: of two schedules, of
    nibbles that shift or not, of tails and of offsets, of two row tiles.
    """
    language = SPECS[spec]
    listed = getattr(language.designs, operation)
    few = {"block_n": (32, 128), "block_k": (1, 32, 256), "stages": (2, 6), "warps": (4,)}
    least = 5
    if operation == "quantize":
        few, least = {"block_m": (1, 2), "block_k": (512, 1024, 2048)}, 1
    own = language.designs.model_copy(update={operation: listed.model_copy(update=few)})
    language = language.model_copy(update={"designs": own})
    schedules = {"operands": ("rows_first", "weights_first"), "gates": ("apart", "joined")}
    target = changed(
        TARGET, **schedules, accept_multiples=promise, row_tiles=(16, 128), orders=("blocks",)
    )
    asked = contract(operation, 128, spec=spec)
    together = judged(Question.of(language, asked, target))
    geometry = Question.of(language, asked, target).geometry
    every = designs(getattr(language.designs, operation), target)
    alone = {each: reject(Variant(geometry, each, target, language.limits)) for each in every}
    assert {each.design for each in together.legal} == {e for e, r in alone.items() if r is None}
    assert {each.design: (each.rule, each.what) for each in together.rejections} == {
        each: (found.rule, found.what) for each, found in alone.items() if found
    }
    assert together.enumerated == len(every)
    assert len(together.legal) > 10
    assert len({each.rule.name for each in together.rejections}) >= least


def test_every_kept_variant_is_legal_and_ranked(built: Program) -> None:
    for plan in built.plans:
        assert plan.kept
        assert [reject(variant) for variant in plan.kept] == [None] * len(plan.kept)
        stacks = [reject_recorded(variant, MEASURED) for variant in plan.kept]
        assert stacks == [None] * len(plan.kept)
        kept = {variant.design for variant in plan.kept}
        assert len(kept) == len(plan.kept)
        for ranked in plan.bands:
            assert set(ranked.designs) == kept
            assert len(ranked.designs) == len(kept)
        timed = {bucket.design for table in plan.tuned for bucket in table.buckets}
        assert timed <= {each.name for each in kept}


def test_gemm_of_a_target_of_one_row_tile_keeps_one_design(built: Program) -> None:
    """One that accepts whatever the target promises leaves nothing to a second one."""
    one = [
        plan
        for plan in built.plans
        if len(plan.target.row_tiles) == 1 and isinstance(plan.contract, GemmContract)
    ]
    assert one
    assert {len(plan.kept) for plan in one} == {1}


def reach(variant: Variant) -> tuple[int, int]:
    """The longest row and the most experts that a variant takes."""
    bounds = {each.of: each.bound for each in variant.bounds}
    return bounds.get("K", 0), bounds.get("experts", 0)


def test_row_wise_designs_reach_ever_further_and_the_last_takes_every_layer(
    built: Program,
) -> None:
    """So the first that accepts a call is the tightest; a call of its rows never skips one that was
    kept for its length alone.
    """
    several = set()
    for plan in built.plans:
        if isinstance(plan.contract, GemmContract):
            continue
        own = {variant.design: variant for variant in plan.kept}
        for ranked in plan.bands:
            reaches = [reach(own[design]) for design in ranked.designs]
            assert reaches == sorted(set(reaches)), plan.contract.name
            longest, experts = reaches[-1]
            if plan.contract.operation != "dispatch":  # what it does not take, three kernels do
                assert longest in (0, SPEC.limits.k) and experts in (0, SPEC.limits.experts)
            if len(reaches) > 1:
                several.add(plan.contract.operation)
    assert several == {"count", "route", "dispatch", "quantize", "requantize"}


def test_row_wise_designs_serve_any_rows(built: Program) -> None:
    row_wise = [each for each in built.plans if not isinstance(each.contract, GemmContract)]
    assert row_wise
    for plan in row_wise:
        assert [ranked.band for ranked in plan.bands] == [ANY], plan.contract.name


@pytest.mark.parametrize(
    ("operation", "rows", "reaches"),
    [
        ("quantize", DISPATCHED_ROWS, [SPEC.limits.k]),
        ("quantize", 4096, [1024, SPEC.limits.k]),
        ("requantize", 64, [1024, SPEC.limits.k]),
    ],
)
def test_a_reach_that_no_shape_of_many_rows_needs_is_not_kept(
    operation: str, rows: int, reaches: list[int]
) -> None:
    """The longest takes every layer; rows are held whole where that is worth a module. Few rows are
    dispatched instead of quantized, but requantized all the same.
    """
    asked, portable = contract(operation), TARGETS["portable"]
    source = ShapeSource(experts=8, n=512, k=512, rows=rows)
    plan = lower(SPEC, asked, portable, (source,))
    assert [each.longest_row for each in plan.kept] == reaches
    assert [each.design.row for each in plan.kept] == ["whole", "steps"][-len(reaches) :]


def test_rows_of_fp16_are_held_whole_as_those_of_bf16_are(built: Program) -> None:
    """Though only small models have layers of it."""
    plans = [
        next(
            each
            for each in built.plans
            if each.contract.name == f"requantize_a8_{dtype}_v1" and each.target.name == "portable"
        )
        for dtype in ("fp16", "bf16")
    ]
    lengths = {
        padded(model.intermediate)
        for model in SHIPPED.models
        if any(layer.dtype == "fp16" for layer in model.layers)
    }
    assert lengths
    for k in lengths:
        fp16, bf16 = (next(v for v in plan.kept if v.longest_row >= k).design for plan in plans)
        assert fp16 == bf16
        assert fp16.row == "whole"


def test_rows_that_are_dispatched_do_not_choose_how_others_are_gathered() -> None:
    """But where a spec's layers dispatch nothing, they do."""
    asked, portable = contract("quantize"), TARGETS["portable"]
    few = ShapeSource(experts=128, n=2048, k=1024, rows=8)
    many = ShapeSource(experts=8, n=2048, k=2048, rows=32768)
    both, alone = (lower(SPEC, asked, portable, each) for each in ((few, many), (many,)))
    assert both.kept == alone.kept
    layer = SPEC.layer.model_copy(update={"plans": ("separate", "folded")})
    undispatched = SPEC.model_copy(update={"layer": layer})
    for each in (few, many):
        assert accepting(lower(undispatched, asked, portable, (each,)), each.sizes)


def test_dispatch_reaches_as_far_as_shapes_do() -> None:
    asked, portable = contract("dispatch", plan="dispatched"), TARGETS["portable"]
    short, long = (ShapeSource(experts=8, n=k, k=k, rows=64) for k in (512, 8192))
    for sources, reaches in (((short,), [2048]), ((long,), [8192]), ((short, long), [2048, 8192])):
        plan = lower(SPEC, asked, portable, sources)
        assert [each.longest_row for each in plan.kept] == reaches
    too_long = replace(long, k=SPEC.limits.k)
    assert [e.longest_row for e in lower(SPEC, asked, portable, (too_long,)).kept] == [8192]


def test_default_build_stays_small(built: Program) -> None:
    assert sum(len(plan.kept) for plan in built.plans) < 150


def test_every_model_shape_is_accepted_by_what_is_emitted_for_its_operation(
    built: Program,
) -> None:
    for plan in built.plans:
        for model in MODELS_OF.get(plan.contract.name, ()):
            asked = sizes(plan.contract, model, max(model.tokens) * model.top_k)
            assert accepting(plan, asked), (plan.contract.name, plan.target.name, asked)


@pytest.mark.parametrize(
    ("operation", "past"),
    [
        ("up", {"K": LONG_K}),
        ("up", {"N": SPEC.limits.n // 2 + 128}),
        ("down", {"K": LONG_K}),
        ("down", {"N": SPEC.limits.n + 128}),
        ("down", {"experts": SPEC.limits.experts + 1}),
        ("quantize", {"K": LONG_K}),
        ("dispatch", {"K": LONG_K}),
        ("dispatch", {"experts": SPEC.limits.experts + 1}),
        ("count", {"experts": SPEC.limits.experts + 1}),
        ("combine", {"rows": SPEC.limits.rows + 1}),
        ("route", {"experts": SPEC.limits.experts + 1}),
    ],
)
def test_no_variant_accepts_a_call_past_the_limits_of_its_proof(
    operation: str, past: dict[str, int], built: Program
) -> None:
    within = {"rows": 256, "experts": 8, "N": 256, "K": EVEN_K}
    for plan in built.plans:
        if plan.contract.operation == operation:
            for variant in plan.kept:  # a row that is held whole is as long as its program
                length = EVEN_K if variant.gemm else min(EVEN_K, variant.longest_row)
                assert variant in accepting(plan, within | {"K": length})
            assert accepting(plan, within | past) == []


def test_each_band_ranks_its_own_row_tile_first(built: Program) -> None:
    banded = [plan for plan in built.plans if len(plan.target.row_tiles) > 1]
    assert banded
    for plan in banded:
        own = {variant.design.block_m for variant in plan.kept}
        for ranked in plan.bands:
            if ranked.band.block_m in own:
                assert ranked.designs[0].block_m == ranked.band.block_m


def test_tails_and_wide_offsets_are_emitted_only_where_nothing_simpler_serves(
    built: Program,
) -> None:
    """Each kept trait is needed by a model's shape, or by what the target promises to accept."""
    seen = {"tail": 0, "int64": 0}
    for plan in built.plans:
        promise = plan.target.accept_multiples
        for variant in plan.kept:
            design = variant.design
            if design.tail == "any":
                seen["tail"] += 1
                unit = variant.walk.unit_k
                lengths = [
                    sizes(plan.contract, model, 1)["K"] for model in MODELS_OF[plan.contract.name]
                ]
                lengths += [] if promise == "none" else [promise.k]
                assert any(length % unit for length in lengths), variant.symbol
            if design.offsets == "int64" and not design.specialized:  # theirs cost nothing
                seen["int64"] += 1
                assert promise != "none", variant.symbol
    assert all(seen.values())


def test_design_with_a_tail_stands_beside_a_simpler_one_of_its_row_tile(built: Program) -> None:
    """On targets that promise nothing: shapes without a tail do not pay for it, unless it was timed
    as fast as any at such a shape.
    """
    timed = {
        (plan.contract, bucket.design, table.k)
        for plan in built.plans
        for table in plan.tuned
        for bucket in table.buckets
    }
    tails = [
        (plan, variant)
        for plan in built.plans
        for variant in plan.kept
        if variant.design.tail == "any" and plan.target.accept_multiples == "none"
        if not any(
            (plan.contract, variant.design.name) == (contract, name)
            and k % variant.walk.unit_k == 0
            for contract, name, k in timed
        )
    ]
    assert {plan.contract.name for plan, _ in tails} >= {"down_w4g128_a8_bf16_v1"}
    for plan, variant in tails:
        simpler = [
            each
            for each in plan.kept
            if each.design.block_m == variant.design.block_m and each.design.tail == "none"
        ]
        assert simpler, variant.symbol


@pytest.mark.parametrize(
    ("source", "tail", "offsets"),
    [
        (ShapeSource(8, 4096, 4096, 4096), ["none"], ["int32"]),
        (ShapeSource(8, 4096, 4032, 4096), ["any"], ["int32"]),  # 63 * 64: no turn of 128
        (ShapeSource(8, 4096, 4096, 2**19), ["none"], ["int64"]),  # rows * K is 2**31
        (ShapeSource(8, 4096, 4032, 2**20), ["any"], ["int64"]),
    ],
)
def test_design_is_as_simple_as_its_shape_allows(
    source: ShapeSource, tail: list[str], offsets: list[str]
) -> None:
    target = changed(TARGET, row_tiles=(16,))
    plan = lower(SPEC, contract("down", 128), target, (source,))
    assert [variant.design.tail for variant in plan.kept] == tail
    assert [variant.design.offsets for variant in plan.kept] == offsets


def test_shapes_that_no_one_design_accepts_get_as_few_as_accept_them_all() -> None:
    whole, ragged = SOURCES[0], ShapeSource(8, 4096, 4032, 4096)
    target = changed(TARGET, row_tiles=(16,))
    plan = lower(SPEC, contract("down", 128), target, (whole, ragged))
    assert [variant.design.tail for variant in plan.kept] == ["none", "any"]
    (ranked,) = plan.bands
    assert ranked.designs == tuple(variant.design for variant in plan.kept)


def test_no_tail_goes_before_a_design_without_one_of_its_row_tile(built: Program) -> None:
    """What a plain design refuses, a call finds further down; what it takes, it does faster."""
    seen = False
    for plan in built.plans:
        if not isinstance(plan.contract, GemmContract):
            continue
        for ranked in plan.bands:
            by_tile: dict[int | None, list[int]] = {}
            for design in ranked.designs:
                by_tile.setdefault(design.block_m, []).append(simple(design))
            assert all(own == sorted(own) for own in by_tile.values()), plan.contract.name
            seen |= any(len(set(own)) > 1 for own in by_tile.values())
    assert seen


def test_where_a_bands_own_tile_is_not_kept_the_cheapest_goes_first() -> None:
    """Be it shorter or taller: what a tile multiplies of padding is in the cost."""
    source = SOURCES[0]
    plan = lower(SPEC, contract("down", 128), changed(TARGET, row_tiles=(16, 128)), (source,))
    tiles = set()
    for rows in (17, 100):
        band = Band(rows, rows, 64)
        ranked = in_order(plan.kept, (source,), band)
        costs = [cost(each, source.at(rows)).total_us for each in ranked]
        assert len(costs) > 1 and costs == sorted(costs)
        tiles.add(ranked[0].design.block_m)
    assert tiles == {16, 128}


@pytest.mark.parametrize("name", ["up_w4g320_a8_swiglu_bf16_v1", "up_w4g512_a8_swiglu_bf16_v1"])
def test_gates_of_nibbles_in_groups_of_several_stages_have_warps_with_roles(name: str) -> None:
    [plan] = program(SHIPPED, Selection(contracts=(name,), targets=("sm_90",))).plans
    tallest = max(variant.design.block_m or 0 for variant in plan.kept)
    assert [v.design.specialized for v in plan.kept if v.design.block_m == tallest] == [True]


def test_rows_of_every_model_that_are_gathered_are_held_whole(built: Program) -> None:
    hidden = {
        each.hidden for each in SHIPPED.models if max(each.tokens) * each.top_k > DISPATCHED_ROWS
    }
    assert hidden
    for plan in built.plans:
        if plan.contract.name == "quantize_a8_bf16_gather_v1" and plan.target.name == "portable":
            whole = [v for v in plan.kept if v.design.row == "whole"]
            for k in hidden:
                assert any(each.bound >= k for v in whole for each in v.bounds if each.of == "K"), k
            return
    raise AssertionError("no plan gathers")


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in SPEC.targets])
def test_target_that_is_not_built_by_default_lowers_every_contract(
    name: str, built: Program
) -> None:
    own = program(SHIPPED, Selection(targets=(name,)))
    lowered = {plan.contract.name: plan for plan in own.plans}
    assert set(lowered) <= {plan.contract.name for plan in built.plans}
    gemms = {
        stage.name
        for entry in built.layers
        for stage in layer_plan(entry.contract, "separate").rows
        if stage.operation in TARGETS[name].operations
    }
    assert gemms
    assert gemms <= set(lowered)
    for plan in own.plans:
        assert plan.target.name == name
        assert [reject(variant) for variant in plan.kept] == [None] * len(plan.kept)
        assert {variant.design.dot for variant in plan.kept} == {TARGETS[name].fastest_dot}
        for model in MODELS_OF[plan.contract.name]:
            asked = sizes(plan.contract, model, max(model.tokens) * model.top_k)
            assert accepting(plan, asked), (plan.contract.name, model.name)


def test_target_whose_int8_dot_is_wrong_multiplies_in_fp16() -> None:
    kept = [v for plan in program(SHIPPED, Selection(targets=("ilu",))).plans for v in plan.kept]
    assert {variant.design.dot for variant in kept} == {"fp16_exact"}
    assert all("_fp16" in variant.design.name for variant in kept)
    for variant in kept:
        assert variant.proof is not None
        assert variant.proof.bounds[0].accumulator == "fp32"


LAB_RANK1 = {"int8": "none", "fp16_exact": "none", "rank1": 30000}


def test_target_added_as_a_file_is_lowered_by_its_own_strategy(tmp_path: Path) -> None:
    """The way of the README: copy a target, state what compiles right, build for it."""
    specs = Path(shutil.copytree(folder("specs"), tmp_path / "specs"))
    data = yaml.safe_load((specs / "targets/portable.yaml").read_text(encoding="utf-8"))
    data |= {
        "name": "lab_rank1",
        "backend": "cuda",
        "capability": [7, 5],
        "operations": ["up", "down"],
        "dots": ["rank1"],
        "unpacks": ["none", "value"],
        "accept_multiples": {"n": 64, "k": 64},
        "row_tiles": [16],
    }
    data["cost"]["dot_ops_per_us"] = LAB_RANK1
    (specs / "targets/lab_rank1.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    built = program(load(specs), Selection(targets=("lab_rank1",)))
    assert [target.name for target in built.targets] == ["lab_rank1"]
    kept = [variant for plan in built.plans for variant in plan.kept]
    assert {variant.contract.operation for variant in kept} == {"up", "down"}
    assert {(v.design.dot, v.design.block_m, v.design.block_k) for v in kept} == {("rank1", 16, 1)}
    for variant in kept:
        assert variant.shared_bytes == 0
        assert "_rank1" in variant.symbol
        assert str(variant.proof).endswith(", held in int32")
        for model in MODELS_OF[variant.contract.name]:
            asked = sizes(variant.contract, model, max(model.tokens) * model.top_k)
            assert all(each.holds(asked) for each in variant.requires)


def test_no_strategy_for_a_contract_is_refused_with_the_rule() -> None:
    spec = SPEC.model_copy(
        update={
            "designs": SPEC.designs.model_copy(
                update={"down": SPEC.designs.down.model_copy(update={"dot": ("int8",)})}
            )
        }
    )
    target = changed(TARGET, dots=("fp16_exact",))
    with pytest.raises(BuildError) as caught:
        lower(spec, contract("down", 128), target, SOURCES)
    (line,) = str(caught.value).splitlines()
    assert line == (
        "[build] down_w8g128_a8_bf16_v1 on lab: no legal design:"
        " strategy_on_target rejects 2400 of 2400, such as m16n32k1_w4s1:"
        " dot `int8` is not right on lab; it has fp16_exact"
        " (some back ends compile a dot wrongly or not at all);"
        " widen the design space of the spec, or mend the target's limits"
    )


def test_design_on_record_with_a_stack_makes_way_for_the_next() -> None:
    """Also where it is that of a contract of the same geometry, for both are judged once."""
    target = changed(TARGET, row_tiles=(16,))
    asked = contract("down", 128)
    foretold = lower(SPEC, asked, target, SOURCES)
    [first] = foretold.kept
    plan = lower(SPEC, asked, target, SOURCES, recorded({first: 8}))
    assert first not in plan.kept and plan.kept
    assert (plan.enumerated, plan.legal) == (foretold.enumerated, foretold.legal - 1)
    assert plan.rejections[: len(foretold.rejections)] == foretold.rejections
    [rejection] = plan.rejections[len(foretold.rejections) :]
    assert (rejection.design, rejection.rule.name) == (first.design, "spills")
    assert first.design not in {design for each in plan.bands for design in each.designs}
    alike, other = (
        replace(first, contract=replace(asked, output="fp16", **more))
        for more in ({"rounded": "fp16"}, {"group_k": 64})
    )
    again = lower(SPEC, asked, target, SOURCES, recorded({alike: 8}))
    assert (again.kept, again.legal) == (plan.kept, plan.legal)
    assert lower(SPEC, asked, target, SOURCES, recorded({other: 8})) == foretold


def test_design_on_record_without_a_stack_stays() -> None:
    target = changed(TARGET, row_tiles=(16,))
    foretold = lower(SPEC, contract("down", 128), target, SOURCES)
    [first] = foretold.kept
    assert lower(SPEC, first.contract, target, SOURCES, recorded({first: 0})) == foretold


def test_nothing_but_stacks_is_refused_with_the_largest() -> None:
    space = SPEC.designs.down.model_copy(update={"block_n": (64,), "stages": (2,)})
    spec = SPEC.model_copy(update={"designs": SPEC.designs.model_copy(update={"down": space})})
    target = changed(TARGET, row_tiles=(16,))
    asked = contract("down", 128)
    every = {
        Variant(asked, design, target, spec.limits): 16
        for design in designs(spec.designs.down, target)
    }
    with pytest.raises(BuildError) as caught:
        lower(spec, asked, target, SOURCES, recorded(every))
    assert "no legal design: spills rejects" in str(caught.value)
    stack = f"16 bytes of stack in {asked.name}, compiled for sm_0 by Triton 3.9.0"
    assert stack in str(caught.value)


def test_shapes_that_no_design_accepts_are_refused_by_size() -> None:
    source = ShapeSource(experts=8, n=4100, k=4096, rows=4096)
    with pytest.raises(BuildError) as caught:
        lower(SPEC, contract("down", 128), TARGET, (source,))
    assert str(caught.value) == (
        "[build] down_w8g128_a8_bf16_v1 on lab: no legal design accepts any of the shapes it is"
        " ranked for: N=4100 K=4096; add smaller tiles to the spec"
    )


def test_lowering_twice_gives_equal_programs(built: Program) -> None:
    assert program(SHIPPED, Selection()) == built


def test_kept_designs_do_not_depend_on_hash_order() -> None:
    listed = [
        subprocess.run(
            (sys.executable, "-c", DECISIONS),
            cwd=Path(generator.__file__).parent.parent,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert listed[0] == listed[1]
    assert "up_w8g128_a8_swiglu_bf16_v1" in listed[0]


def test_no_legal_design_names_each_rule_with_an_example() -> None:
    space = SPEC.designs.down.model_copy(
        update={
            "dot": ("int8",),
            "block_m": (16,),
            "block_n": (32,),
            "block_k": (16, 512, 1024),
            "warps": (4,),
            "stages": (2,),
            "tail": ("none",),
            "offsets": ("int32",),
        }
    )
    spec = SPEC.model_copy(update={"designs": SPEC.designs.model_copy(update={"down": space})})
    with pytest.raises(BuildError) as caught:
        lower(spec, contract("down", 128), TARGET, SOURCES)
    assert str(caught.value).splitlines() == [
        "[build] down_w8g128_a8_bf16_v1 on lab: no legal design:"
        " dot_minimum rejects 1 of 3, such as m16n32k16_w4s2:"
        " a dot of K = 16 < 32; use block_k 32 or more (matrix instructions have a least K);"
        " widen the design space of the spec, or mend the target's limits",
        "[build] down_w8g128_a8_bf16_v1 on lab: no legal design:"
        " block_k_exceeds_group rejects 2 of 3, such as m16n32k512_w4s2:"
        " block_k 512 > group 128; at most 128 fits"
        " (a tile that crosses a group would mix two scales, or waste masked lanes);"
        " widen the design space of the spec, or mend the target's limits",
    ]


def test_target_without_room_is_refused_not_left_out() -> None:
    small = TARGETS["sm_90"].model_copy(update={"shared_memory": 1024})
    specs = SHIPPED.model_copy(update={"targets": (small,)})
    with pytest.raises(BuildError, match="on sm_90: no legal design: shared_memory rejects"):
        program(specs, Selection(contracts=("down_w8g128*",)))


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (
            Selection(specs=("w8a8", "w9a9")),
            f"[build] --spec w9a9: no such spec; use one of {', '.join(SPECS)}",
        ),
        (
            Selection(targets=("sm90", "laptop")),
            f"[build] --target sm90: no such target; use one of {', '.join(TARGETS)}\n"
            f"[build] --target laptop: no such target; use one of {', '.join(TARGETS)}",
        ),
        (
            Selection(contracts=("sideways_*",)),
            "[build] --contract sideways_*: matches no contract and no layer;"
            " `python -m generator list --all` names all but layers of two group sizes",
        ),
        (
            Selection(contracts=("combine_*",), targets=("sm_90",)),
            "[build] --contract combine_*: combine is not emitted for sm_90;"
            " add `--target portable`",
        ),
    ],
    ids=["spec", "target", "contract", "operation_not_of_target"],
)
def test_unknown_names_are_refused_with_what_exists(selection: Selection, message: str) -> None:
    with pytest.raises(BuildError) as caught:
        program(SHIPPED, selection)
    assert str(caught.value) == message


def test_selection_by_layer_takes_all_of_its_contracts() -> None:
    asked = Selection(contracts=("layer_w8g192_a8_swiglu_fp16_v1",), targets=("portable",))
    built = program(SHIPPED, asked)
    assert [layer.contract.name for layer in built.layers] == [*asked.contracts]
    wanted = {stage for plan in built.layers[0].plans for stage in plan.contracts}
    assert {plan.contract for plan in built.plans} == wanted


def test_selection_by_contract_takes_it_alone() -> None:
    built = program(SHIPPED, Selection(contracts=("down_w8g192_a8_fp16_v1",)))
    assert [(plan.contract.name, plan.target.name) for plan in built.plans] == [
        ("down_w8g192_a8_fp16_v1", name) for name in SPEC.targets
    ]
    assert built.layers == ()


def test_shape_of_a_source_counts_all_rows() -> None:
    assert SOURCES[0].at(3) == Shape(experts=8, rows_per_expert=3, n=4096, k=4096)
    assert SOURCES[0].at(3).sizes() == {"rows": 24, "experts": 8, "N": 4096, "K": 4096}
    assert SOURCES[0].sizes == {"rows": 4096, "experts": 8, "N": 4096, "K": 4096}
