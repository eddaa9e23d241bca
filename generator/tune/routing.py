"""Which experts tokens choose: four distributions, the same draw for the same seed.

Whoever measures or tests takes its ids from here, so that a figure says what it was measured on.
"""

from __future__ import annotations

import torch

from generator.errors import Finding

ROUTINGS = ("uniform", "zipf", "one-hot", "half-empty")


def refusal(routing: str, top_k: int, experts: int) -> Finding | None:
    """Why a routing cannot be drawn: top_k distinct experts must be left to choose from."""
    there = -(-experts // 2) if routing == "half-empty" else experts
    if top_k <= there:
        return None
    what = f"every token needs {top_k} distinct experts, and {there} of {experts} are ever drawn"
    return Finding(f"--routing {routing}", what, "leave this routing out for this model")


def draw(
    routing: str, *, tokens: int, top_k: int, experts: int, random: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """int64 ids [tokens, top_k], distinct in each row, of 0 .. experts - 1 over all ranks, and fp32
    weights [tokens, top_k] whose rows sum to 1; on the generator's device.

    uniform: every set of top_k experts is as likely. zipf: expert e is drawn in proportion to
    1 / (e + 1). one-hot: all tokens choose expert 0, the rest is uniform. half-empty: every second
    expert is never drawn.
    """
    device = random.device
    chance = torch.rand(tokens, experts, device=device, generator=random)
    if routing == "zipf":
        # The top k of log p + Gumbel noise are k draws in proportion to p without replacement.
        rank = torch.arange(1, experts + 1, dtype=torch.float32, device=device)
        noise = -torch.log(-torch.log(chance.clamp(1e-9, 1 - 1e-7)))
        chance = noise - torch.log(rank)
    elif routing == "one-hot":
        chance[:, 0] = 2.0
    elif routing == "half-empty":
        chance[:, 1::2] = -1.0
    ids = chance.topk(top_k, dim=1).indices
    weights = torch.rand(tokens, top_k, device=device, generator=random) + 0.1
    return ids, weights / weights.sum(1, keepdim=True)
