"""A row's bits depend on that row, its experts and the weights alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from generator.runtime.manifest import Manifest
from tests.runtime.small import Small, small

LAYERS = {
    "folded": "layer_w8gn_a8_swiglu_bf16_v1",
    "separate": "layer_w4g128_a8_swiglu_bf16_v1",
    "dispatched": "layer_w8gn_a8_swiglu_bf16_v1",
}


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest, shipped: Manifest, device: torch.device) -> Small:
    """Each plan once: tests/runtime/test_layers.py shows that they give the same bits."""
    plan = request.param
    return small(shipped, device, name=LAYERS[plan], plan=plan, hidden=64, intermediate=64)


def part(layer: Small, chosen: torch.Tensor) -> torch.Tensor:
    """The result of a batch made of some of the tokens, in that order."""
    batch = layer.batch
    return layer.tokens(
        hidden=batch.hidden[chosen].contiguous(),
        ids=batch.ids[chosen].contiguous(),
        weights=batch.weights[chosen].contiguous(),
    ).out


def test_a_token_alone_equals_the_token_in_a_batch(layer: Small) -> None:
    whole = layer.tokens().out
    for token in (0, 3, 9):
        assert torch.equal(part(layer, torch.tensor([token])), whole[token : token + 1])


def test_permuted_tokens_give_permuted_results(layer: Small) -> None:
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(part(layer, order), layer.tokens().out[order])


def test_other_loads_change_nothing(layer: Small) -> None:
    """The same token beside 40 others that all choose its experts."""
    batch, whole = layer.batch, layer.tokens().out
    crowd = torch.cat([torch.zeros(1, dtype=torch.long), torch.arange(1, 10).repeat(5)])
    ids = batch.ids[crowd].contiguous()
    ids[1:] = batch.ids[0]
    crowded = layer.tokens(
        hidden=batch.hidden[crowd].contiguous(),
        ids=ids,
        weights=batch.weights[crowd].contiguous(),
    ).out
    assert torch.equal(crowded[0], whole[0])


def test_neighbours_with_nan_and_inf_change_nothing(layer: Small) -> None:
    whole, hidden = layer.tokens().out, layer.batch.hidden.clone()
    hidden[2, 5], hidden[4, 7] = float("nan"), float("inf")
    spoiled = layer.tokens(hidden=hidden).out
    clean = [token for token in range(10) if token not in (2, 4)]
    assert torch.isnan(spoiled[[2, 4]]).all()
    assert torch.equal(spoiled[clean], whole[clean])


@pytest.mark.parametrize("name", [LAYERS["folded"], "layer_w8g128_a8_swiglu_bf16_v1"])
def test_every_target_gives_the_same_bits(
    shipped: Manifest, device: torch.device, name: str
) -> None:
    """Of layers that the interpreter runs on all: int4 has inline PTX on sm_80 and sm_90."""
    layer = small(shipped, device, name=name, hidden=256, intermediate=256, count=3)
    results = [
        layer.tokens(targets=targets, plan="separate")
        for targets in (("portable",), ("sm_80", "portable"), ("sm_90", "portable"))
    ]
    designs = {each.choice["up"].entry.symbol for each in results}
    assert len(designs) == 3
    assert torch.equal(results[0].out, results[1].out)
    assert torch.equal(results[0].out, results[2].out)


def test_an_expert_parallel_slice_gives_the_rows_of_the_whole(layer: Small) -> None:
    """Each rank's expert outputs, slot by slot, are those of all experts on one device."""
    whole = layer.tokens()
    rows = whole.buffers["slot_row"].long()
    want = whole.buffers["expert_output"][rows]
    seen = torch.zeros(rows.numel(), dtype=torch.bool)
    for first in (0, 2):
        own = {
            name: each[first : first + 2].contiguous()
            for name, each in layer.packed.tensors().items()
        }
        rank = layer.tokens(packed=replace(layer.packed, experts=2, **own), first_expert=first)
        row = rank.buffers["slot_row"].long()
        present = (row >= 0).cpu()
        assert torch.equal(rank.buffers["expert_output"][row[present]], want[present])
        seen |= present
    assert seen.all()


def test_the_same_call_twice_gives_the_same_bits(layer: Small) -> None:
    assert torch.equal(layer.tokens().out, layer.tokens().out)


def test_sorted_rows_and_tokens_agree(layer: Small) -> None:
    whole = layer.tokens()
    slots = whole.buffers["row_slot"].long()
    counts = torch.bincount(layer.batch.ids.reshape(-1), minlength=4).tolist()
    rows = layer.rows(layer.batch.hidden[slots // 2].contiguous(), counts)
    assert torch.equal(rows.out, whole.buffers["expert_output"])
