"""The cost model's pick is judged twice: whatever its row tile, and as a build ranks it."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.cost_error import Batch, Pick, as_built, cheapest, picks, summary, timings
from generator.lower.bands import bands
from generator.lower.cost import Shape, cost
from tests.lower.conftest import gemm

BATCH = Batch("down", n=4096, k=4096, experts=8, rows=96)
SHORT, TALL = gemm(m=16, n=128, k=128), gemm(m=64, n=128, k=128)
BANDS = bands((16, 64))


def test_the_row_tile_of_the_band_goes_before_a_cheaper_one() -> None:
    """16 rows hold 12 and no more, so the band of 64 has them, whose tile multiplies padding."""
    batch = Batch("down", n=4096, k=4096, experts=8, rows=13 * 8)
    [own] = (band for band in BANDS if band.holds(batch.rows_per_expert))
    assert own.block_m == 64
    shape = Shape(8, 13, batch.n, batch.k)
    assert cost(SHORT, shape).total_us < cost(TALL, shape).total_us
    assert cheapest(batch, [TALL, SHORT], BANDS) is SHORT
    assert as_built(batch, [SHORT, TALL], BANDS) is TALL


def test_without_that_row_tile_the_least_cost_goes_first() -> None:
    """Though another is nearer to it."""
    nearer = gemm(m=32, n=32, k=32, stages=1)
    assert as_built(BATCH, [nearer, SHORT], bands((64,))) is SHORT


def test_a_pick_is_held_against_all_that_was_timed() -> None:
    """Of designs in other orders of programs none is picked, but one may be the fastest."""
    times = {SHORT.design.name: 12.0, "other": 10.0}
    known = {"down": {SHORT.design.name: SHORT, TALL.design.name: TALL}}
    [pick] = picks(known, {BATCH: times}, cheapest)
    assert pick == Pick(BATCH, SHORT.design.name, 12.0, "other", 10.0)
    assert list(picks(known, {BATCH: {"other": 10.0}}, cheapest)) == []


def test_the_summary_counts() -> None:
    found = [Pick(BATCH, "a", us, "b", 10.0) for us in (10.0, 10.5, 12.0, 15.0)]
    assert summary(found) == ("4 batches: median 1.12, worst 1.50; within 10% 2, within 30% 3")


def test_trials_are_read_by_batch(tmp_path: Path) -> None:
    facts = {"contract": "down", "n": 64, "k": 128, "experts": 8, "rows": 96}
    facts |= {"operation": "down", "routing": "uniform"}
    told = [{"device": "one"}, facts | {"design": "a", "us": 2.0}, facts | {"design": "b", "us": 3}]
    told.append(facts | {"design": "a", "us": 9.0, "routing": "zipf"})  # the model knows none
    told.append(facts | {"operation": "layer", "contract": "layer", "design": "m16", "us": 5.0})
    path = tmp_path / "trials"
    path.write_text("\n".join(map(json.dumps, told)), encoding="utf-8")
    assert timings(path) == {Batch("down", 64, 128, 8, 96): {"a": 2.0, "b": 3}}
