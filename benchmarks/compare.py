"""Ours beside the best peers and the targets, out of a `bench.json` and `benchmarks/peers.csv`.

    python -m benchmarks.compare DIR/bench.json

One line for each layer and uniform batch that peers.csv has. Ours and its floor are the report's
device's, all else is of the device of peers.csv: so each time stands beside what it is of the floor
of its own device. Nothing is launched. Markdown, for benchmarks/README.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.peers import MEASURED_ON, Peer, Standard, standards
from benchmarks.report import Batch, arguments, asked, batches, graph

COLUMNS = (
    *("model", "layer", "tokens", "ours", "floor", "ours / floor"),
    *("peer's floor", "best peer", "peer", "peer / floor", "target", "target / floor", "met"),
)
TEXT = ("model", "layer", "best peer", "met")  # the others are numbers


@dataclass(frozen=True, slots=True)
class Reference:
    """What a layer of one width of weights is held against."""

    floor_us: float
    peer: Peer
    target_us: float


@dataclass(frozen=True, slots=True)
class Compared:
    """One line: times in microseconds, and as multiples of the floor of their own device."""

    batch: Batch
    us: float
    floor_us: float
    reference: Reference

    @property
    def ratio(self) -> float:
        return self.us / self.floor_us

    @property
    def peer_ratio(self) -> float:
        return self.reference.peer.us / self.reference.floor_us

    @property
    def target_ratio(self) -> float:
        return self.reference.target_us / self.reference.floor_us

    @property
    def met(self) -> tuple[str, ...]:
        """What ours is at or below, of the floor."""
        reached = {"peer": self.peer_ratio, "target": self.target_ratio}
        return tuple(name for name, ratio in reached.items() if self.ratio <= ratio)


def reference(standard: Standard, layer: str) -> Reference:
    """The floor, best peer and target of a layer, whose name says bits and groups of its weights.

    Peers of 8 bits are int8 and fp8. int8 in groups aims at the column per channel where memory
    binds, and where operations do at that of int4 in groups, which scales as many sums.
    """
    weights = layer.split("_")[1]  # such as w8gn, w8g128, w4g512g320
    if weights.startswith("w4"):
        return Reference(standard.floor4_us, standard.int4, standard.w4a8_us)
    best = min(standard.int8, standard.fp8, key=lambda peer: peer.us)
    scaled = weights != "w8gn" and not standard.memory_bound
    return Reference(standard.floor8_us, best, standard.w4a8_us if scaled else standard.w8a8_us)


def compared(report: dict[str, Any], known: dict[tuple[str, int], Standard]) -> Iterator[Compared]:
    """In the order of the report. Peers were timed under uniform routing alone."""
    for batch, rows in batches(report).items():
        standard = known.get((batch.model, batch.tokens))
        ours = graph(rows.get("layer"))
        if standard is not None and ours is not None and batch.routing == "uniform":
            floor = rows["layer"]["facts"]["floor_us"]
            yield Compared(batch, ours["median"], floor, reference(standard, batch.layer))


def summary(found: Sequence[Compared]) -> str:
    """How many lines are met, by what a time is of its floor and by the time alone."""
    peers, targets = (sum(name in each.met for each in found) for name in ("peer", "target"))
    by_time = sum(each.us <= each.reference.peer.us for each in found)
    targets_by_time = sum(each.us <= each.reference.target_us for each in found)
    return (
        f"{len(found)} cells: as multiples of the floor, ours is at or below the best peer in"
        f" {peers} and the target in {targets}; in microseconds alone in {by_time} and"
        f" {targets_by_time}."
    )


def lines(report: dict[str, Any]) -> list[str]:
    """What was measured where, how many cells are met, then Markdown."""
    on, read = report["environment"], report["ceilings"]["read_tb_per_s"]
    found = list(compared(report, standards()))
    ours = f"{on['device']}, {on['date']} UTC, HBM read {read:.2f} TB/s"
    return [
        f"Ours: {ours}. Peers and targets: {MEASURED_ON}.",
        "",
        summary(found),
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"| {' | '.join('---' if name in TEXT else '---:' for name in COLUMNS)} |",
        *(f"| {' | '.join(cells(each))} |" for each in found),
    ]


def cells(each: Compared) -> tuple[str, ...]:
    """One line's texts, in the order of COLUMNS."""
    return (
        each.batch.model,
        each.batch.layer,
        str(each.batch.tokens),
        f"{each.us:.1f}",
        f"{each.floor_us:.1f}",
        f"{each.ratio:.2f}",
        f"{each.reference.floor_us:.0f}",
        each.reference.peer.name,
        f"{each.reference.peer.us:.0f}",
        f"{each.peer_ratio:.2f}",
        f"{each.reference.target_us:.0f}",
        f"{each.target_ratio:.2f}",
        ", ".join(each.met),
    )


def main() -> None:
    report, _ = asked(arguments(__doc__))
    for line in lines(report):
        print(line)


if __name__ == "__main__":
    main()
