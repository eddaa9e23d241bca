"""Contracts are ranked for the shapes of the models that use them, as they stand in memory."""

from __future__ import annotations

from generator.lower.layer_contract import (
    LayerContract,
    LayerPlan,
    model_layers,
)
from generator.lower.shapes import TYPICAL, ShapeSource, Users, source, users
from generator.spec.model import Model
from tests.lower.conftest import SHIPPED, contract, layer, layer_plan, layer_plans, shipped_layers

MODELS = {model.name: model for model in SHIPPED.models}
LITE = MODELS["deepseek-v2-lite-tp8"]


def known(layers: list[LayerContract]) -> Users:
    indexed: list[tuple[LayerContract, tuple[LayerPlan, ...]]]
    indexed = [(each, layer_plans(each)) for each in layers]
    return users(SHIPPED, indexed)


def test_lengths_are_padded_as_they_are_stored() -> None:
    """176 is stored as 192; rows are those of the largest batch."""
    rows = 256 * 6
    assert {name: source(name, LITE) for name in ("up", "down", "requantize", "combine")} == {
        "up": ShapeSource(experts=64, n=192, k=2048, rows=rows),
        "down": ShapeSource(experts=64, n=2048, k=192, rows=rows),
        "requantize": ShapeSource(experts=64, n=192, k=192, rows=rows),
        "combine": ShapeSource(experts=64, n=2048, k=2048, rows=rows),
    }


def test_contract_meets_the_models_that_use_it_alone() -> None:
    index = known(model_layers(SHIPPED.specs, SHIPPED.models))
    nibbles = contract("down", 128, spec="w4a8")
    names = ("deepseek-v2-lite-tp8", "deepseek-v3-ep8", "mixtral-8x7b", "qwen3-30b-a3b")
    assert index.sources(nibbles) == tuple(source("down", MODELS[name]) for name in names)
    seed = layer_plan(layer(512, 320, spec="w4a8"), "folded")
    down = next(each for each in seed.contracts if each.operation == "down")
    large, small = MODELS["seed-large"], MODELS["seed-small"]
    assert index.sources(down) == (source("down", large), source("down", small))


def test_contract_of_several_plans_has_all_as_users() -> None:
    index = known(model_layers(SHIPPED.specs, SHIPPED.models))
    own = layer(512, 320, spec="w4a8")
    combine = contract("combine")
    every = ["separate", "folded", "dispatched"]
    assert [name for each, name in index.of(combine) if each == own] == every
    count = contract("count")
    assert [name for each, name in index.of(count) if each == own] == every[:2]
    dispatch = contract("dispatch", plan="dispatched")
    assert [name for each, name in index.of(dispatch) if each == own] == every[2:]
    amax = next(c for c in layer_plan(own, "folded").contracts if c.operation == "up")
    assert index.of(amax) == [(own, "folded")]


def test_unused_contract_is_ranked_for_model_lengths_that_its_group_divides() -> None:
    index = known(shipped_layers())
    lengths = {each.k for each in index.sources(contract("down", 256))}
    assert lengths == {2048, 14336, 768, 1280}
    assert index.sources(contract("up", "channel", spec="w4a8")) == tuple(
        dict.fromkeys(source("up", model) for model in SHIPPED.models)
    )


def test_group_that_divides_no_length_is_ranked_for_typical_ones_rounded_up() -> None:
    index = known([layer()])
    lengths = {each.k for each in index.sources(contract("down", 96 * 11))}
    assert lengths == {2112, 4224}
    assert all(each.k % 1056 for each in TYPICAL)


def test_layer_is_compared_at_its_model_of_the_least_intermediate() -> None:
    index = known(model_layers(SHIPPED.specs, SHIPPED.models))
    assert index.layer_source(layer(128, 128, spec="w4a8")) == source("up", LITE)
    assert index.layer_source(layer(128, 128)) == source("up", MODELS["qwen3-30b-a3b"])
    assert index.layer_source(layer(64, 64)) == TYPICAL[0]


def test_model_without_a_layer_of_a_built_spec_is_no_user() -> None:
    index = known([layer(128, 128)])
    by_layer: list[Model] = index.by_layer[layer(128, 128)]
    assert LITE not in by_layer
    assert [model.name for model in by_layer] == [
        "deepseek-v3-ep8",
        "mixtral-8x7b",
        "qwen3-30b-a3b",
    ]
