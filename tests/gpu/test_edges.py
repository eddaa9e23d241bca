"""Batches at the edge, on the GPU, through every variant that accepts them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from generator.runtime import launch, reference
from generator.runtime.device import current, runs
from generator.runtime.layer import LayerRun, run_rows, run_tokens
from generator.runtime.manifest import Layer, Manifest
from generator.runtime.pack import pack
from generator.runtime.packed import PackedExperts
from generator.runtime.workspace import torch_dtype
from generator.verify.cases import Shape, least_shape
from generator.verify.compare import differing_bits
from generator.verify.inputs import Tokens, seed_state, tokens
from generator.verify.stages import Checked, check_stages, check_variants
from tests.runtime.gemms import operands

pytestmark = pytest.mark.gpu

EDGES = sorted({block + step for block in (16, 32, 64, 128) for step in (-1, 0, 1)} | {1, 300})


@pytest.fixture
def layer(edge_layer: str, manifest: Manifest) -> Layer:
    return manifest.layer(edge_layer)


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
    packed: PackedExperts,
    layer: Layer,
    batch: Tokens,
    manifest: Manifest,
    plan: str | None = None,
) -> tuple[LayerRun, Checked]:
    done = run_tokens(packed, batch.hidden, batch.ids, batch.weights, manifest, plan=plan)
    return done, Checked(packed, layer, done, batch.hidden, ids=batch.ids, weights=batch.weights)


def assert_plans_equal(
    packed: PackedExperts, layer: Layer, batch: Tokens, manifest: Manifest
) -> torch.Tensor:
    """Every stage and variant of every plan, and one result."""
    results = []
    for plan in layer.plans:
        done, checked = run(packed, layer, batch, manifest, plan.name)
        assert done.choice.plan == plan
        assert_equal(checked, manifest)
        results.append(done.out)
    assert all(torch.equal(bits(each), bits(results[0])) for each in results)
    return results[0]


def bits(out: torch.Tensor) -> torch.Tensor:
    return out.view(torch.int16)


@pytest.mark.parametrize("count", EDGES)
def test_one_hot_expert_around_every_row_tile(layer: Layer, manifest: Manifest, count: int) -> None:
    packed, batch = weights_and_batch(layer, manifest, count)
    batch.ids[:, 0], batch.ids[:, 1] = 3, -1
    assert_plans_equal(packed, layer, batch, manifest)


def test_rows_that_are_not_finite_stay_alone(layer: Layer, manifest: Manifest) -> None:
    packed, batch = weights_and_batch(layer, manifest, 40)
    batch.ids.remainder_(4)
    clean = run(packed, layer, batch, manifest)[0].out.clone()
    for row, bad in ((3, float("nan")), (17, float("inf")), (39, float("-inf"))):
        batch.hidden[row, 5] = bad
    out = assert_plans_equal(packed, layer, batch, manifest)
    others = [row for row in range(40) if row not in (3, 17, 39)]
    assert torch.isnan(out[[3, 17, 39]]).all()
    assert torch.equal(out[others], clean[others])


def test_no_tokens(layer: Layer, manifest: Manifest) -> None:
    packed, batch = weights_and_batch(layer, manifest, 1)
    empty = Tokens(batch.hidden[:0], batch.ids[:0], batch.weights[:0])
    assert run(packed, layer, empty, manifest)[0].out.shape[0] == 0


@pytest.mark.parametrize("counts", [[0, 0, 0, 0], [7, -1, 0, 9], [2**31 - 1, 5, 5, 5]])
def test_counts_that_lie(layer: Layer, manifest: Manifest, counts: list[int]) -> None:
    packed, batch = weights_and_batch(layer, manifest, 50)
    per_expert = torch.tensor(counts, dtype=torch.int32, device="cuda")
    for plan in layer.plans:
        done = run_rows(packed, batch.hidden, per_expert, manifest, plan=plan.name)
        checked = Checked(packed, layer, done, batch.hidden, counts=per_expert)
        assert_equal(checked, manifest)


@pytest.mark.parametrize("routing", ["twice", "half_idle", "anywhere", "none"])
def test_ids_that_lie_or_repeat(layer: Layer, manifest: Manifest, routing: str) -> None:
    packed, batch = weights_and_batch(layer, manifest, 50)
    ids, out_of_range = batch.ids, torch.tensor([-1, 4, 2**40, -(2**63), 2**63 - 1, 3])
    match routing:
        case "twice":
            ids[:, 1] = ids[:, 0]
        case "half_idle":
            ids.copy_(ids % 2 * 2)
        case "anywhere":
            ids.copy_(out_of_range.cuda()[torch.arange(100, device="cuda") % 6].view(50, 2))
        case "none":
            ids.fill_(4)
    out = assert_plans_equal(packed, layer, batch, manifest)
    assert out.any() == (routing != "none")


def test_weights_of_slots(layer: Layer, manifest: Manifest) -> None:
    packed, batch = weights_and_batch(layer, manifest, 40)
    batch.ids.remainder_(4)
    batch.weights[0], batch.weights[1], batch.weights[2, 0] = 0.0, -1.5, float("nan")
    batch.ids[3, 1], batch.weights[3, 1] = -1, float("nan")
    out = assert_plans_equal(packed, layer, batch, manifest)
    assert not out[0].any() and torch.isnan(out[2]).all() and torch.isfinite(out[3]).all()


@pytest.mark.parametrize("sizes", [(64, 64, 1, 1), (64, 1, 1, 1), (2, 3, 4, 4), (90, 200, 3, 17)])
def test_least_and_padded_sizes(
    layer: Layer, manifest: Manifest, sizes: tuple[int, int, int, int]
) -> None:
    """(H, I, experts = top_k, tokens)"""
    hidden, intermediate, experts, count = sizes
    shape = Shape(experts, experts, experts, hidden, intermediate, count)
    device = torch.device("cuda")
    packed = pack(seed_state(layer, shape, device, seed=13), layer)
    batch = tokens(layer, shape, device, seed=13)
    assert assert_plans_equal(packed, layer, batch, manifest).shape == (count, hidden)


def test_weights_past_two_gigabytes(layer: Layer, manifest: Manifest) -> None:
    """The last expert's weights start past 2**31 bytes: experts are 64 bits apart."""
    experts = {"int8": 24, "int4": 48}[layer.weights]
    shape = Shape(experts, experts, 1, 4096, 14336, 33)
    device = torch.device("cuda")
    packed = pack(seed_state(layer, shape, device, seed=12), layer)
    assert (experts - 1) * packed.up_weight[0].numel() > 2**31
    batch = tokens(layer, shape, device, seed=12)
    batch.ids.fill_(experts - 1)
    assert_plans_equal(packed, layer, batch, manifest)


