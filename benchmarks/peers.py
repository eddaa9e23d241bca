"""What others' layers take, and what is aimed at, as `benchmarks/peers.csv` has it.

Where and when it was measured, and of what versions, benchmarks/README.md says. compare.py calls
this.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

PEERS = Path(__file__).with_name("peers.csv")
MEASURED_ON = "one NVIDIA H200, 2026-11-22, HBM read 4.53 TB/s"


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody's layer and its microseconds."""

    name: str
    us: float


@dataclass(frozen=True, slots=True)
class Standard:
    """One model's layer at one batch: floors of that device, the best peers there, the targets. All
    in microseconds.
    """

    floor8_us: float  # of weights of 8 bits
    floor4_us: float
    int8: Peer
    int4: Peer
    fp8: Peer
    w8a8_us: float  # the target per channel
    w4a8_us: float  # the target in groups of 128

    @property
    def memory_bound(self) -> bool:
        """Decode: half the bytes would take less. In prefill the operations are the floor."""
        return self.floor8_us != self.floor4_us


def standards(path: Path = PEERS) -> dict[tuple[str, int], Standard]:
    """By model and tokens."""
    with path.open(encoding="utf-8", newline="") as lines:
        return {(row["model"], int(row["tokens"])): _standard(row) for row in csv.DictReader(lines)}


def _standard(row: dict[str, str]) -> Standard:
    int8, int4, fp8 = (
        Peer(row[f"{name}_peer"], float(row[f"{name}_us"])) for name in ("int8", "int4", "fp8")
    )
    return Standard(
        floor8_us=float(row["floor8_us"]),
        floor4_us=float(row["floor4_us"]),
        int8=int8,
        int4=int4,
        fp8=fp8,
        w8a8_us=float(row["target_w8a8_us"]),
        w4a8_us=float(row["target_w4a8_us"]),
    )
