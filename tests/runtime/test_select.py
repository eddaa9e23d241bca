"""Selection is a pure function of the problem and the manifest, and says why."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from generator.conditions import AtMost
from generator.errors import BuildError, NoVariantError
from generator.runtime.manifest import Manifest, PlanBand, PlanChoice
from generator.runtime.problem import LayerProblem, Problem
from generator.runtime.select import candidates, select, select_layer

H200 = ("sm_90", "portable")
UP = "up_w8gn_a8_swiglu_bf16_v1"


def problem(rows: int, targets: tuple[str, ...] = H200, **changes: int) -> Problem:
    sizes = {"n": 1280, "k": 512, "experts": 25} | changes  # no shape that was timed
    return Problem(UP, rows, sizes["n"], sizes["k"], sizes["experts"], targets)


def layer_problem(rows: int, targets: tuple[str, ...] = H200) -> LayerProblem:
    return LayerProblem("layer_w8gn_a8_swiglu_bf16_v1", "tokens", rows, 512, 1280, 24, targets)


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [(1, 16), (300, 16), (301, 32), (650, 32), (651, 64), (1400, 64), (1401, 128), (2926, 256)],
)
def test_the_row_tile_follows_the_rows_per_expert(
    shipped: Manifest, rows: int, wanted: int
) -> None:
    """The band's own; where none of it was kept, the cheapest, which tests/lower/ holds."""
    tiles = {e.block_m for e in shipped.by_contract[UP] if e.target == "sm_90" and e.block_m}
    assert {16, 64, 128, 256} <= tiles
    choice = select(problem(rows), shipped)
    assert choice.entry.target == "sm_90"
    if wanted in tiles:
        assert choice.entry.block_m == wanted
    else:
        [band] = (b for b in shipped.bands[UP, "sm_90"] if b.holds(problem(rows).rows_per_expert))
        assert choice.entry.design == band.designs[0]


@pytest.mark.parametrize("changes", [{"hidden": 8256}, {"experts": 257}])
@pytest.mark.parametrize("targets", [H200, ("portable",)])
def test_few_rows_that_dispatch_does_not_reach_are_routed_apart(
    shipped: Manifest, targets: tuple[str, ...], changes: dict[str, int]
) -> None:
    asked = layer_problem(50, targets)
    assert select_layer(asked, shipped).plan.name == "dispatched"
    chosen = select_layer(replace(asked, **changes), shipped)
    assert chosen.plan.name == "separate"
    assert {"count", "route", "quantize"} <= set(chosen.stages)
    with pytest.raises(NoVariantError, match=r"exceeds (8192|256)"):
        select_layer(replace(asked, **changes, plan="dispatched"), shipped)


def test_a_choice_says_why(shipped: Manifest) -> None:
    choice = select(problem(401), shipped)
    assert choice.why.startswith("rank 1 of ")
    assert choice.why.endswith("on sm_90 for 17 rows per expert (band 13 to 26)")


def test_up_and_down_share_a_row_tile_at_every_size(shipped: Manifest) -> None:
    for rows in range(1, 6000, 37):
        chosen = select_layer(layer_problem(rows), shipped)
        assert chosen["up"].entry.block_m == chosen["down"].entry.block_m == chosen.block_m


def test_a_device_without_a_target_takes_the_portable_variant(shipped: Manifest) -> None:
    choice = select(problem(50, targets=("portable",)), shipped)
    assert choice.entry.target == "portable"


def test_portable_serves_what_the_device_target_refuses(shipped: Manifest) -> None:
    choice = select(problem(50, n=192, k=192), shipped)
    assert choice.entry.target == "portable"


def test_candidates_accept_the_problem(shipped: Manifest) -> None:
    asked = problem(50)
    for choice in candidates(asked, shipped):
        assert all(each.holds(asked.sizes()) for each in choice.entry.requires)


