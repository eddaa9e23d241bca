"""Every stage of every layer contract in the matrix equals the oracle, bit for bit."""

from __future__ import annotations

import pytest
import torch

from generator.runtime.layer import run_rows, run_tokens
from generator.runtime.manifest import Manifest
from generator.runtime.pack import pack
from generator.verify.cases import Shape, least_shape
from generator.verify.inputs import seed_state, sorted_rows, tokens
from generator.verify.stages import Checked, check_stages, check_variants
from tests.runtime.matrix import layer_names


def assert_equal(checked: Checked) -> None:
    wrong = [each for each in check_stages(checked) if each.different]
    assert not wrong


@pytest.mark.parametrize("name", layer_names())
@pytest.mark.parametrize("start", ["tokens", "rows"])
def test_stages_equal_the_oracle(
    built: Manifest, device: torch.device, name: str, start: str
) -> None:
    layer = built.layer(name)
    shape = least_shape(layer, built)
    packed = pack(seed_state(layer, shape, device, seed=1), layer)
    batch = tokens(layer, shape, device, seed=1)
    if start == "tokens":
        run = run_tokens(packed, batch.hidden, batch.ids, batch.weights, built)
        checked = Checked(packed, layer, run, batch.hidden, ids=batch.ids, weights=batch.weights)
    else:
        rows, counts = sorted_rows(batch, shape.experts)
        run = run_rows(packed, rows, counts, built)
        checked = Checked(packed, layer, run, rows, counts=counts)
    assert_equal(checked)


@pytest.mark.parametrize("name", ["layer_w8gn_a8_swiglu_bf16_v1", "layer_w8g128_a8_swiglu_bf16_v1"])
def test_every_variant_gives_the_same_bits(
    shipped: Manifest, device: torch.device, name: str
) -> None:
    layer = shipped.layer(name)
    shape = Shape(2, 3, 2, *_least(layer.name, shipped), tokens=12)
    packed = pack(seed_state(layer, shape, device, seed=2), layer)
    batch = tokens(layer, shape, device, seed=2)
    run = run_tokens(packed, batch.hidden, batch.ids, batch.weights, shipped)
    checked = Checked(packed, layer, run, batch.hidden, ids=batch.ids, weights=batch.weights)
    results = list(check_variants(checked, shipped))
    assert {each.variant.split("/")[0] for each in results} == {"portable", "sm_80", "sm_90"}
    assert not [each for each in results if each.different]


def _least(name: str, manifest: Manifest) -> tuple[int, int]:
    shape = least_shape(manifest.layer(name), manifest)
    return shape.hidden, shape.intermediate


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("model", ["seed-small", "seed-large"])
def test_seed_layers(shipped: Manifest, device: torch.device, model: str, dtype: str) -> None:
    """Both test layers of the seed, tokens drawn from twice as many experts as are local."""
    facts = shipped.models[model]
    layer = next(shipped.layers[n] for n in facts.layers if shipped.layers[n].dtype == dtype)
    assert facts.global_experts == 2 * facts.experts
    shape = Shape(
        facts.experts,
        facts.global_experts,
        facts.top_k,
        facts.hidden,
        facts.intermediate,
        facts.tokens[0],
    )
    packed = pack(seed_state(layer, shape, device, seed=3), layer)
    batch = tokens(layer, shape, device, seed=3)
    run = run_tokens(packed, batch.hidden, batch.ids, batch.weights, shipped)
    checked = Checked(packed, layer, run, batch.hidden, ids=batch.ids, weights=batch.weights)
    assert 0 < checked.present < run.problem.rows
    assert_equal(checked)
