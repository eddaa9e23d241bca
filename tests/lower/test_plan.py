"""Plans keep only what is legal, serve every shipped model, and refuse with names and reasons."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import product
from math import prod
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import generator
from generator.errors import BuildError
from generator.lower.bands import Band, bands
from generator.lower.contract import Contract, GemmContract, layer_contract
from generator.lower.cost import Shape
from generator.lower.plan import Plan, ShapeSource, lower
from generator.lower.program import Program, Selection, program
from generator.lower.prune import reject
from generator.lower.variant import Design, Variant
from generator.spec.model import Model
from tests.lower.conftest import (
    SHIPPED,
    SPEC,
    SPECS,
    TARGET,
    TARGETS,
    contract,
    layer_plans,
)

SOURCES = (ShapeSource(experts=8, n=4096, k=4096),)
EVEN_K = 3840  # a multiple of every group and tile that the models use
LONG_K = EVEN_K * (SPEC.limits.k // EVEN_K + 1)
LIST = (sys.executable, "-m", "generator", "list", "--target", "sm_90", "--contract", "*g128*")


def tiles_all_rows(cut: Sequence[Band]) -> bool:
    """Each band starts one past the last one's end, the first at 1; the last has no end."""
    ends = [band.high for band in cut]
    return ends[-1] is None and [band.low - 1 for band in cut] == [0, *ends[:-1]]


def sizes(each: Contract, model: Model, rows: int) -> dict[str, int]:
    """What one operation of a model's layer is asked for."""
    hidden, intermediate = model.hidden, model.intermediate
    n, k = {
        "up": (intermediate, hidden),
        "down": (hidden, intermediate),
        "requantize": (intermediate, intermediate),
    }.get(each.operation, (hidden, hidden))
    return {"rows": rows, "experts": model.experts, "N": n, "K": k}


def accepting(plan: Plan, asked: dict[str, int]) -> list[Variant]:
    return [v for v in plan.kept if all(each.holds(asked) for each in v.requires)]


def plans_by_name(built: Program) -> dict[tuple[str, str], Plan]:
    return {(plan.contract.name, plan.target.name): plan for plan in built.plans}


def model_stages() -> list[tuple[Model, Contract]]:
    """Every operation of every layer of every shipped model."""
    return [
        (model, stage)
        for model in SHIPPED.models
        for each in model.layers
        for plan in layer_plans(layer_contract(SPECS[each.spec], each))
        for stage in plan.contracts
    ]


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


def test_every_kept_variant_is_legal_and_ranked(built: Program) -> None:
    for plan in built.plans:
        assert plan.kept
        assert [reject(variant) for variant in plan.kept] == [None] * len(plan.kept)
        kept = {variant.design for variant in plan.kept}
        assert len(kept) == len(plan.kept)
        for ranked in plan.bands:
            assert set(ranked.designs) == kept
            assert len(ranked.designs) == len(kept)


def test_target_that_keeps_one_design_keeps_one(built: Program) -> None:
    one = [plan for plan in built.plans if plan.target.keep == "one"]
    assert one
    assert {len(plan.kept) for plan in one} == {1}


def test_every_model_shape_is_accepted_wherever_its_layer_is_emitted(built: Program) -> None:
    plans = plans_by_name(built)
    for model, stage in model_stages():
        asked = sizes(stage, model, max(model.tokens) * model.top_k)
        for target in SHIPPED.targets:
            if stage.operation in target.operations:
                assert accepting(plans[stage.name, target.name], asked), (target.name, asked)


@pytest.mark.parametrize(
    ("operation", "past"),
    [
        ("up", {"K": LONG_K}),
        ("up", {"N": SPEC.limits.n // 2 + 128}),
        ("down", {"K": LONG_K}),
        ("down", {"N": SPEC.limits.n + 128}),
        ("down", {"experts": SPEC.limits.experts + 1}),
        ("quantize", {"K": LONG_K}),
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
            assert accepting(plan, within) == list(plan.kept)
            assert accepting(plan, within | past) == []


def test_up_and_down_of_a_layer_share_a_row_tile_in_every_band(built: Program) -> None:
    plans = plans_by_name(built)
    for model, target in product(SHIPPED.models, SHIPPED.targets):
        for each in model.layers:
            (layer_plan,) = layer_plans(layer_contract(SPECS[each.spec], each))
            gemms = [stage for stage in layer_plan.tokens if isinstance(stage, GemmContract)]
            up, down = (plans[stage.name, target.name] for stage in gemms)
            assert [ranked.band for ranked in up.bands] == [ranked.band for ranked in down.bands]
            tiles = [
                {v.design.block_m for v in accepting(plan, sizes(stage, model, 1))}
                for stage, plan in zip(gemms, (up, down), strict=True)
            ]
            wanted = {r.band.block_m or target.row_tile for r in up.bands}
            assert wanted <= tiles[0] & tiles[1], (model.name, target.name)


def test_each_band_ranks_its_own_row_tile_first(built: Program) -> None:
    banded = [plan for plan in built.plans if plan.target.keep == "per_band"]
    assert banded
    for plan in banded:
        for ranked in plan.bands:
            assert ranked.designs[0].block_m == ranked.band.block_m


def test_lowering_twice_gives_equal_programs(built: Program) -> None:
    assert program(SHIPPED, Selection()) == built


def test_kept_designs_do_not_depend_on_hash_order() -> None:
    listed = [
        subprocess.run(
            LIST,
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
            "block_m": (16,),
            "block_n": (32,),
            "block_k": (16, 256, 512),
            "warps": (4,),
            "stages": (2,),
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
        " block_k_exceeds_group rejects 2 of 3, such as m16n32k256_w4s2:"
        " block_k 256 > group 128; at most 128 fits"
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
            " `python -m generator list --all` names what can be built",
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
    assert {plan.contract for plan in built.plans} == set(built.layers[0].plans[0].contracts)


def test_selection_by_contract_takes_it_alone() -> None:
    built = program(SHIPPED, Selection(contracts=("down_w8g192_a8_fp16_v1",)))
    assert [(plan.contract.name, plan.target.name) for plan in built.plans] == [
        ("down_w8g192_a8_fp16_v1", name) for name in SPEC.targets
    ]
    assert built.layers == ()


def test_design_name_holds_what_an_operation_has() -> None:
    assert Design(4, 3, block_m=16, block_n=128, block_k=256).name == "m16n128k256_w4s3"
    assert Design(1, 1, block_n=64).name == "n64_w1s1"


def test_shape_of_a_source_counts_all_rows() -> None:
    assert SOURCES[0].at(3) == Shape(experts=8, rows_per_expert=3, n=4096, k=4096)
    assert SOURCES[0].at(3).sizes() == {"rows": 24, "experts": 8, "N": 4096, "K": 4096}