def test_a_refusal_has_a_line_for_every_variant(shipped: Manifest) -> None:
    asked = problem(50, n=100)
    with pytest.raises(NoVariantError) as caught:
        select(asked, shipped)
    message = str(caught.value)
    for entry in shipped.by_contract[UP]:
        assert entry.name in message
        if entry.target in H200:
            refused = [each for each in entry.requires if not each.holds(asked.sizes())]
            assert refused
            assert all(each.failure(asked.sizes()) in message for each in refused)
    assert "N = 100 is no multiple of 128 (nearest: 128)" in message
    assert "is for sm_80; this device runs sm_90, portable" in message


def test_rows_that_pass_int32_offsets_are_refused(shipped: Manifest) -> None:
    with pytest.raises(NoVariantError, match=r"rows \(5000000\) \* K \(512\) = 2560000000"):
        select(problem(5_000_000), shipped)


def test_a_contract_that_was_not_built_names_the_command(shipped: Manifest) -> None:
    with pytest.raises(NoVariantError, match="build --contract up_w8g64_a8_swiglu_bf16_v1"):
        select(Problem("up_w8g64_a8_swiglu_bf16_v1", 1, 64, 64, 1, H200), shipped)
    unknown = LayerProblem("layer_w8g64_a8_swiglu_bf16_v1", "tokens", 1, 64, 64, 1, H200)
    with pytest.raises(BuildError, match="build --contract layer_w8g64"):
        select_layer(unknown, shipped)


