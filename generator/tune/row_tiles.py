"""Time whole layers by each row tile that is near: the best up and down kernels of a tile, and all
the stages around them.

A GEMM that is replayed alone has the caches and the device's power to itself. Up and down of 128
rows took 2481 us, those of 256 rows 2500, which is nothing between them, but the layers took 2942
and, five hours before, 2754 (DeepSeek-V3 per channel, 4096 tokens, one H100, 2026-11-27).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from generator.runtime.device import current
from generator.runtime.entry import Entry
from generator.tune.timing import Call, Sample, Timer, graph_samples
from generator.tune.trials import FINAL_LOOKS, Trial, naming
from generator.verify.stages import Checked, relaunch, tile_map

NEAR = 1.1  # of the least sum of up and down; beyond it, no layer is expected to be the fastest


@dataclass(frozen=True, slots=True)
class Pair:
    """The best up and down kernels of one row tile."""

    block_m: int
    entries: Mapping[str, Entry]  # by operation
    us: float  # of both, each alone


def near(trials: Mapping[str, Sequence[Trial]]) -> list[Pair]:
    """By ascending row tile, those whose sum is near the least."""
    best = {operation: _best(own) for operation, own in trials.items()}
    tiles = set.intersection(*(set(own) for own in best.values()))
    pairs = [
        Pair(
            tile,
            {operation: own[tile].entry for operation, own in best.items()},
            sum(own[tile].sample.median for own in best.values()),
        )
        for tile in sorted(tiles)
    ]
    least = min((each.us for each in pairs), default=0.0)
    return [each for each in pairs if each.us <= NEAR * least]


def _best(trials: Sequence[Trial]) -> dict[int, Trial]:
    """The fastest of each row tile whose results are right."""
    best: dict[int, Trial] = {}
    for each in trials:
        tile = each.entry.block_m or 0
        if each.sample.count and (
            tile not in best or each.sample.median < best[tile].sample.median
        ):
            best[tile] = each
    return best


def layer_samples(
    calls: Sequence[Checked], pairs: Sequence[Pair], timer: Timer
) -> list[Sample | None]:
    """The whole layer by each of the pairs, by turns; `calls` differ in weights."""
    symbols = (entry.symbol for pair in pairs for entry in pair.entries.values())
    with naming(" or ".join(symbols)):
        replays = [timer.capture(_calls(calls, pair)) for pair in pairs]
        return graph_samples(replays, FINAL_LOOKS)


def _calls(calls: Sequence[Checked], pair: Pair) -> list[Call]:
    map_of_tile = tile_map(calls[0], pair.block_m)
    return [partial(_layer, each, pair, each.written() | map_of_tile) for each in calls]


def _layer(checked: Checked, pair: Pair, into: dict[str, torch.Tensor]) -> None:
    """Every stage once more. What routes writes the tile map that the call had, whose number of
    tiles is another.
    """
    with current(checked.hidden.device):
        for operation, choice in checked.run.choice.stages.items():
            if operation in pair.entries:
                relaunch(checked, pair.entries[operation], operation, into)
            else:
                relaunch(checked, choice.entry, operation, checked.written())