@pytest.mark.parametrize("plan", ["separate", "folded"])
@pytest.mark.parametrize("operation", ["up", "down"])
def test_rows_past_two_gigabytes(
    layer: Layer, manifest: Manifest, operation: str, plan: str
) -> None:
    """Modules with 64-bit row offsets, on the last rows of tensors of that size; what lies where a
    32-bit offset would lead is not what they read.
    """
    k, n, first, device = 4096, 128, 2**31 // 4096 + 32, torch.device("cuda")
    group = layer.up_group if operation == "up" else layer.down_group
    given = operands(layer, group, k, 2 * n if operation == "up" else n, device, rows=40)

    def far(value: torch.Tensor) -> torch.Tensor:
        room = torch.zeros(first + 40, *value.shape[1:], dtype=value.dtype, device=device)
        room[first:] = value
        return room

    name = next(
        each for each in layer.plan(plan).rows if manifest.contracts[each]["operation"] == operation
    )
    wide = [
        entry
        for entry in manifest.by_contract[name]
        if ("_wide" in entry.design or entry.programs)
        and runs(entry, manifest.targets[entry.target], device)
    ]
    assert wide
    dtype, stored = torch_dtype(layer.dtype), (given.stored, given.weight_scale)
    random = torch.Generator(device).manual_seed(14)
    reads_activation = operation == "down" and plan == "folded"
    smooth = torch.rand(2, k if reads_activation else n, device=device, generator=random) + 0.5
    if reads_activation:
        a = torch.randn(40, k, device=device, generator=random)
        a = a.to(torch_dtype(layer.intermediate))
        amax = reference.amax_bits(a, smooth, given.row_expert)
        codes, scale = reference.quantize(a, smooth, given.row_expert, layer.rounding)
        given = replace(given, codes=codes, scale=scale)
        inputs = (far(a), smooth)
    else:
        amax = torch.zeros(40, dtype=torch.int32, device=device)
        inputs = (far(given.codes), far(given.scale))
    want = given.sums.to(dtype)
    if operation == "up":
        table = reference.exp_table(dtype, device)
        want = reference.swiglu(given.sums, dtype, torch_dtype(layer.intermediate), table)
    for entry in wide:
        row_amax = far(amax)
        out = torch.full((first + 40, n), 77.0, dtype=want.dtype, device=device)
        tiles = given.tiles(entry.rows_per_program, shift=first) | {"row_amax": row_amax}
        with current(device):
            if reads_activation:
                launch.gemm_of_activation(entry, *inputs, *stored, tiles, out)
            else:
                folds = smooth if plan == "folded" else None
                launch.gemm(entry, *inputs, *stored, tiles, out, inv_smooth=folds)
        assert differing_bits(out[first:], want) == 0, entry.name
        assert (out[:first] == 77.0).all(), entry.name
        if operation == "up" and plan == "folded":
            assert torch.equal(
                row_amax[first:], reference.amax_bits(want, smooth, given.row_expert)
            )


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
