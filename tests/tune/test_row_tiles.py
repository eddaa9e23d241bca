"""Whole layers by the kernels of each row tile that is near. By the interpreter, on sm_90's plain
modules.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from generator.runtime.entry import Entry
from generator.runtime.manifest import Manifest, load
from generator.tune import row_tiles, trials, tuner
from generator.tune.cases import Batch, Setup
from generator.tune.measured import LAYER
from generator.tune.row_tiles import Pair, layer_samples, near
from generator.tune.stages import GEMMS, finished
from generator.tune.timing import Sample
from generator.tune.trials import Trial
from generator.tune.tuner import Tuner
from generator.verify.stages import poisoned
from tests.tune.clocks import ToldTimer
from tests.tune.small import CHANNEL, CPU, model, prepared

MANIFEST: Manifest = load()
TILES = (16, 32)
SIZES = {"hidden": 256, "intermediate": 256}
TOKENS = 16


def plain(operation: str, tile: int) -> Entry:
    """A module of plain Triton that takes the sizes above."""
    return next(
        each
        for each in MANIFEST.entries
        if each.contract.startswith(f"{operation}_w8gn_a8")
        and "_bf16_v1" in each.contract
        and each.target == "sm_90"
        and each.block_m == tile
        and "specialized" not in each.design
    )


ENTRIES = {tile: {operation: plain(operation, tile) for operation in GEMMS} for tile in TILES}


def trial(operation: str, tile: int, us: float, count: int = 1) -> Trial:
    name = f"{operation}_m{tile}_{us}"
    entry = replace(ENTRIES[16][operation], block_m=tile, design=name)
    return Trial(entry, Sample(us, 0.0, count))


def test_near_are_tiles_of_both_whose_best_sum_is_little_above_the_least() -> None:
    up = [trial("up", 16, 60.0), trial("up", 16, 61.0), trial("up", 32, 55.0, count=0)]
    up += [trial("up", 32, 63.0), trial("up", 64, 80.0), trial("up", 128, 10.0)]
    down = [trial("down", 64, 41.0), trial("down", 32, 46.0), trial("down", 16, 40.0)]
    pairs = near({"up": up, "down": down})
    assert [(each.block_m, each.us) for each in pairs] == [(16, 100.0), (32, 109.0)]
    assert [entry.design for entry in pairs[1].entries.values()] == ["up_m32_63.0", "down_m32_46.0"]


@pytest.mark.parametrize("tile", TILES)
def test_a_layer_by_other_kernels_has_the_same_result(
    tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_tiles, "FINAL_LOOKS", 1)
    # One expert has more rows than a tile of 16 holds, and fewer than the call's own.
    made = prepared(MANIFEST, tokens=24, routing="one-hot", calls=2, places=2, **SIZES)
    checked = finished(made)
    assert checked.run.choice.block_m == 32
    calls = [replace(checked, packed=made.packed(index)) for index in range(2)]
    own = checked.run.buffers
    want = [each.clone() for each in (checked.run.out, own["expert_output"], own["activation"])]
    for buffer in (checked.run.out, *checked.run.buffers.values()):
        buffer.copy_(poisoned(buffer))
    timer = ToldTimer()
    [sample] = layer_samples(calls, [Pair(tile, ENTRIES[tile], 0.0)], timer)
    assert sample is not None and timer.graphs == 1
    got = (checked.run.out, own["expert_output"], own["activation"])
    present = (slice(None), slice(checked.present), slice(checked.present))
    for each, wanted, rows in zip(got, want, present, strict=True):
        assert torch.equal(each[rows], wanted[rows])
        assert wanted[rows].abs().sum() > 0


def test_a_tuner_times_them_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOKS", "FINAL_LOOKS"):
        monkeypatch.setattr(trials, name, 1)
    monkeypatch.setattr(row_tiles, "FINAL_LOOKS", 2)
    monkeypatch.setattr(tuner, "calls_of", lambda copies, floor: 1)
    entries = {
        ENTRIES[16][operation].contract: [ENTRIES[tile][operation] for tile in TILES]
        for operation in GEMMS
    }
    batch = Batch(TOKENS, "uniform")
    setup = Setup(model(CHANNEL, **SIZES), MANIFEST.layers[CHANNEL], (batch,))
    monkeypatch.setattr(row_tiles, "NEAR", 100.0)
    timer = ToldTimer()
    _, (_, found) = Tuner(MANIFEST, entries, list, CPU, timer, 0, print).measurements(setup)
    assert found is not None
    assert timer.log[-4:] == [f"graph {timer.graphs - 1}", f"graph {timer.graphs}"] * 2
    layers = [each for each in found if each.operation == LAYER]
    assert [(each.design, each.block_m) for each in layers] == [("m16", 16), ("m32", 32)]
    assert {(e.contract, e.n, e.k, e.rows) for e in layers} == {(CHANNEL, 256, 256, 2 * TOKENS)}
    assert [each.looks for each in layers] == [2, 2]