def test_each_distinct_choice_is_logged_once(
    shipped: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    shipped.choices.clear()
    shipped.logged.clear()
    with caplog.at_level(logging.INFO, logger="groupwise"):
        for rows in (377, 377, 378, 400):
            select_layer(layer_problem(rows), shipped)
    told = [each.getMessage() for each in caplog.records if each.getMessage().startswith("up_")]
    assert len(told) == 1
    assert (
        "chosen by timings at 388 rows, the nearest measured" in told[0]
        and "first for LayerProblem(" in told[0]
    )


def test_every_band_names_entries_that_exist(shipped: Manifest) -> None:
    for (contract, target), bands in shipped.bands.items():
        designs = {e.design for e in shipped.by_contract[contract] if e.target == target}
        assert bands[0].low == 1 and bands[-1].high is None
        for band in bands:
            assert set(band.designs) <= designs and band.designs


def test_modules_stand_where_the_manifest_says(shipped: Manifest) -> None:
    assert all(Path(entry.path).is_file() for entry in shipped.entries)


@pytest.mark.parametrize("asked", ["separate", "folded", "dispatched"])
@pytest.mark.parametrize("targets", [H200, ("portable",)])
def test_a_plan_that_is_asked_for_is_taken(
    shipped: Manifest, targets: tuple[str, ...], asked: str
) -> None:
    chosen = select_layer(replace(layer_problem(50, targets), plan=asked), shipped)
    assert (chosen.plan.name, chosen.why) == (asked, "asked for")
    assert ("requantize" in chosen.stages) == (asked != "folded")
    stages = {shipped.contracts[name]["operation"]: name for name in chosen.plan.tokens}
    assert {each: choice.entry.contract for each, choice in chosen.stages.items()} == stages


def test_an_unknown_plan_names_those_there_are(shipped: Manifest) -> None:
    asked = replace(layer_problem(50), plan="fused")
    with pytest.raises(BuildError) as caught:
        select_layer(asked, shipped)
    assert str(caught.value) == (
        "[build] layer_w8gn_a8_swiglu_bf16_v1: has no plan `fused`, only separate, folded,"
        " dispatched; name one of them"
    )


def test_the_plan_follows_rows_and_k(shipped: Manifest) -> None:
    """The first choice of the band whose conditions hold, whichever target the table is of."""
    name = "layer_w8gn_a8_swiglu_bf16_v1"
    short_k = PlanChoice("folded", (AtMost("K", 1024),))
    separate, folded = PlanChoice("separate", ()), PlanChoice("folded", ())
    ranked = (
        PlanBand(1, 16, (short_k, separate)),
        PlanBand(17, 64, (separate, folded)),
        PlanBand(65, None, (folded, separate)),
    )
    layer = replace(shipped.layer(name), selection={"portable": ranked})
    changed = replace(shipped, layers={name: layer}, choices={}, logged=set())
    for rows, k, want, why in (
        (16, 1024, "folded", "cheaper for K <= 1024 on portable"),
        (16, 1088, "separate", "for any K on portable"),
        (17, 64, "separate", "for any K on portable"),
        (64, 2048, "separate", "for any K on portable"),
        (65, 2048, "folded", "for any K on portable"),
    ):
        asked = LayerProblem(name, "rows", rows * 24, 512, k, 24, ("portable",))
        chosen = select_layer(asked, changed)
        assert (chosen.plan.name, chosen.why) == (want, why), asked


def test_every_table_of_plans_is_followed(shipped: Manifest) -> None:
    for layer in shipped.layers.values():
        for target, ranked in layer.selection.items():
            assert ranked[0].low == 1 and ranked[-1].high is None
            for band in ranked:
                for k in (64, 960, 1024, 2048, 16384):
                    asked = LayerProblem(
                        layer.name, "rows", band.low * 24, 512, k, 24, (target, "portable")
                    )
                    sizes = asked.problem("", "down").sizes()
                    want = next(
                        each.plan
                        for each in band.choices
                        if all(condition.holds(sizes) for condition in each.requires)
                    )
                    chosen = select_layer(asked, shipped)
                    own = chosen["up"].entry.target == target
                    assert chosen.plan.name == want or not own, asked


def test_the_interpreter_is_given_no_inline_assembly(shipped: Manifest) -> None:
    name = "layer_w4g128_a8_swiglu_bf16_v1"
    up = shipped.layer(name).plan("separate").rows[2]
    asked = Problem(up, 50, 512, 512, 24, H200)
    assert select(asked, shipped).entry.needs_gpu
    interpreted = replace(asked, interpreted=True)
    assert select(interpreted, shipped).entry.target == "portable"
    with pytest.raises(NoVariantError) as caught:
        select(replace(interpreted, n=100), shipped)
    told = str(caught.value)
    build = f"python -m generator build --contract {up} --out DIR --target portable"
    assert f"has inline PTX or is Gluon, which the CPU interpreter does not run; {build}" in told


def test_targets_that_nothing_was_built_for(shipped: Manifest) -> None:
    name = "layer_w8gn_a8_swiglu_bf16_v1"
    with pytest.raises(NoVariantError) as caught:
        select_layer(layer_problem(50, ()), shipped)
    fix = f"python -m generator build --contract {name} --out DIR"
    assert str(caught.value) == f"[no-variant] {name}: has no plan for this device; {fix}"
    with pytest.raises(NoVariantError) as caught:
        select_layer(layer_problem(50, ("sm_90",)), shipped)
    told = "is for portable; this device runs sm_90; name portable among the targets too"
    assert told in str(caught.value)


def test_a_refusal_names_what_helps(shipped: Manifest) -> None:
    """Of each kind of condition, and none that pads what is padded already."""
    build = f"python -m generator build --contract {UP} --out DIR"
    for asked, told in (
        (problem(50, k=192), f"{build} --target portable, whose variants take every padded length"),
        (problem(5_000_000), f"{build} --target portable, whose offsets are int64, or pass fewer"),
        (problem(2_000_000, k=64), "rows = 2000000 exceeds 1048576; pass fewer tokens at once"),
        (
            problem(50, k=16448),
            f"K = 16448 exceeds 16384; raise `limits.k` of the spec, then {build}",
        ),
        (
            problem(50, experts=2000),
            "raise `limits.experts` of the spec, and `block_n` of its route",
        ),
    ):
        with pytest.raises(NoVariantError) as caught:
            select(replace(asked, targets=("sm_90",)), shipped)
        assert told in str(caught.value)


def test_up_and_down_are_of_one_target(shipped: Manifest) -> None:
    """Rows of 192 are no whole turn of sm_90's designs: both GEMMs are the portable ones then."""
    name = "layer_w8gn_a8_swiglu_bf16_v1"
    chosen = select_layer(LayerProblem(name, "tokens", 50, 512, 192, 24, H200), shipped)
    assert {chosen[each].entry.target for each in ("up", "down")} == {"portable"}
