"""Every stage of every layer in the matrix equals the oracle, bit for bit, by every plan."""

from __future__ import annotations

import pytest
import torch

from generator.runtime.layer import LayerRun, run_rows, run_tokens
from generator.runtime.manifest import Manifest
from generator.runtime.pack import pack
from generator.verify.cases import Shape, least_shape
from generator.verify.inputs import seed_state, sorted_rows, tokens
from generator.verify.stages import Checked, check_stages, check_variants
from tests.runtime.matrix import axis_layers, group_layers, layer_names
from tests.shapes import tail_shape

PLANS = ("separate", "folded", "dispatched")


LEAST = Shape(3, 5, 2, 64, 64, tokens=5)  # with idle and remote experts


def assert_equal(checked: Checked) -> None:
    wrong = [each for each in check_stages(checked) if each.different]
    assert not wrong


def assert_plans_equal(
    name: str,
    shape: Shape,
    manifest: Manifest,
    device: torch.device,
    starts: tuple[str, ...],
) -> None:
    """Every plan from every start: equal to the oracle stage by stage, and to the others."""
    layer = manifest.layer(name)
    assert [plan.name for plan in layer.plans] == list(PLANS)
    packed = pack(seed_state(layer, shape, device, seed=1), layer)
    batch = tokens(layer, shape, device, seed=1)
    rows, counts = sorted_rows(batch, shape.experts)
    for start in starts:
        runs: list[LayerRun] = []
        for plan in PLANS if start == "tokens" else PLANS[:2]:  # dispatch needs ids
            if start == "tokens":
                run = run_tokens(
                    packed, batch.hidden, batch.ids, batch.weights, manifest, plan=plan
                )
                checked = Checked(
                    packed, layer, run, batch.hidden, ids=batch.ids, weights=batch.weights
                )
            else:
                run = run_rows(packed, rows, counts, manifest, plan=plan)
                checked = Checked(packed, layer, run, rows, counts=counts)
            assert run.choice.plan.name == plan
            assert 0 < checked.present < run.problem.rows
            assert_equal(checked)
            runs.append(run)
        bits = [each.out.view(torch.int16) for each in runs]
        assert all(torch.equal(bits[0], each) for each in bits[1:])


@pytest.mark.parametrize(
    "name", ["layer_w8g128_a8_swiglu_bf16_v1", "layer_w4g64_a8_swiglu_bf16_v1"]
)
def test_groups_with_a_short_last_one(built: Manifest, device: torch.device, name: str) -> None:
    """Whole layers that no group divides; tests/runtime/test_gemms.py has every group size."""
    layer = built.layer(name)
    assert_plans_equal(name, tail_shape(layer, tokens=4), built, device, ("tokens",))


@pytest.mark.parametrize("name", group_layers())
def test_the_least_shape(built: Manifest, device: torch.device, name: str) -> None:
    """H = I = 64: one group, short wherever a group is longer."""
    assert_plans_equal(name, LEAST, built, device, ("tokens",))


@pytest.mark.parametrize("name", [each for each in axis_layers() if each not in group_layers()])
def test_axes(built: Manifest, device: torch.device, name: str) -> None:
    assert_plans_equal(name, LEAST, built, device, ("tokens",))


@pytest.mark.parametrize(
    "name", [each for each in layer_names() if "away" not in each and "device" not in each]
)
def test_sorted_rows(built: Manifest, device: torch.device, name: str) -> None:
    """The other way in, by kernels that know neither rounding of the activation nor exp."""
    assert_plans_equal(name, LEAST, built, device, ("rows",))


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("layer_w8gn_a8_swiglu_bf16_v1", {"portable", "sm_80", "sm_90"}),
        ("layer_w8g128_a8_swiglu_bf16_v1", {"portable", "sm_80", "sm_90"}),
        ("layer_w4g128_a8_swiglu_bf16_v1", {"portable"}),  # the others are inline PTX
    ],
)
def test_every_variant_gives_the_same_bits(
    shipped: Manifest, device: torch.device, name: str, targets: set[str], plan: str
) -> None:
    """All that the interpreter runs. A plan that is dearer everywhere has portable ones alone."""
    layer = shipped.layer(name)
    least = least_shape(layer, shipped)
    shape = Shape(2, 3, 2, least.hidden, least.intermediate, tokens=6)
    packed = pack(seed_state(layer, shape, device, seed=2), layer)
    batch = tokens(layer, shape, device, seed=2)
    run = run_tokens(packed, batch.hidden, batch.ids, batch.weights, shipped, plan=plan)
    checked = Checked(packed, layer, run, batch.hidden, ids=batch.ids, weights=batch.weights)
    results = list(check_variants(checked, shipped))
    entries = [each for name in layer.plan(plan).tokens for each in shipped.by_contract[name]]
    assert len(results) == len([each for each in entries if not each.needs_gpu])
    if plan == "separate":
        assert {each.variant.split("/")[0] for each in results} == targets
    assert not [each for each in results if each.different]


SEEDS = [
    ("seed-small", "bf16", "int8"),
    ("seed-small", "fp16", "int4"),
    ("seed-large", "fp16", "int8"),
    ("seed-large", "bf16", "int4"),
]


def seed_layer(
    manifest: Manifest, device: torch.device, model: str, dtype: str, weights: str, count: int
) -> None:
    """Tokens are drawn from twice as many experts as are local."""
    facts = manifest.models[model]
    layer = next(
        each
        for each in (manifest.layers[name] for name in facts.layers)
        if (each.dtype, each.weights) == (dtype, weights)
    )
    assert facts.global_experts == 2 * facts.experts
    shape = Shape(
        facts.experts,
        facts.global_experts,
        facts.top_k,
        facts.hidden,
        facts.intermediate,
        count or facts.tokens[0],
    )
    packed = pack(seed_state(layer, shape, device, seed=3), layer)
    batch = tokens(layer, shape, device, seed=3)
    run = run_tokens(packed, batch.hidden, batch.ids, batch.weights, manifest)
    checked = Checked(packed, layer, run, batch.hidden, ids=batch.ids, weights=batch.weights)
    assert 0 < checked.present < run.problem.rows
    assert_equal(checked)


@pytest.mark.parametrize(("model", "dtype", "weights"), SEEDS)
def test_seed_layers(
    shipped: Manifest, device: torch.device, model: str, dtype: str, weights: str
) -> None:
    """Both test layers of the seed, with a few tokens."""
    seed_layer(shipped, device, model, dtype, weights, 3)


@pytest.mark.nightly
@pytest.mark.parametrize("model", ["seed-small", "seed-large"])
@pytest.mark.parametrize("weights", ["int8", "int4"])
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_whole_batches_of_seed_layers(
    shipped: Manifest, device: torch.device, model: str, dtype: str, weights: str
) -> None:
    seed_layer(shipped, device, model, dtype, weights, 0)
