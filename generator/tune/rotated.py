"""A layer's weights on the device, at as many places as its batches rotate through, and what each
batch must do: what `bench` and `tune` start from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from generator.runtime.packed import PackedExperts
from generator.runtime.workspace import torch_dtype
from generator.tune.calls import random_tokens
from generator.tune.cases import Batch, Setup
from generator.tune.rotation import Memory, copies_allowed, copies_for
from generator.tune.weights import copies, expert_bytes, total_bytes
from generator.tune.work import Work, work_of


@dataclass(frozen=True, slots=True)
class Rotated:
    """The copies that there is room for."""

    copies: tuple[PackedExperts, ...]
    wanted: Mapping[Batch, int]  # copies that a batch needs to find none of them in the cache
    works: Mapping[Batch, Work]  # of a batch's first draw


def rotated(packed: PackedExperts, setup: Setup, memory: Memory, seed: int) -> Rotated:
    """Copies of weights that lie on the device; `memory` is what is left beside them."""
    device = packed.up_weight.device
    element = torch_dtype(setup.layer.dtype).itemsize
    works = {}
    for batch in setup.batches:
        drawn = random_tokens(setup.model, setup.layer, batch, device, seed)
        works[batch] = work_of(packed, drawn.ids, element)
    # A batch may draw no expert of this rank; another call of it does.
    least = expert_bytes(packed)
    wanted = {
        batch: copies_for(max(each.weight_bytes, least), memory) for batch, each in works.items()
    }
    allowed = copies_allowed(total_bytes(packed), memory)
    return Rotated(copies(packed, min(allowed, max(wanted.values()))), wanted, works)
