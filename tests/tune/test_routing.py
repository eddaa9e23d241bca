"""Every routing draws what its name says, and the same for the same seed."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from generator import arguments
from generator.spec.values import Routing
from generator.tune.routing import ROUTINGS, draw, refusal

TOKENS, TOP_K, EXPERTS = 4000, 3, 8


def drawn(routing: str, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return draw(routing, tokens=TOKENS, top_k=TOP_K, experts=EXPERTS, random=random)


def shares(routing: str) -> torch.Tensor:
    """Of the slots, by expert."""
    ids, _ = drawn(routing)
    return torch.bincount(ids.reshape(-1), minlength=EXPERTS) / ids.numel()


@pytest.mark.parametrize("routing", ROUTINGS)
def test_every_token_has_distinct_experts_and_weights_that_sum_to_one(routing: str) -> None:
    ids, weights = drawn(routing)
    assert (ids.shape, ids.dtype) == ((TOKENS, TOP_K), torch.int64)
    assert (weights.shape, weights.dtype) == ((TOKENS, TOP_K), torch.float32)
    assert int(ids.min()) >= 0 and int(ids.max()) < EXPERTS
    assert bool((ids.sort(dim=1).values.diff(dim=1) > 0).all())
    assert torch.allclose(weights.sum(1), torch.ones(TOKENS)) and bool((weights > 0).all())


@pytest.mark.parametrize("routing", ROUTINGS)
def test_a_seed_fixes_the_draw(routing: str) -> None:
    (ids, weights), (again, weights_again), (other, _) = (drawn(routing, s) for s in (0, 0, 1))
    assert torch.equal(ids, again) and torch.equal(weights, weights_again)
    assert not torch.equal(ids, other)


def test_uniform_hits_all_experts_alike() -> None:
    assert torch.allclose(shares("uniform"), torch.full((EXPERTS,), 1 / EXPERTS), atol=0.01)


def test_zipf_follows_the_rank() -> None:
    random = torch.Generator().manual_seed(0)
    ids, _ = draw("zipf", tokens=20000, top_k=1, experts=EXPERTS, random=random)
    found = torch.bincount(ids.reshape(-1), minlength=EXPERTS) / ids.numel()
    popularity = 1 / torch.arange(1, EXPERTS + 1)
    assert torch.allclose(found, popularity / popularity.sum(), atol=0.015)


def test_one_hot_has_expert_0_in_every_token_and_the_rest_alike() -> None:
    ids, _ = drawn("one-hot")
    assert bool((ids == 0).any(dim=1).all())
    rest = shares("one-hot")[1:]
    assert torch.allclose(rest, torch.full_like(rest, float(rest.mean())), atol=0.01)


def test_half_empty_never_draws_an_odd_expert() -> None:
    assert shares("half-empty")[1::2].tolist() == [0.0] * (EXPERTS // 2)
    assert bool((shares("half-empty")[::2] > 0).all())


def test_a_routing_that_leaves_too_few_experts_is_refused() -> None:
    assert refusal("half-empty", 4, 8) is None and refusal("uniform", 8, 8) is None
    assert str(refusal("half-empty", 5, 8)) == (
        "--routing half-empty: every token needs 5 distinct experts, and 4 of 8 are ever drawn;"
        " leave this routing out for this model"
    )


def test_the_command_line_and_tuning_files_have_the_same_words() -> None:
    assert arguments.ROUTINGS == get_args(Routing) == ROUTINGS
