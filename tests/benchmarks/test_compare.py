"""Ours, peers and targets stand beside the right figures, and the counts follow from the lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.compare import COLUMNS, Compared, Reference, compared, lines, reference, summary
from benchmarks.peers import Peer, Standard, standards
from benchmarks.report import Batch
from generator.data import folder
from generator.spec.load import load
from tests.benchmarks.reports import layer, report

README = Path(__file__).parents[2] / "benchmarks" / "README.md"
INT8, INT4, FP8 = Peer("int8", 200.0), Peer("int4", 150.0), Peer("fp8", 180.0)
DECODE = Standard(100.0, 50.0, INT8, INT4, FP8, w8a8_us=113.0, w4a8_us=68.0)
PREFILL = Standard(500.0, 500.0, INT8, INT4, FP8, w8a8_us=625.0, w4a8_us=641.0)
BATCH = Batch("tiny", "layer_w8gn_x", 16, "uniform")


def test_every_peer_is_of_a_shipped_model() -> None:
    models = {model.name: model.tokens for model in load(folder("specs")).models}
    found = standards()
    assert len(found) == 17
    assert [key for key in found if key[1] not in models[key[0]]] == []
    mixtral = found["mixtral-8x7b", 256]
    assert mixtral.int4 == Peer("CUTLASS W4A-fp8", 487.0) and mixtral.w4a8_us == 195.0


@pytest.mark.parametrize(
    "name, standard, expected",
    [
        ("layer_w8gn_x", DECODE, Reference(100.0, FP8, 113.0)),
        ("layer_w8g128_x", DECODE, Reference(100.0, FP8, 113.0)),
        ("layer_w4g512g320_x", DECODE, Reference(50.0, INT4, 68.0)),
        ("layer_w8gn_x", PREFILL, Reference(500.0, FP8, 625.0)),
        ("layer_w8g128g320_x", PREFILL, Reference(500.0, FP8, 641.0)),
        ("layer_w4g128_x", PREFILL, Reference(500.0, INT4, 641.0)),
    ],
)
def test_a_layer_is_held_against_its_width(
    name: str, standard: Standard, expected: Reference
) -> None:
    assert reference(standard, name) == expected


@pytest.mark.parametrize(
    "us, met", [(226.0, ("peer", "target")), (227.0, ("peer",)), (360.0, ("peer",)), (361.0, ())]
)
def test_what_is_met_is_met_by_the_floor_of_its_own_device(us: float, met: tuple[str, ...]) -> None:
    """Our floor is twice the peer's, and so may our time be."""
    assert Compared(BATCH, us, 200.0, reference(DECODE, BATCH.layer)).met == met


def test_the_summary_counts_by_ratio_and_by_time() -> None:
    own = reference(DECODE, BATCH.layer)
    found = [Compared(BATCH, us, 200.0, own) for us in (112.0, 170.0, 226.0, 360.0, 400.0)]
    assert summary(found) == (
        "5 cells: as multiples of the floor, ours is at or below the best peer in 4 and the target"
        " in 3; in microseconds alone in 2 and 1."
    )


def test_batches_without_peer_and_other_routings_have_no_line() -> None:
    ours = layer("mixtral-8x7b", "layer_w8gn_x", 16, 400.0, 300.0)
    others = (
        layer("mixtral-8x7b", "layer_w8gn_x", 17, 400.0, 300.0),
        layer("mixtral-8x7b", "layer_w8gn_x", 16, 400.0, 300.0, routing="zipf"),
        layer("tiny", "layer_w8gn_x", 16, 400.0, 300.0),
    )
    [line] = compared(report(ours, *others), standards())
    assert (line.us, line.floor_us, line.reference.peer.us) == (400.0, 300.0, 339.0)
    assert lines(report(ours))[-1].split(" | ")[3:6] == ["400.0", "300.0", "1.33"]


def test_the_published_tables_are_of_one_run() -> None:
    """Made anew, both are: by compact.py and compare.py out of the same report."""
    bench = {tuple(row[:3]): row for row in published("bench")}
    known = standards()
    wanted = {key for key in bench if (key[0], int(key[2])) in known}
    rows = published("compare")
    assert {tuple(row[:3]) for row in rows} == wanted
    for row in rows:
        named = dict(zip(COLUMNS, row, strict=True))
        ours, floor = bench[tuple(row[:3])][3:5]
        own = reference(known[row[0], int(row[2])], row[1])
        assert (named["ours"], named["floor"]) == (ours.split()[0], floor)
        assert (named["best peer"], float(named["peer"])) == (own.peer.name, own.peer.us)
        assert float(named["target"]) == own.target_us


def published(name: str) -> list[list[str]]:
    """The cells of each line of a table of benchmarks/README.md but its head."""
    marks = rf"<!-- {name} table: begin -->\n(.*?)\n<!-- {name} table: end -->"
    found = re.search(marks, README.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    rows = [line for line in found[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows[2:]]
