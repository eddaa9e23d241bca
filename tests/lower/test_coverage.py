"""Tuning files hold what calls can reach; what of the models they lack is told."""

from __future__ import annotations

from dataclasses import replace

from generator.lower.coverage import uncovered, unreached
from generator.lower.program import Program, Selection, program
from generator.packing import padded
from generator.spec.model import TunedShape
from tests.lower.conftest import SHIPPED

TUNING = SHIPPED.tunings[0]
SHAPE = TUNING.shapes[0]


def tuned(*shapes: TunedShape, of: Program) -> list[str]:
    """What is said of a build by a tuning file of these shapes; tables stay those of the build."""
    tuning = TUNING.model_copy(update={"shapes": shapes})
    return [str(each) for each in unreached(replace(of, tunings=(tuning,)))]


def test_every_shipped_entry_can_be_reached(built: Program) -> None:
    assert built.tunings
    assert unreached(built) == []


def test_a_contract_that_is_not_built_is_told(built: Program) -> None:
    other = SHAPE.model_copy(update={"contract": "down_w4g32_a8_bf16_v1"})
    [said] = tuned(SHAPE, other, of=built)
    assert "down_w4g32_a8_bf16_v1 at N=2048 K=192 experts=64" in said
    assert "no contract that multiplies alike is built for sm_90" in said


def test_a_shape_of_no_model_is_told(built: Program) -> None:
    [said] = tuned(SHAPE, SHAPE.model_copy(update={"experts": 63}), of=built)
    assert "experts=63" in said and "no shipped model brings this shape" in said


def test_a_design_that_is_not_legal_is_told(built: Program) -> None:
    gone = SHAPE.buckets[0].model_copy(update={"design": "m16n64k128_w4s99"})
    loaded = SHIPPED.model_copy(
        update={
            "tunings": (
                TUNING.model_copy(
                    update={
                        "shapes": (
                            SHAPE.model_copy(update={"buckets": (gone, *SHAPE.buckets[1:])}),
                            *TUNING.shapes[1:],
                        )
                    }
                ),
            )
        }
    )
    [said] = (str(each) for each in unreached(program(loaded, Selection())))
    assert f"m16n64k128_w4s99, for {gone.rows} rows, is none of the legal designs" in said


def test_targets_that_are_not_built_are_not_judged(built: Program) -> None:
    targets = tuple(each for each in built.targets if each.name != TUNING.target)
    plans = tuple(each for each in built.plans if each.target.name != TUNING.target)
    assert unreached(replace(built, targets=targets, plans=plans)) == []


def test_models_that_were_not_timed_are_told(built: Program) -> None:
    """All that a model's file names was timed; without a model's own shapes it is told."""
    assert uncovered(built) == []
    [small] = (model for model in SHIPPED.models if model.name == "seed-small")
    [tuning] = SHIPPED.tunings
    others = tuple(each for each in tuning.shapes if each.experts != small.experts)
    lab = SHIPPED.model_copy(update={"tunings": (tuning.model_copy(update={"shapes": others}),)})
    found = uncovered(program(lab, Selection()))
    assert {each.model for each in found} == {"seed-small"}
    rows = tuple(tokens * small.top_k for tokens in small.tokens)
    assert {each.rows for each in found} == {rows}
    shapes = {(each.n, each.k, each.experts) for each in found}
    hidden, intermediate = padded(small.hidden), padded(small.intermediate)
    assert shapes == {
        (intermediate, hidden, small.experts),
        (hidden, intermediate, small.experts),
    }


def test_a_batch_that_was_not_timed_is_told(built: Program) -> None:
    models = tuple(
        model.model_copy(update={"tokens": (*model.tokens, 7)})
        if model.name == "qwen3-30b-a3b"
        else model
        for model in built.models
    )
    found = [each for each in uncovered(replace(built, models=models)) if each.rows == (56,)]
    assert {each.model for each in found} == {"qwen3-30b-a3b"}
    assert len({each.contract for each in found}) == 6  # up and down of three kinds of weights
    assert str(found[0]).startswith("not timed on sm_90: qwen3-30b-a3b, ")
    assert str(found[0]).endswith(", 56 rows")
