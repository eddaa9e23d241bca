"""Random weights are what launches take, over the whole range; padding stays zero."""

from __future__ import annotations

import pytest
import torch

from generator.runtime.manifest import load
from generator.runtime.packed import check_packed
from generator.tune.weights import copies, expert_bytes, random_experts, total_bytes
from tests.tune.small import CHANNEL, CPU, INT4, model


@pytest.mark.parametrize("name", [CHANNEL, INT4])
def test_weights_are_packed_and_over_the_whole_range(name: str) -> None:
    layer = load().layers[name]
    packed = random_experts(model(name), layer, CPU, seed=0)
    check_packed(packed, layer)
    for weight in (packed.up_weight, packed.down_weight):
        assert torch.unique(weight).numel() == 256
    again, other = (random_experts(model(name), layer, CPU, seed) for seed in (0, 1))
    assert torch.equal(packed.up_weight, again.up_weight)
    assert not torch.equal(packed.up_weight, other.up_weight)


def test_a_length_that_is_padded_is_padded_with_zeros() -> None:
    layer = load().layers[CHANNEL]
    packed = random_experts(model(intermediate=80), layer, CPU, seed=0)
    check_packed(packed, layer)
    assert packed.down_weight.shape == (4, 128, 128)
    assert int(packed.down_weight[:, :, 80:].abs().sum()) == 0
    assert int(packed.down_weight[:, :, :80].abs().sum()) > 0


def test_copies_hold_the_same_at_other_places() -> None:
    packed = random_experts(model(), load().layers[CHANNEL], CPU, seed=0)
    every = copies(packed, 3)
    assert every[0] is packed
    places = {each.data_ptr() for one in every for each in one.tensors().values()}
    assert len(places) == 3 * len(packed.tensors())
    for one in every[1:]:
        for name, value in one.tensors().items():
            assert torch.equal(value, packed.tensors()[name])


def test_bytes_of_experts_and_of_all() -> None:
    packed = random_experts(model(), load().layers[CHANNEL], CPU, seed=0)
    smooth = 4 * (128 + 128)  # fp32, of H and of I
    assert total_bytes(packed) == 4 * (expert_bytes(packed) + smooth)
