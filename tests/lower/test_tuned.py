"""Timed designs are built, chosen for the shapes that they were timed at, and told apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from generator.data import folder
from generator.emit.outputs import outputs
from generator.emit.sync import write
from generator.lower import choice as lowering
from generator.lower.contract import GemmContract
from generator.lower.plan import Plan
from generator.lower.program import Program, Selection, program
from generator.lower.tuned import tuned
from generator.resources import Record
from generator.runtime.manifest import Manifest
from generator.runtime.manifest import load as load_manifest
from generator.runtime.problem import Problem
from generator.runtime.select import select
from generator.spec.load import load
from generator.spec.model import SpecSet
from tests.lower.conftest import figures

LOADED = load(folder("specs"))
LAYER = "layer_w8gn_a8_swiglu_bf16_v1"
DOWN = "down_w8gn_a8_bf16_v1"
TARGETS = ("sm_90", "portable")


def built(loaded: SpecSet) -> Program:
    return program(loaded, Selection(contracts=(LAYER,), targets=TARGETS))


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    out: Path = tmp_path_factory.mktemp("tuned")
    write(out, outputs(built(LOADED), folder("templates")))
    return load_manifest(out)


def of(loaded: SpecSet) -> Plan:
    """The plan of the down GEMM on the tuned target."""
    found = [p for p in built(loaded).plans if (p.contract.name, p.target.name) == (DOWN, "sm_90")]
    return found[0]


def test_every_timed_design_is_kept() -> None:
    [plan] = [p for p in built(LOADED).plans if (p.contract.name, p.target.name) == (DOWN, "sm_90")]
    kept = {variant.design.name for variant in plan.kept}
    assert plan.tuned
    assert all(bucket.design in kept for table in plan.tuned for bucket in table.buckets)


def test_a_contract_of_the_same_geometry_shares_the_table() -> None:
    [plan] = [
        p for p in built(LOADED).plans if p.contract.name == DOWN and p.target.name == "sm_90"
    ]
    assert isinstance(plan.contract, GemmContract)
    alike = replace(plan.contract, output="fp16", rounded="fp16")
    assert tuned(alike, plan.target, LOADED.tunings) == tuned(
        plan.contract, plan.target, LOADED.tunings
    )
    other = replace(plan.contract, group_k=64)
    assert tuned(other, plan.target, LOADED.tunings) == ()


def test_a_design_that_is_no_longer_legal_is_left_out() -> None:
    tuning = LOADED.tunings[0]
    shape = next(each for each in tuning.shapes if each.contract == DOWN)
    gone = shape.buckets[0].model_copy(update={"design": "m16n64k128_w4s99"})
    changed = shape.model_copy(update={"buckets": (gone, *shape.buckets[1:])})
    loaded = LOADED.model_copy(
        update={"tunings": (tuning.model_copy(update={"shapes": (changed,)}),)}
    )
    rows = [bucket.rows for table in of(loaded).tuned for bucket in table.buckets]
    assert rows == [each.rows for each in shape.buckets[1:]]


def recorded_as_spilling(design: str) -> SpecSet:
    """The specs with a record of one module of the down GEMM that needs a stack."""
    variants = {f"{DOWN}_sm_90_{design}": figures(stack=8)}
    record = Record("sm_90", "9.9.9", variants)
    return LOADED.model_copy(update={"resources": (*LOADED.resources, record)})


def test_a_timed_design_on_record_with_a_stack_is_left_out() -> None:
    """In its own order of programs: what spills in another one says nothing of it."""
    shapes = (each for each in LOADED.tunings[0].shapes if each.contract == DOWN)
    designs = (bucket.design for shape in shapes for bucket in shape.buckets)
    name = next(each for each in designs if each.endswith("_columns"))
    own, other = (of(recorded_as_spilling(each)) for each in (name, name.removesuffix("_columns")))
    assert name not in {b.design for table in own.tuned for b in table.buckets}
    assert name not in {variant.design.name for variant in own.kept}
    assert other.tuned == of(LOADED).tuned


def test_selection_takes_the_nearest_timed_rows(shipped: Manifest) -> None:
    own = (each for each in LOADED.tunings[0].shapes if each.contract == DOWN)
    shape = next(each for each in own if len({bucket.design for bucket in each.buckets}) > 1)
    for bucket in shape.buckets:
        for rows in (bucket.rows, bucket.rows + bucket.rows // 8):
            asked = Problem(DOWN, rows, shape.n, shape.k, shape.experts, TARGETS)
            choice = select(asked, shipped)
            assert choice.entry.design == bucket.design
            assert choice.why.startswith(
                f"chosen by timings at {bucket.rows} rows, the nearest measured, on"
            )


def test_what_was_timed_far_away_is_no_choice(shipped: Manifest) -> None:
    """A model whose file names one batch is called with others."""
    own = (each for each in LOADED.tunings[0].shapes if each.contract == DOWN)
    shape = max(
        (each for each in own if len(each.buckets) == 1), key=lambda each: each.buckets[0].rows
    )
    [bucket] = shape.buckets
    one = select(Problem(DOWN, 1, shape.n, shape.k, shape.experts, TARGETS), shipped)
    assert one.entry.design == bucket.design  # few rows an expert, as were timed
    assert one.why.startswith(f"chosen by timings at {bucket.rows} rows, the nearest measured, on")
    for rows in (bucket.rows * 40, bucket.rows * 400):
        asked = Problem(DOWN, rows, shape.n, shape.k, shape.experts, TARGETS)
        choice = select(asked, shipped)
        assert choice.why.startswith("rank 1 of")
        assert choice.entry.block_m == 256
        told = lowering.choice(
            of(LOADED),
            next(each for each in LOADED.specs if each.name == "w8a8"),
            lowering.Problem(rows, shape.n, shape.k, shape.experts),
            {None},
        )
        assert told.design == choice.entry.design
        assert told.tuning.startswith(f"no rows that were measured are near {rows}: ")


def test_other_shapes_fall_back_to_the_cost_model(shipped: Manifest) -> None:
    shape = next(each for each in LOADED.tunings[0].shapes if each.contract == DOWN)
    asked = Problem(DOWN, 8, shape.n, shape.k, shape.experts + 1, TARGETS)
    assert select(asked, shipped).why.startswith("rank 1 of")


def test_every_batch_of_the_models_was_timed() -> None:
    """What a model's file names is what its layers were timed at, on each tuned target."""
    for tuning in LOADED.tunings:
        timed = {
            (shape.n, shape.k, shape.experts, bucket.rows)
            for shape in tuning.shapes
            for bucket in shape.buckets
        }
        for model in LOADED.models:
            if model.name == "seed-small":  # a test's layer
                continue
            padded = -(-model.intermediate // 64) * 64
            for tokens in model.tokens:
                rows = tokens * model.top_k
                assert (padded, model.hidden, model.experts, rows) in timed, (model.name, tokens)
                assert (model.hidden, padded, model.experts, rows) in timed, (model.name, tokens)
