"""Bytes, operations and floors, counted by hand."""

from __future__ import annotations

import pytest
import torch

from generator.runtime.manifest import load
from generator.tune.weights import random_experts
from generator.tune.work import INT8_CEILING_TOPS, Work, floor_us, mean, work_of
from tests.tune.small import CHANNEL, CPU, GROUPS, INT4, model


@pytest.mark.parametrize(
    ("layer", "expert"),
    [
        # up: 256 x 128 weights and their bf16 scales; down: 128 x 128 and theirs.
        (CHANNEL, 256 * 128 + 2 * 256 + 128 * 128 + 2 * 128),
        (GROUPS, 256 * 128 + 2 * 256 + 128 * 128 + 2 * 128),
        (INT4, 256 * 64 + 2 * 256 + 128 * 64 + 2 * 128),
    ],
)
def test_work_counts_the_experts_that_are_hit_once(layer: str, expert: int) -> None:
    packed = random_experts(model(layer), load().layers[layer], CPU, seed=0)
    # Experts 4 and 5 are remote: three rows of the experts 0 and 3.
    ids = torch.tensor([[0, 4], [3, 0], [5, 4]])
    assert work_of(packed, ids, element_size=2) == Work(
        rows=3,
        experts=2,
        weight_bytes=2 * expert,
        token_bytes=2 * 3 * 128 * 2,
        operations=2 * 3 * 3 * 128 * 128,
    )


def test_the_floor_is_the_slower_of_memory_and_products() -> None:
    by_memory = Work(1, 1, weight_bytes=4e6, token_bytes=5e5, operations=1e6)
    assert by_memory.bytes == 4.5e6 and by_memory.intensity == pytest.approx(1e6 / 4.5e6)
    assert floor_us(by_memory, read_tb_per_s=4.5) == pytest.approx(1.0)
    by_products = Work(1, 1, 4e6, 5e5, operations=INT8_CEILING_TOPS * 2e6)
    assert floor_us(by_products, read_tb_per_s=4.5) == pytest.approx(2.0)


def test_the_mean_is_by_field() -> None:
    assert mean([Work(1, 2, 3, 4, 5), Work(3, 4, 5, 6, 9)]) == Work(2, 3, 4, 5, 7)
