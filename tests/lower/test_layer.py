"""Plans of a layer: each band of rows takes the cheaper one, up to a length of K, and no plan's
modules are emitted where no layer takes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from generator.conditions import AtMost
from generator.lower import program as program_module
from generator.lower.bands import DISPATCHED_ROWS, Band
from generator.lower.contract import Contract
from generator.lower.cost import Shape, cost
from generator.lower.layer import (
    BASE_PLAN,
    LONGEST_K,
    PlanBand,
    PlanChoice,
    lengths,
    rank_plans,
    wanted_bands,
)
from generator.lower.layer_contract import (
    LayerContract,
    LayerPlan,
    model_layers,
    plans,
)
from generator.lower.plan import Plan, lower
from generator.lower.program import LayerEntry, Program, Selection, program
from generator.lower.rank import RankedBand
from generator.lower.report import Catalogue
from generator.lower.shapes import ShapeSource, users
from generator.lower.tuned import tuned
from generator.lower.variant import Variant
from generator.packing import padded
from generator.spec.model import Model, Target
from tests.lower.conftest import (
    MEASURED,
    SHIPPED,
    SPEC,
    SPECS,
    TARGET,
    changed,
    layer,
    layer_plan,
    layer_plans,
)

# As measured, folding saves less than it costs on every shipped target. Where a launch is as dear
# as this, some layers fold up to some length.
DEAR_LAUNCH_US = 3000.0
TARGETS = {
    each.name: changed(each, cost=each.cost.model_copy(update={"launch_us": DEAR_LAUNCH_US}))
    for each in SHIPPED.targets
}
DEAR = SHIPPED.model_copy(update={"targets": tuple(TARGETS.values())})
LAYERS = model_layers(SHIPPED.specs, SHIPPED.models)
USERS = users(SHIPPED, [(each, layer_plans(each)) for each in LAYERS])
SOURCE = ShapeSource(experts=8, n=1024, k=2048, rows=4096)
FEW = PlanChoice("dispatched", (AtMost("rows", DISPATCHED_ROWS),))


@pytest.fixture(scope="module")
def everywhere() -> Program:
    """The layers of the models on every target, where launches are dear."""
    return program(DEAR, Selection(targets=tuple(TARGETS)))


@dataclass(frozen=True)
class Ranked:
    """One band of one layer on one target."""

    layer: LayerContract
    target: Target
    ranked: PlanBand

    def __str__(self) -> str:
        return f"{self.layer.name} on {self.target.name}, rows {self.ranked.band.low}.."

    @property
    def folds_up_to(self) -> int | None:
        """The length of K up to which the folded plan goes before the base; None where it does
        not.
        """
        order = [each.plan for each in self.ranked.choices]
        if "folded" not in order or order.index("folded") > order.index(BASE_PLAN):
            return None
        (condition,) = self.ranked.choices[order.index("folded")].requires
        assert isinstance(condition, AtMost)
        assert condition.of == "K"
        return condition.bound


def every_band(built: Program) -> Iterator[Ranked]:
    for entry in built.layers:
        for target, bands in entry.bands.items():
            for ranked in bands:
                yield Ranked(entry.contract, TARGETS[target], ranked)


def models_of(each: LayerContract) -> list[Model]:
    return [m for m in SHIPPED.models if each in model_layers(SHIPPED.specs, (m,))]


def lowered(contract: Contract, own: Target, spec: str) -> Plan:
    """On the target, or on the portable one, which has every operation."""
    target = own if contract.operation in own.operations else TARGETS["portable"]
    tables = tuned(contract, target, SHIPPED.tunings)
    return lower(SPECS[spec], contract, target, USERS.sources(contract), MEASURED, tunings=tables)


def designs_of(plan: Plan, band: Band) -> RankedBand | None:
    """What a band runs: the designs of its own row tile first."""
    if plan.contract.operation == "requantize":
        return plan.bands[0]
    return next((each for each in plan.bands if each.band.block_m == band.block_m), None)


def price(each: Ranked, name: str, length: int) -> float | None:
    """What up .. down of a plan cost where the intermediate has a length; None where no design
    accepts it. Stated anew from the cost of single calls, portable modules on this target too.
    """
    smallest = min(models_of(each.layer), key=lambda model: padded(model.intermediate))
    hidden, rows = padded(smallest.hidden), each.ranked.band.samples[-1]
    total = 0.0
    for contract in layer_plan(each.layer, name).rows:
        if contract.operation not in ("up", "requantize", "down"):
            continue
        plan = lowered(contract, each.target, each.layer.spec)
        own = designs_of(plan, each.ranked.band)
        if own is None:
            return None
        n, k = {"up": (length, hidden), "down": (hidden, length)}.get(
            contract.operation, (length, length)
        )
        shape = Shape(smallest.experts, rows, n, k)
        variants = [Variant(contract, d, each.target, plan.kept[0].limits) for d in own.designs]
        fits = [v for v in variants if all(c.holds(shape.sizes()) for c in v.requires)]
        if not fits:
            return None
        total += cost(fits[0], shape).total_us
    return total


def dearer(each: Ranked, length: int) -> bool | None:
    """Whether folding costs more than a kernel of its own; None where either is impossible."""
    folded, separate = (price(each, name, length) for name in ("folded", "separate"))
    return None if folded is None or separate is None else folded > separate


def rank(target: Target, source: ShapeSource = SOURCE) -> tuple[PlanBand, ...]:
    """The plans of an int8 layer on one target that has every operation."""

    def own(contract: Contract) -> Plan:
        return lower(SPEC, contract, target, (source,))

    return rank_plans(plans(SPEC, layer()), own, target, source)


def with_cost(**figures: float) -> Target:
    return changed(TARGET, row_tiles=(16, 64), cost=TARGET.cost.model_copy(update=figures))


def test_every_band_of_every_layer_takes_the_separate_plan_at_the_last(everywhere: Program) -> None:
    bands = list(every_band(everywhere))
    assert {each.target.name for each in bands} == set(TARGETS)
    for each in bands:
        unbounded = [c.plan for c in each.ranked.choices if not c.requires]
        assert unbounded[0] == "separate", str(each)
        promised = each.target.accept_multiples != "none" and each.folds_up_to is None
        assert unbounded == (["separate", "folded"] if promised else ["separate"]), str(each)


def test_few_rows_are_dispatched_on_every_target_and_in_every_band(everywhere: Program) -> None:
    for each in every_band(everywhere):
        assert each.ranked.choices[0] == FEW, str(each)
        assert [c.plan for c in each.ranked.choices].count("dispatched") == 1, str(each)


def test_target_that_runs_every_layer_keeps_every_plan_whatever_it_costs(
    everywhere: Program,
) -> None:
    portable = [each for each in every_band(everywhere) if each.target.name == "portable"]
    assert len(portable) == len(LAYERS)
    for each in portable:
        assert "folded" in [choice.plan for choice in each.ranked.choices], str(each)
    built = {plan.contract for plan in everywhere.plans if plan.target.name == "portable"}
    for each in LAYERS:
        for plan in layer_plans(each):
            assert set(plan.contracts) <= built, (each.name, plan.name)


def test_folding_is_bounded_by_a_length_that_a_model_has(everywhere: Program) -> None:
    limits = [(each, each.folds_up_to) for each in every_band(everywhere)]
    taken = [(each, limit) for each, limit in limits if limit is not None]
    assert taken
    assert len(taken) < len(limits)
    for each, limit in taken:
        assert limit in lengths(each.layer.down_group)
        least = min(padded(model.intermediate) for model in models_of(each.layer))
        assert limit >= least, str(each)


def test_folding_is_not_dearer_at_its_limit_and_dearer_at_twice_it(everywhere: Program) -> None:
    seen = set()
    for each in every_band(everywhere):
        limit = each.folds_up_to
        if limit is not None:
            seen.add(limit)
            assert dearer(each, limit) is False, str(each)
            if 2 * limit <= LONGEST_K:
                assert dearer(each, 2 * limit) is True, str(each)
            compared = lengths(each.layer.down_group)
            shorter = [dearer(each, length) for length in compared if length < limit]
            assert True not in shorter, str(each)
    assert {LONGEST_K} < seen  # a band that folds at any length, and one that does not


def test_explain_tells_the_plans_that_a_build_takes(everywhere: Program) -> None:
    """By the designs that were timed, as both run them."""
    catalogue, untimed = (
        Catalogue(specs) for specs in (DEAR, DEAR.model_copy(update={"tunings": ()}))
    )
    told = [
        (own.plan_bands(layer.contract, TARGETS[target]), bands)
        for own in (catalogue, untimed)
        for layer in everywhere.layers
        for target, bands in layer.bands.items()
    ]
    half = len(told) // 2
    assert all(ours == theirs for ours, theirs in told[:half])
    assert any(ours != theirs for ours, theirs in told[half:])  # or nothing is told


def test_plan_is_left_out_where_no_model_of_the_layer_would_take_it(everywhere: Program) -> None:
    for each in every_band(everywhere):
        if each.folds_up_to is None:
            least = min(padded(model.intermediate) for model in models_of(each.layer))
            compared = lengths(each.layer.down_group)
            judged = [dearer(each, length) for length in compared]
            reach = judged.index(True) if True in judged else len(compared)
            longest = [
                n
                for n, is_dearer in zip(compared[:reach], judged, strict=False)
                if is_dearer is False
            ]
            assert not longest or longest[-1] < least, str(each)


def test_kernel_launches_that_cost_nothing_are_never_saved_by_folding() -> None:
    free = rank(with_cost(launch_us=1e-9, dram_bytes_per_us=10**12, cache_bytes_per_us=10**12))
    assert [each.choices for each in free] == [(FEW, PlanChoice("separate", ()))] * 2


def test_kernel_launches_that_cost_a_lot_are_saved_at_any_length() -> None:
    dear = rank(with_cost(launch_us=1e6))
    bound = PlanChoice("folded", (AtMost("K", LONGEST_K),))
    assert [each.choices for each in dear] == [(FEW, bound, PlanChoice("separate", ()))] * 2


def test_length_that_only_longer_models_have_is_no_reason_to_fold() -> None:
    target = with_cost(launch_us=DEAR_LAUNCH_US)
    low, high = (each.choices for each in rank(target))
    assert high == (FEW, PlanChoice("separate", ()))  # 64 rows and more: dearer
    assert [each.plan for each in low] == ["dispatched", "folded", "separate"]
    (condition,) = low[1].requires
    assert isinstance(condition, AtMost)
    wide = ShapeSource(SOURCE.experts, 2 * condition.bound, SOURCE.k, SOURCE.rows)
    if condition.bound < LONGEST_K:
        assert rank(target, wide)[0].choices == (FEW, PlanChoice("separate", ()))


def test_layer_of_one_plan_takes_it() -> None:
    (folded,) = (plan for plan in plans(SPEC, layer()) if plan.name == "folded")

    def own(contract: Contract) -> Plan:
        return lower(SPEC, contract, TARGET, (SOURCE,))

    ranked = rank_plans((folded,), own, TARGET, SOURCE)
    assert {each.choices for each in ranked} == {(PlanChoice("folded", ()),)}


def test_plan_with_a_stage_that_no_target_has_is_not_compared() -> None:
    """A folder of specs with one GPU target builds its GEMMs, of the plan that needs no ranking."""
    alone = SHIPPED.model_copy(update={"targets": (TARGETS["sm_90"],)})
    built = program(alone, Selection())
    names = {plan.contract.name for plan in built.plans}
    separate = {
        stage.name
        for each in LAYERS
        for stage in layer_plan(each, "separate").rows
        if stage.operation in ("up", "down")
    }
    assert names == separate
    assert built.layers == ()


def test_wanted_bands_are_those_with_any_choice_of_the_plan() -> None:
    low, high = Band(1, 16, 16), Band(17, None, 64)
    first = PlanBand(low, (PlanChoice("folded", (AtMost("K", 64),)), PlanChoice("separate", ())))
    second = PlanBand(high, (PlanChoice("separate", ()),))
    assert wanted_bands((first, second), "folded") == [low]
    assert wanted_bands((first, second), "separate") == [low, high]
    assert wanted_bands((), "separate") == []


def test_band_among_some_plans_keeps_their_order() -> None:
    choices = (PlanChoice("folded", (AtMost("K", 64),)), PlanChoice("separate", ()))
    band = PlanBand(Band(1, None, 32), choices)
    assert band.among({"folded", "separate"}) == band
    assert band.among(["separate"]).choices == choices[1:]
    assert band.among([]).choices == ()


def taken(everywhere: Program, contract: Contract, target: str) -> list[Band]:
    """The bands in which some layer takes a plan with a contract."""
    return [
        band
        for entry in everywhere.layers
        for plan in layer_plans(entry.contract)
        if contract in plan.contracts
        for band in wanted_bands(entry.bands[target], plan.name)
    ]


def test_designs_are_kept_for_the_bands_alone_in_which_a_layer_takes_them(
    everywhere: Program,
) -> None:
    """And for each of those that has a legal design at all."""
    restricted = 0
    for plan in everywhere.plans:
        if plan.contract.operation not in ("up", "down"):
            continue
        spec = "w4a8" if "_w4" in plan.contract.name else "w8a8"
        whole = lowered(plan.contract, plan.target, spec)
        tiles = {band.block_m for band in taken(everywhere, plan.contract, plan.target.name)}
        expected = tuple(v for v in whole.kept if v.design.block_m in tiles)
        assert plan.kept == expected != (), (plan.contract.name, plan.target.name)
        restricted += len(expected) < len(whole.kept)
        own = {variant.design for variant in expected}
        for ranked, before in zip(plan.bands, whole.bands, strict=True):
            assert ranked.designs == tuple(d for d in before.designs if d in own)
    assert restricted


def test_contract_of_no_wanted_band_is_not_built() -> None:
    """At the costs that were measured, the folded plan is none that a tuned target takes."""
    measured = program(SHIPPED, Selection(targets=("portable", "sm_90")))
    built = {(plan.contract.name, plan.target.name) for plan in measured.plans}
    left_out = [
        (contract.name, name)
        for each in LAYERS
        for contract in layer_plan(each, "folded").contracts
        for name in ("portable", "sm_90")
        if contract.operation in ("up", "down") and not taken(measured, contract, name)
    ]
    assert {name for _, name in left_out} == {"sm_90"}
    assert built.isdisjoint(left_out)


def stages(entry: LayerEntry, choice: PlanChoice) -> tuple[Contract, ...]:
    return next(plan for plan in entry.plans if plan.name == choice.plan).contracts


def sizes(contract: Contract, model: Model, rows_per_expert: int) -> dict[str, int]:
    hidden, intermediate = padded(model.hidden), padded(model.intermediate)
    n, k = {
        "up": (intermediate, hidden),
        "down": (hidden, intermediate),
        "requantize": (intermediate, intermediate),
    }.get(contract.operation, (hidden, hidden))
    return {"rows": rows_per_expert * model.experts, "experts": model.experts, "N": n, "K": k}


def test_every_model_is_served_in_every_band_by_the_first_plan_that_takes_its_length(
    everywhere: Program,
) -> None:
    """Up and down by modules of one row tile: that which was timed at the nearest rows, or the
    band's own where both have it; all else by the portable ones.
    """
    by_name = {(plan.contract.name, plan.target.name): plan for plan in everywhere.plans}
    for entry in everywhere.layers:
        for model in models_of(entry.contract):
            for target, bands in entry.bands.items():
                for ranked in bands:
                    down = layer_plan(entry.contract, BASE_PLAN).rows[-1]
                    call = sizes(down, model, ranked.band.low)
                    fits = [c for c in ranked.choices if all(r.holds(call) for r in c.requires)]
                    choice = fits[0]
                    tiles, timed = [], []
                    for contract in stages(entry, choice):
                        own = contract.operation in TARGETS[target].operations
                        plan = by_name[contract.name, target if own else "portable"]
                        asked = sizes(contract, model, ranked.band.low)
                        accepting = [
                            v for v in plan.kept if all(r.holds(asked) for r in v.requires)
                        ]
                        assert accepting, (contract.name, target, model.name)
                        if contract.operation in ("up", "down"):
                            tiles.append({v.design.block_m for v in accepting})
                            timed.append(timed_tile(plan, accepting, asked))
                    up, down = tiles
                    assert up & down, (entry.contract.name, target, model.name)
                    if None not in timed:
                        assert timed[0] == timed[1], (entry.contract.name, target, model.name)
                    if ranked.band.block_m in up and timed == [None, None]:
                        assert ranked.band.block_m in down, (entry.contract.name, target)


def timed_tile(plan: Plan, accepting: list[Variant], asked: dict[str, int]) -> int | None:
    """The row tile that was timed at the nearest rows of a call's shape, if they are near; it takes
    the call.
    """
    shape = (asked["N"], asked["K"], asked["experts"])
    for table in plan.tuned:
        if (table.n, table.k, table.experts) == shape:
            near = table.choice(asked["rows"], [each.band for each in plan.bands])
            if near is None:
                return None
            [tile] = [v.design.block_m for v in accepting if v.design.name == near.design]
            return tile
    return None


def test_bands_of_a_layer_are_those_of_its_up_kernel(everywhere: Program) -> None:
    by_name = {(plan.contract.name, plan.target.name): plan for plan in everywhere.plans}
    for entry in everywhere.layers:
        base: LayerPlan = layer_plan(entry.contract, BASE_PLAN)
        up = next(each for each in base.rows if each.operation == "up")
        for target, bands in entry.bands.items():
            own = by_name[up.name, target]
            assert [each.band for each in bands] == [each.band for each in own.bands]


def test_selection_without_a_gemm_ranks_no_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a layer was ranked")

    monkeypatch.setattr(program_module, "rank_plans", refuse)
    built = program(SHIPPED, Selection(contracts=("combine_bf16_v1",)))
    assert [plan.contract.name for plan in built.plans] == ["combine_bf16_v1"]
    with pytest.raises(AssertionError, match="a layer was ranked"):
        program(SHIPPED, Selection(contracts=("down_w8g128_a8_bf16_v1",)))
