"""A `bench.json` as the programs that make tables of it read it.

`python -m generator bench --out DIR` writes it; The programs beside this call it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generator.errors import Finding, LaunchError

Row = dict[str, Any]  # one subject on one batch, as `generator/tune/rows.py` has it


@dataclass(frozen=True, slots=True)
class Batch:
    """What all rows of one batch share."""

    model: str
    layer: str
    tokens: int
    routing: str


def arguments(doc: str) -> argparse.ArgumentParser:
    """The command line of a program that takes a report."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("report", type=Path, metavar="BENCH_JSON")
    return parser


def asked(parser: argparse.ArgumentParser) -> tuple[dict[str, Any], argparse.Namespace]:
    """The report that the command line names, and all options. Says on stderr why it cannot be
    read, and exits with 2.
    """
    options = parser.parse_args()
    try:
        return read(options.report), options
    except LaunchError as error:
        parser.error(str(error))


def read(path: Path) -> dict[str, Any]:
    """Raises LaunchError where there is no report, or one without ceilings: no graph was replayed
    then, and no floor is known.
    """
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        missing = {"ceilings", "environment", "rows"} - set(report)
        if missing:
            raise ValueError(f"no {', '.join(sorted(missing))}")
    except (OSError, ValueError, TypeError) as error:
        fix = "pass the bench.json that `python -m generator bench --out DIR` wrote"
        raise LaunchError(Finding(str(path), f"cannot be read: {error}", fix)) from error
    if report["ceilings"] is None:
        what = "has no ceilings: it was taken without a GPU, and its times mean nothing"
        raise LaunchError(Finding(str(path), what, "take one on a GPU"))
    return report


def head(report: dict[str, Any]) -> list[str]:
    """What a report was taken on, and by which command."""
    on, ceilings = report["environment"], report["ceilings"]
    bits = [row["compared"] for row in report["rows"] if row["compared"]]
    taken = (
        f"{on['device']}, driver {on['driver']}, torch {on['torch']}, Triton {on['triton']},"
        f" {on['date']} UTC; HBM read {ceilings['read_tb_per_s']:.2f} TB/s, `torch._int_mm`"
        f" {ceilings['int_mm_tops']:.0f} TOPS; {sum(b['bits'] for b in bits)} bits compared,"
        f" {sum(b['different'] for b in bits)} differ."
    )
    return [taken, "", f"    {on['command']}"]


def batches(report: dict[str, Any]) -> dict[Batch, dict[str, Row]]:
    """The rows of each batch by their subject, in the order of the report."""
    found: dict[Batch, dict[str, Row]] = {}
    for row in report["rows"]:
        facts = row["facts"]
        key = Batch(facts["model"], facts["layer"], facts["tokens"], facts["routing"])
        found.setdefault(key, {})[row["subject"]] = row
    return found


def graph(row: Row | None) -> dict[str, float] | None:
    """A subject's replays; None where it was not measured or has none."""
    return None if row is None else row["times"]["graph"]
