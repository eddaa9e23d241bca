"""Batches at the edge, rows that are not finite, and counts and ids that lie."""

from __future__ import annotations

import pytest
import torch

from generator.runtime.manifest import Manifest
from generator.runtime.workspace import torch_dtype
from generator.verify.stages import Checked, check_stages
from tests.runtime.small import Small, small

INT8, INT4 = "layer_w8g128_a8_swiglu_bf16_v1", "layer_w4g128_a8_swiglu_bf16_v1"
KINDS = [(name, plan) for name in (INT8, INT4) for plan in ("separate", "folded")]
SIZES = {"hidden": 64, "intermediate": 64}


@pytest.fixture(params=KINDS, ids=["int8", "int8-folded", "int4", "int4-folded"])
def kind(request: pytest.FixtureRequest) -> dict[str, str]:
    name, plan = request.param
    return {"name": name, "plan": plan}


@pytest.fixture
def layer(shipped: Manifest, device: torch.device, kind: dict[str, str]) -> Small:
    return small(shipped, device, **SIZES, **kind)


def assert_equal(layer: Small, run: object, hidden: torch.Tensor, **inputs: torch.Tensor) -> None:
    checked = Checked(layer.packed, layer.layer, run, hidden, **inputs)
    assert not [each for each in check_stages(checked) if each.different]


def assert_tokens_equal(layer: Small, **changes: torch.Tensor) -> torch.Tensor:
    """Run with some inputs replaced, and compare every stage."""
    batch = layer.batch
    inputs = {"hidden": batch.hidden, "ids": batch.ids, "weights": batch.weights} | changes
    run = layer.tokens(**inputs)
    assert_equal(layer, run, **inputs)
    return run.out


def test_no_tokens(layer: Small) -> None:
    batch = layer.batch
    out = layer.tokens(hidden=batch.hidden[:0], ids=batch.ids[:0], weights=batch.weights[:0]).out
    assert out.shape == (0, 64) and out.dtype == torch.bfloat16


def test_no_rows(layer: Small) -> None:
    assert layer.rows(layer.batch.hidden[:0], [0, 0, 0, 0]).out.shape == (0, 64)


def test_no_choice_per_token_is_zero(layer: Small) -> None:
    batch = layer.batch
    ids, weights = batch.ids[:, :0].contiguous(), batch.weights[:, :0].contiguous()
    out = layer.tokens(ids=ids, weights=weights).out
    assert out.shape == (10, 64) and not out.any()


@pytest.mark.parametrize("count", [1, 31, 32, 33])
def test_one_hot_expert_around_the_row_tile(
    shipped: Manifest, device: torch.device, kind: dict[str, str], count: int
) -> None:
    """All tokens on one expert, the others empty, at BLOCK_M - 1, BLOCK_M and BLOCK_M + 1 rows."""
    layer = small(shipped, device, count=count, top_k=1, **SIZES, **kind)
    ids = torch.full_like(layer.batch.ids, 2)
    run = layer.tokens(ids=ids)
    assert run.choice.block_m == 32 or device.type == "cuda"
    batch = layer.batch
    assert_equal(layer, run, batch.hidden, ids=ids, weights=batch.weights)


@pytest.mark.parametrize("hidden", [2, 64])
@pytest.mark.parametrize("intermediate", [1, 64])
def test_one_row_of_the_least_sizes(
    shipped: Manifest, device: torch.device, kind: dict[str, str], hidden: int, intermediate: int
) -> None:
    """One token, one expert, one row; kernels see N = K = 64 however little of it is there."""
    layer = small(
        shipped,
        device,
        experts=1,
        global_experts=1,
        top_k=1,
        count=1,
        hidden=hidden,
        intermediate=intermediate,
        **kind,
    )
    run = layer.tokens()
    assert (run.problem.rows, run.problem.hidden, run.problem.intermediate) == (1, 64, 64)
    assert run.out.shape == (1, hidden) and run.out.any()
    assert not run.buffers["activation"][:, intermediate:].any()
    assert_tokens_equal(layer)


def test_a_hidden_size_of_one(shipped: Manifest, device: torch.device) -> None:
    """int8 weights have no pairs of rows, so H may be odd."""
    layer = small(shipped, device, name=INT8, hidden=1, intermediate=3, count=4)
    assert assert_tokens_equal(layer).shape == (4, 1)


