"""How many copies of the weights, and how many calls, a graph rotates through, so that no call
finds its weights in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch

# Weights that are read before any is read again, in sizes of the L2 cache: at twice its size a
# cache that does not replace the least recently used line first still holds some.
CACHE_SIZES = 4
REPLAY_US = 500.0  # a replay lasts at least so long, or its launch and its ends show
LEAST_CALL_US = 8.0  # no layer is faster: the fixed cost of its launches
LEAST_STAGE_US = 1.5  # no stage is
FEWEST_CALLS = 2
MOST_SHARE = 0.4  # of free memory that copies may take; baselines want theirs


@dataclass(frozen=True, slots=True)
class Memory:
    """What a device has, in bytes."""

    cache: int  # L2; 0 where there is none to get past
    free: int


def memory_of(device: torch.device) -> Memory:
    if device.type != "cuda":
        return Memory(0, 0)
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    return Memory(torch.cuda.get_device_properties(device).L2_cache_size, free)


def copies_for(weight_bytes: float, memory: Memory) -> int:
    """Copies of the weights that a batch rotates through whose calls read so many bytes of them."""
    return max(1, int(-(-CACHE_SIZES * memory.cache // weight_bytes)))


def copies_allowed(layer_bytes: int, memory: Memory) -> int:
    """Copies of a layer that there is room for, the one that is there already included."""
    return 1 + int(memory.free * MOST_SHARE // layer_bytes)


def calls_of(copies: int, floor: float | None) -> int:
    """Calls of a graph: a multiple of the copies; one where there are no graphs (no floor)."""
    if floor is None:
        return copies
    calls = copies
    while calls < FEWEST_CALLS or calls * max(floor, LEAST_CALL_US) < REPLAY_US:
        calls += copies
    return calls


def turns_of(calls: int) -> int:
    """How often a graph goes through a layer's calls with a stage that may be as short as any."""
    return ceil(REPLAY_US / (LEAST_STAGE_US * calls))
