"""A contract's name means one thing: names, digests, and what happens where two specs disagree."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from generator.errors import BuildError
from generator.lower.contract import (
    Contract,
    CountContract,
    DispatchContract,
    GemmContract,
    QuantizeContract,
    RouteContract,
    contract_digest,
)
from generator.lower.layer_contract import LayerContract, plans
from generator.lower.program import Program, Selection, program
from tests.lower.conftest import (
    SHIPPED,
    SPEC,
    contract,
    layer,
    layer_plans,
    shipped_contracts,
    shipped_layers,
)

MIDDLES = {
    "separate": ("up", "requantize", "down"),
    "folded": ("up", "down"),
    "dispatched": ("up", "requantize", "down"),
}
STARTS = {
    "separate": ("count", "route", "quantize"),
    "folded": ("count", "route", "quantize"),
    "dispatched": ("dispatch",),
}


def with_a_second_spec(contract: str = "down_w8g320_a8_bf16_v*", **changes: object) -> Program:
    """Lower one contract of the shipped spec and of a copy with other fields, for one target."""
    second = SPEC.model_copy(update={"name": "second", **changes})
    specs = SHIPPED.model_copy(update={"specs": (SPEC, second)})
    return program(specs, Selection(contracts=(contract,), targets=("portable",)))


@pytest.mark.parametrize(
    ("operation", "group", "name"),
    [
        ("count", 128, "count_v1"),
        ("route", 128, "route_ids_v1"),
        ("quantize", 128, "quantize_a8_bf16_gather_v1"),
        ("up", 128, "up_w8g128_a8_swiglu_bf16_v1"),
        ("up", "channel", "up_w8gn_a8_swiglu_bf16_v1"),
        ("requantize", 128, "requantize_a8_bf16_v1"),
        ("down", 320, "down_w8g320_a8_bf16_v1"),
        ("combine", 128, "combine_bf16_v1"),
    ],
)
def test_name_holds_the_axes_in_a_fixed_order(operation: str, group: int | str, name: str) -> None:
    assert contract(operation, group).name == name


@pytest.mark.parametrize(
    ("operation", "plan", "name"),
    [
        ("up", "separate", "up_w4g320_a8_swiglu_bf16_v1"),
        ("up", "folded", "up_w4g320_a8_swiglu_bf16_amax_v1"),
        ("down", "separate", "down_w4g320_a8_bf16_v1"),
        ("down", "folded", "down_w4g320_a8_bf16_requantbf16_v1"),
        ("quantize", "folded", "quantize_a8_bf16_gather_v1"),
        ("dispatch", "dispatched", "dispatch_a8_bf16_v1"),
        ("up", "dispatched", "up_w4g320_a8_swiglu_bf16_v1"),
    ],
)
def test_name_tells_the_weights_and_what_a_plan_adds(operation: str, plan: str, name: str) -> None:
    assert contract(operation, 320, spec="w4a8", plan=plan).name == name


def test_name_of_a_folded_down_holds_its_rounding() -> None:
    down = contract("down", plan="folded")
    assert isinstance(down, GemmContract)
    away = replace(down, rounding="half_away", input="fp32")
    assert away.name == "down_w8gn_a8_bf16_requantfp32_away_v1"


def test_name_of_a_dispatch_holds_its_rounding() -> None:
    dispatch = contract("dispatch", plan="dispatched")
    assert isinstance(dispatch, DispatchContract)
    away = replace(dispatch, rounding="half_away", input="fp16")
    assert away.name == "dispatch_a8_fp16_away_v1"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"output": "fp32"}, "up_w8g128_a8_swiglu_fp32_gatebf16_v1"),
        ({"exp": "device"}, "up_w8g128_a8_swiglu_bf16_expdevice_v1"),
        ({"version": 2}, "up_w8g128_a8_swiglu_bf16_v2"),
    ],
)
def test_name_of_up_tells_where_it_differs(changes: dict[str, object], name: str) -> None:
    up = contract("up", 128)
    assert isinstance(up, GemmContract)
    assert replace(up, **changes).name == name


@pytest.mark.parametrize(
    ("up", "down", "name"),
    [
        (128, 128, "layer_w8g128_a8_swiglu_bf16_v1"),
        (128, 320, "layer_w8g128g320_a8_swiglu_bf16_v1"),
        ("channel", "channel", "layer_w8gn_a8_swiglu_bf16_v1"),
    ],
)
def test_layer_name_holds_both_groups_where_they_differ(
    up: int | str, down: int | str, name: str
) -> None:
    assert layer(up, down).name == name


def test_one_name_has_one_meaning_and_one_digest() -> None:
    contracts = shipped_contracts()
    assert len({each.name for each in contracts}) == len(contracts)
    assert len({contract_digest(each) for each in contracts}) == len(contracts)


def test_one_name_has_one_layer_contract() -> None:
    layers = shipped_layers()
    assert len({each.name for each in layers}) == len(layers)


@pytest.mark.parametrize(
    "each",
    [
        *(contract(name) for name in ("count", "route", "quantize", "up", "combine")),
        contract("down", plan="folded"),
        contract("dispatch", plan="dispatched"),
    ],
)
def test_digest_covers_every_field(each: Contract) -> None:
    changed = [replace(each, **{field.name: "changed"}) for field in fields(each)]
    assert len({contract_digest(other) for other in (each, *changed)}) == len(changed) + 1


def test_stages_hand_over_what_the_next_one_reads() -> None:
    for each in shipped_layers():
        for plan in layer_plans(each):
            for stages in (plan.tokens, plan.rows):
                handed_over(each, {stage.operation: stage for stage in stages})


def handed_over(each: LayerContract, stages: dict[str, Contract]) -> None:
    up, down = stages["up"], stages["down"]
    quantize = stages["quantize"] if "quantize" in stages else stages["dispatch"]
    assert isinstance(up, GemmContract)
    assert isinstance(down, GemmContract)
    assert isinstance(quantize, QuantizeContract | DispatchContract)
    if "count" in stages:
        count, route = stages["count"], stages["route"]
        assert isinstance(count, CountContract)
        assert isinstance(route, RouteContract)
        assert (route.source, route.chunk, route.sentinel) == ("ids", count.chunk, count.sentinel)
    assert quantize.rounding == each.rounding
    assert quantize.input == up.rounded == down.output == each.dtype
    assert up.output == each.intermediate
    assert quantize.codes == up.codes == down.codes == up.input == each.codes
    assert (up.group_k, down.group_k) == (each.up_group, each.down_group)
    assert {up.weights, down.weights} == {each.weights}
    if "requantize" in stages:
        requantize = stages["requantize"]
        assert isinstance(requantize, QuantizeContract)
        assert (requantize.input, requantize.codes) == (up.output, down.input)
        assert (requantize.rounding, requantize.codes) == (each.rounding, each.codes)
        assert (up.amax, down.rounding, down.requantizes) == (False, None, False)
    else:
        assert (down.input, down.rounding) == (up.output, each.rounding)
        assert (up.amax, down.requantizes) == (True, True)


def test_plans_of_a_layer_differ_before_up_or_from_up_to_down() -> None:
    for each in shipped_layers():
        every = {plan.name: plan for plan in layer_plans(each)}
        assert list(every) == list(MIDDLES)
        base = every["separate"]
        for name, plan in every.items():
            tokens, rows = ([s.operation for s in way] for way in (plan.tokens, plan.rows))
            assert tokens == [*STARTS[name], *MIDDLES[name], "combine"]
            assert rows == ["route", "quantize", *MIDDLES[name]]
            for ours, theirs in ((plan.tokens, base.tokens), (plan.rows, base.rows)):
                others = {stage.operation: stage for stage in theirs}
                shared = [s for s in ours if name != "folded" or s.operation not in ("up", "down")]
                for stage in shared:
                    assert stage.operation == "dispatch" or stage == others[stage.operation]


def test_dispatch_computes_what_count_route_and_quantize_do() -> None:
    for each in shipped_layers():
        every = {plan.name: plan for plan in layer_plans(each)}
        dispatch = every["dispatched"].tokens[0]
        count, route, quantize = every["separate"].tokens[:3]
        assert isinstance(dispatch, DispatchContract)
        assert isinstance(route, RouteContract)
        own, axes = dispatch.axes(), {**count.axes(), **route.axes(), **quantize.axes()}
        assert own == {name: axes[name] for name in own} | {"operation": "dispatch"}


def test_spec_with_one_plan_has_layers_of_one_plan() -> None:
    language = SPEC.layer.model_copy(update={"plans": ("folded",)})
    (only,) = plans(SPEC.model_copy(update={"layer": language}), layer())
    assert only == layer_plans(layer())[1]


def test_contracts_that_move_and_multiply_alike_share_a_geometry() -> None:
    """Designs are judged once for them: no field that a rule or the cost model reads is lost."""
    up, down = contract("up"), contract("down", plan="folded")
    assert isinstance(up, GemmContract)
    assert isinstance(down, GemmContract)
    for alike in (
        {"output": "fp16"},
        {"rounded": "fp16"},
        {"exp": "device"},
        {"amax": True},
    ):
        assert replace(up, **alike).geometry == up.geometry == up
    assert replace(down, input="fp16", rounding="half_away").geometry == down.geometry == down
    for other in (
        {"output": "fp32"},
        {"group_k": 128},
        {"weights": "int4"},
        {"gate": None},
        {"scale": "fp16"},
        {"version": 2},
    ):
        assert replace(up, **other).geometry != up.geometry
    assert replace(down, input="fp32").geometry != down.geometry
    assert replace(down, input="int8", rounding=None).geometry != down.geometry


def test_contracts_of_one_geometry_name_each_other() -> None:
    every = program(SHIPPED, Selection(everything=True, targets=("portable",)))
    gemms = {each.contract for each in every.plans if isinstance(each.contract, GemmContract)}
    for each in gemms:
        alike = set(each.alike())
        assert each in alike
        assert {other.geometry for other in alike} == {each.geometry}
        assert {other for other in gemms if other.geometry == each.geometry} <= alike


OTHER_GROUPS = SPEC.weights.model_copy(update={"group_k": (1024,)})


def test_two_specs_may_share_a_contract() -> None:
    built = with_a_second_spec("combine_bf16_v1", weights=OTHER_GROUPS)
    assert [plan.contract.name for plan in built.plans] == ["combine_bf16_v1"]


def test_two_specs_of_one_layer_are_refused() -> None:
    with pytest.raises(BuildError) as caught:
        with_a_second_spec()
    assert str(caught.value) == (
        "[build] specs w8a8 and second: both describe layer_w8g32_a8_swiglu_bf16_v1 and 191 more"
        " layers; raise `version` in one of them, or change an axis that names show"
    )


def test_two_specs_of_other_limits_under_one_name_are_refused() -> None:
    limits = SPEC.limits.model_copy(update={"rows": 4096})
    with pytest.raises(BuildError) as caught:
        with_a_second_spec("combine_bf16_v1", weights=OTHER_GROUPS, limits=limits)
    assert str(caught.value) == (
        "[build] combine_bf16_v1: specs w8a8 and second differ in limits under one name;"
        " raise `version` in one of them"
    )


def test_another_version_tells_two_meanings_apart() -> None:
    weights = SPEC.weights.model_copy(update={"scale": "fp16"})
    built = with_a_second_spec(weights=weights, version=SPEC.version + 1)
    assert [plan.contract.name for plan in built.plans] == [
        "down_w8g320_a8_bf16_v1",
        "down_w8g320_a8_bf16_v2",
    ]
