"""The oracle's rows of a sample are the layer's, to the bit, and a wrong bit shows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from generator.runtime.manifest import load
from generator.tune.sampled import MOST_TOKENS, expected, sample
from generator.verify.compare import differing_bits
from tests.tune.small import CHANNEL, CPU, GROUPS, INT4, prepared


@pytest.mark.parametrize("routing", ["uniform", "zipf", "one-hot", "half-empty"])
@pytest.mark.parametrize("name", [CHANNEL, GROUPS, INT4])
def test_a_sample_equals_the_rows_of_the_whole_call(name: str, routing: str) -> None:
    call = prepared(load(), name, tokens=7, routing=routing)
    call.run(0)
    chosen = torch.tensor([0, 3, 6])
    want = expected(call.copies[0], call.layer, call.tokens[0], chosen)
    assert want.abs().max() > 0
    assert differing_bits(call.outs[0][chosen], want) == 0


def test_padded_sizes_are_sampled_too() -> None:
    call = prepared(load(), hidden=80, intermediate=80)
    call.run(0)
    want = expected(call.copies[0], call.layer, call.tokens[0], torch.arange(5))
    assert differing_bits(call.outs[0], want) == 0


def test_tokens_without_local_expert_are_zero() -> None:
    call = prepared(load(), tokens=1)
    given = call.tokens[0]
    remote = replace(given, ids=torch.tensor([[4, 5]]))
    assert int(expected(call.copies[0], call.layer, remote, torch.arange(1)).abs().sum()) == 0


@pytest.mark.parametrize("field", ["up_weight", "up_scale", "down_weight", "down_inv_smooth"])
def test_another_weight_is_another_result(field: str) -> None:
    call = prepared(load(), GROUPS)
    call.run(0)
    packed = call.copies[0]
    changed = replace(packed, **{field: getattr(packed, field).flip(-1)})
    want = expected(changed, call.layer, call.tokens[0], torch.arange(5))
    assert differing_bits(call.outs[0], want) > 0


def test_a_sample_is_sorted_distinct_and_bounded() -> None:
    assert sample(5, CPU, seed=0).tolist() == [0, 1, 2, 3, 4]
    many = sample(1000, CPU, seed=0)
    assert many.numel() == MOST_TOKENS and bool((many.diff() > 0).all())
    assert not torch.equal(many, sample(1000, CPU, seed=1))
