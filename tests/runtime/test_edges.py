"""Batches at the edge, rows that are not finite, and counts and ids that lie."""

from __future__ import annotations

import pytest
import torch

from generator.runtime.manifest import Manifest
from generator.verify.stages import Checked, check_stages
from tests.runtime.small import Small, small


@pytest.fixture
def layer(shipped: Manifest, device: torch.device) -> Small:
    return small(shipped, device)


def assert_equal(layer: Small, run: object, hidden: torch.Tensor, **inputs: torch.Tensor) -> None:
    checked = Checked(layer.packed, layer.layer, run, hidden, **inputs)
    assert not [each for each in check_stages(checked) if each.different]


def test_no_tokens(layer: Small) -> None:
    batch = layer.batch
    out = layer.tokens(hidden=batch.hidden[:0], ids=batch.ids[:0], weights=batch.weights[:0]).out
    assert out.shape == (0, 128) and out.dtype == torch.bfloat16


def test_no_rows(layer: Small) -> None:
    assert layer.rows(layer.batch.hidden[:0], [0, 0, 0, 0]).out.shape == (0, 128)


def test_no_choice_per_token_is_zero(layer: Small) -> None:
    batch = layer.batch
    ids, weights = batch.ids[:, :0].contiguous(), batch.weights[:, :0].contiguous()
    out = layer.tokens(ids=ids, weights=weights).out
    assert out.shape == (10, 128) and not out.any()


@pytest.mark.parametrize("count", [1, 31, 32, 33])
def test_one_hot_expert_around_the_row_tile(
    shipped: Manifest, device: torch.device, count: int
) -> None:
    """All tokens on one expert, the others empty, at BLOCK_M - 1, BLOCK_M and BLOCK_M + 1 rows."""
    layer = small(shipped, device, count=count, top_k=1)
    ids = torch.full_like(layer.batch.ids, 2)
    run = layer.tokens(ids=ids)
    assert run.choice.block_m == 32 or device.type == "cuda"
    batch = layer.batch
    assert_equal(layer, run, batch.hidden, ids=ids, weights=batch.weights)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_row_that_is_not_finite_is_nan_and_alone(layer: Small, bad: float) -> None:
    hidden = layer.batch.hidden.clone()
    hidden[3, 11] = bad
    run = layer.tokens(hidden=hidden)
    assert torch.isnan(run.out[3]).all()
    assert torch.isfinite(run.out[[t for t in range(10) if t != 3]]).all()
    batch = layer.batch
    assert_equal(layer, run, hidden, ids=batch.ids, weights=batch.weights)


def test_a_zero_row_has_scale_one(layer: Small) -> None:
    hidden = layer.batch.hidden.clone()
    hidden[0] = 0
    run = layer.tokens(hidden=hidden)
    rows = run.buffers["slot_row"][:2].long()
    assert run.buffers["hidden_scale"][rows].tolist() == [1.0, 1.0]
    assert not run.out[0].any()


def test_huge_activations_overflow_to_nan_rows(layer: Small) -> None:
    hidden = layer.batch.hidden.clone()
    hidden[1] = 3e38
    run = layer.tokens(hidden=hidden)
    batch = layer.batch
    assert torch.isnan(run.out[1]).all()
    assert_equal(layer, run, hidden, ids=batch.ids, weights=batch.weights)


@pytest.mark.parametrize(
    "counts",
    [
        [5, 0, 3, 2],
        [0, 0, 0, 0],
        [10, 0, 0, 0],
        [0, 0, 0, 10],
        [4, -3, 2, 1],
        [6, 9, 9, 9],
        [2**31 - 1, 2**31 - 1, 0, 1],
        [-(2**31), 3, 0, 0],
    ],
)
def test_counts_are_clamped_and_rows_past_them_are_zeros(layer: Small, counts: list[int]) -> None:
    hidden = layer.batch.hidden
    out = torch.full_like(hidden, float("nan"))
    run = layer.rows(hidden, counts, out=out)
    assert run.out is out
    left = 10
    for count in counts:
        left -= min(max(count, 0), left)
    assert not out[10 - left :].any()
    assert torch.isfinite(out).all()
    per_expert = torch.tensor(counts, dtype=torch.int32, device=hidden.device)
    assert_equal(layer, run, hidden, counts=per_expert)


def test_ids_out_of_range_add_nothing(layer: Small) -> None:
    batch = layer.batch
    ids = batch.ids.clone()
    ids[0] = torch.tensor([-1, 4])
    ids[1, 0], ids[2, 1] = 2**40, -(2**63)
    run = layer.tokens(ids=ids)
    assert not run.out[0].any()
    assert_equal(layer, run, batch.hidden, ids=ids, weights=batch.weights)


def test_int32_ids_give_the_bits_of_int64_ids(layer: Small) -> None:
    ids = layer.batch.ids.to(torch.int32)
    ids[4] = torch.tensor([-(2**31), 2**31 - 1])
    wide = layer.tokens(ids=ids.long()).out
    assert torch.equal(layer.tokens(ids=ids).out, wide)


def test_weights_may_be_zero_negative_and_nan(layer: Small) -> None:
    weights = layer.batch.weights.clone()
    weights[0], weights[1], weights[2, 0] = 0.0, -1.5, float("nan")
    run = layer.tokens(weights=weights)
    assert not run.out[0].any() and torch.isnan(run.out[2]).all()
    assert_equal(layer, run, layer.batch.hidden, ids=layer.batch.ids, weights=weights)


def test_one_token_chooses_every_expert(shipped: Manifest, device: torch.device) -> None:
    layer = small(shipped, device, top_k=4, count=3)
    batch = layer.batch
    assert_equal(layer, layer.tokens(), batch.hidden, ids=batch.ids, weights=batch.weights)