@pytest.mark.parametrize(("hidden", "intermediate"), [(66, 130), (176, 360), (130, 63)])
def test_padding_changes_no_bit(
    shipped: Manifest, device: torch.device, kind: dict[str, str], hidden: int, intermediate: int
) -> None:
    """The padded columns of the output are cut off, and nothing else differs from the oracle."""
    layer = small(
        shipped, device, hidden=hidden, intermediate=intermediate, experts=2, count=3, **kind
    )
    run = layer.tokens()
    wide = run.buffers["output_wide"] if hidden % 64 else run.out
    assert wide.shape[1] % 64 == 0 and torch.equal(run.out, wide[:, :hidden])
    assert not wide[:, hidden:].any()
    assert_tokens_equal(layer)
    rows = layer.batch.hidden
    run = layer.rows(rows, [1, 1])
    counts = torch.tensor([1, 1], dtype=torch.int32, device=device)
    assert run.out.shape == (3, hidden) and not run.out[2].any()
    assert_equal(layer, run, rows, counts=counts)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_row_that_is_not_finite_is_nan_and_alone(layer: Small, bad: float) -> None:
    hidden = layer.batch.hidden.clone()
    hidden[3, 11] = bad
    out = assert_tokens_equal(layer, hidden=hidden)
    assert torch.isnan(out[3]).all()
    assert torch.isfinite(out[[t for t in range(10) if t != 3]]).all()


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
    assert torch.isnan(assert_tokens_equal(layer, hidden=hidden)[1]).all()


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
    ids = layer.batch.ids.clone()
    ids[0] = torch.tensor([-1, 4])
    ids[1, 0], ids[2, 1] = 2**40, -(2**63)
    assert not assert_tokens_equal(layer, ids=ids)[0].any()


def test_no_id_in_range_at_all(layer: Small) -> None:
    """Every expert is idle: no row is computed, and every token is an exact zero."""
    run = layer.tokens(ids=torch.full_like(layer.batch.ids, 4))
    assert (run.buffers["row_expert"] == -1).all() and not run.out.any()


def test_int32_ids_give_the_bits_of_int64_ids(layer: Small) -> None:
    ids = layer.batch.ids.to(torch.int32)
    ids[4] = torch.tensor([-(2**31), 2**31 - 1])
    wide = layer.tokens(ids=ids.long()).out
    assert torch.equal(layer.tokens(ids=ids).out, wide)


def test_a_token_may_choose_an_expert_twice(layer: Small) -> None:
    """Two slots are two rows with the same bits, and either weight counts."""
    ids = layer.batch.ids.clone()
    ids[:] = ids[:, :1]
    out = assert_tokens_equal(layer, ids=ids)
    run = layer.tokens(ids=ids)
    first, second = run.buffers["slot_row"].view(10, 2).long().unbind(1)
    rows = run.buffers["expert_output"]
    assert (first != second).all() and torch.equal(rows[first], rows[second])
    assert out.any(dim=1).all()


def test_half_of_the_experts_are_idle(layer: Small) -> None:
    ids = layer.batch.ids // 2 * 2
    assert set(ids.flatten().tolist()) == {0, 2}
    assert_tokens_equal(layer, ids=ids)


def test_weights_may_be_zero_negative_and_nan(layer: Small) -> None:
    weights = layer.batch.weights.clone()
    weights[0], weights[1], weights[2, 0] = 0.0, -1.5, float("nan")
    out = assert_tokens_equal(layer, weights=weights)
    assert not out[0].any() and torch.isnan(out[2]).all()


def test_weights_may_be_infinite(layer: Small) -> None:
    weights = layer.batch.weights.clone()
    weights[0, 0] = float("inf")
    out = assert_tokens_equal(layer, weights=weights)
    assert not torch.isfinite(out[0]).any() and torch.isfinite(out[1:]).all()


def test_the_weight_of_an_absent_slot_is_never_read(layer: Small) -> None:
    """Absent slots are skipped, not multiplied by 0: a NaN there does not spread."""
    ids, weights = layer.batch.ids.clone(), layer.batch.weights.clone()
    ids[:, 1], weights[:, 1] = -1, float("nan")
    assert torch.isfinite(assert_tokens_equal(layer, ids=ids, weights=weights)).all()


@pytest.mark.parametrize("top_k", [1, 4])
def test_one_choice_and_every_expert(
    shipped: Manifest, device: torch.device, kind: dict[str, str], top_k: int
) -> None:
    layer = small(shipped, device, top_k=top_k, count=3, **SIZES, **kind)
    assert_tokens_equal(layer)


def test_more_choices_than_experts(
    shipped: Manifest, device: torch.device, kind: dict[str, str]
) -> None:
    """An expert-parallel rank owns fewer experts than a token chooses."""
    layer = small(shipped, device, experts=1, global_experts=6, top_k=5, count=4, **SIZES, **kind)
    assert_tokens_equal(layer)


def test_extreme_codes_and_weights(layer: Small) -> None:
    """All codes 127 or -127, and all weights at their least: the greatest sums there are."""
    hidden = torch.where(layer.batch.hidden > 0, 3.0, -3.0).to(torch_dtype(layer.layer.dtype))
    hidden[0] = 3.0
    for value in (layer.packed.up_inv_smooth, layer.packed.down_inv_smooth):
        value.fill_(1.0)
    lowest = {"int8": -128, "int4": -120}[layer.layer.weights]  # -120 is -8 in either nibble
    for value in (layer.packed.up_weight, layer.packed.down_weight):
        value.fill_(lowest)
    run = layer.tokens(hidden=hidden)
    assert set(run.buffers["hidden_codes"].abs().flatten().tolist()) == {127}
    assert_tokens_equal(layer, hidden=hidden)
