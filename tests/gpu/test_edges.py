"""Batches at the edge, on the GPU, through every variant that accepts them."""

from __future__ import annotations

import pytest
import torch

from generator.runtime.layer import LayerRun, run_rows, run_tokens
from generator.runtime.manifest import Layer, Manifest
from generator.runtime.pack import PackedExperts, pack
from generator.verify.cases import Shape, least_shape
from generator.verify.inputs import Tokens, seed_state, tokens
from generator.verify.stages import Checked, check_stages, check_variants

pytestmark = pytest.mark.gpu

EDGES = sorted({block + step for block in (16, 32, 64, 128) for step in (-1, 0, 1)} | {1, 300})


@pytest.fixture(scope="module")
def layer(manifest: Manifest) -> Layer:
    return next(iter(manifest.layers.values()))


def weights_and_batch(layer: Layer, manifest: Manifest, count: int) -> tuple[PackedExperts, Tokens]:
    least = least_shape(layer, manifest)
    shape = Shape(4, 6, 2, least.hidden, least.intermediate, count)
    device = torch.device("cuda")
    packed = pack(seed_state(layer, shape, device, seed=11), layer)
    return packed, tokens(layer, shape, device, seed=11)


def assert_equal(checked: Checked, manifest: Manifest) -> None:
    results = [*check_stages(checked), *check_variants(checked, manifest)]
    assert not [each for each in results if each.different]


def run(
    packed: PackedExperts, layer: Layer, batch: Tokens, manifest: Manifest
) -> tuple[LayerRun, Checked]:
    done = run_tokens(packed, batch.hidden, batch.ids, batch.weights, manifest)
    return done, Checked(packed, layer, done, batch.hidden, ids=batch.ids, weights=batch.weights)


@pytest.mark.parametrize("count", EDGES)
def test_one_hot_expert_around_every_row_tile(layer: Layer, manifest: Manifest, count: int) -> None:
    packed, batch = weights_and_batch(layer, manifest, count)
    batch.ids[:, 0], batch.ids[:, 1] = 3, -1
    assert_equal(run(packed, layer, batch, manifest)[1], manifest)


def test_rows_that_are_not_finite_stay_alone(layer: Layer, manifest: Manifest) -> None:
    packed, batch = weights_and_batch(layer, manifest, 40)
    batch.ids.remainder_(4)
    clean = run(packed, layer, batch, manifest)[0].out.clone()
    for row, bad in ((3, float("nan")), (17, float("inf")), (39, float("-inf"))):
        batch.hidden[row, 5] = bad
    done, checked = run(packed, layer, batch, manifest)
    assert_equal(checked, manifest)
    others = [row for row in range(40) if row not in (3, 17, 39)]
    assert torch.isnan(done.out[[3, 17, 39]]).all()
    assert torch.equal(done.out[others], clean[others])


def test_no_tokens(layer: Layer, manifest: Manifest) -> None:
    packed, batch = weights_and_batch(layer, manifest, 1)
    empty = Tokens(batch.hidden[:0], batch.ids[:0], batch.weights[:0])
    assert run(packed, layer, empty, manifest)[0].out.shape[0] == 0


@pytest.mark.parametrize("counts", [[0, 0, 0, 0], [7, -1, 0, 9], [2**31 - 1, 5, 5, 5]])
def test_counts_that_lie(layer: Layer, manifest: Manifest, counts: list[int]) -> None:
    packed, batch = weights_and_batch(layer, manifest, 50)
    per_expert = torch.tensor(counts, dtype=torch.int32, device="cuda")
    done = run_rows(packed, batch.hidden, per_expert, manifest)
    checked = Checked(packed, layer, done, batch.hidden, counts=per_expert)
    assert_equal(checked, manifest)


def test_weights_past_two_gigabytes(layer: Layer, manifest: Manifest) -> None:
    """The last expert's weights start past 2**31 elements: experts are 64 bits apart."""
    shape = Shape(24, 24, 1, 4096, 14336, 33)
    device = torch.device("cuda")
    packed = pack(seed_state(layer, shape, device, seed=12), layer)
    assert 23 * packed.up_weight[0].numel() > 2**31
    batch = tokens(layer, shape, device, seed=12)
    batch.ids.fill_(23)
    assert_equal(run(packed, layer, batch, manifest)[1], manifest)


def test_sliced_ids_and_weights_compile_nothing_new(layer: Layer, manifest: Manifest) -> None:
    """Callers slice ids and weights at any element; only the id type chooses another compile."""
    packed, batch = weights_and_batch(layer, manifest, 20)
    want = run(packed, layer, batch, manifest)[0].out
    names = {name for plan in layer.plans for name in plan.tokens}
    used = [e for e in manifest.entries if e.contract in names and "module" in vars(e)]
    before = {e.symbol: [len(cache) for cache, *_ in e.kernel.device_caches.values()] for e in used}
    for first in (1, 2, 3, 5):
        part = Tokens(batch.hidden[first:], batch.ids[first:], batch.weights[first:])
        assert torch.equal(run(packed, layer, part, manifest)[0].out, want[first:])
    after = {e.symbol: [len(cache) for cache, *_ in e.kernel.device_caches.values()] for e in used}
    assert before == after
