"""The table of benchmarks/README.md out of a `bench.json`.

    python -m benchmarks.compact DIR/bench.json

One line for each model, layer and batch: medians of graph replays in microseconds, in brackets the
interquartile range of the layer's; host is the time of an eager call until it returns.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

COLUMNS = ("model", "layer", "tokens", "ours", "floor", "share", "host", "seed", "bf16 torch")


def graph(row: dict[str, Any] | None) -> dict[str, float] | None:
    """A subject's replays; None where it has none."""
    return None if row is None else row["times"]["graph"]


def lines(report: dict[str, Any]) -> list[str]:
    """The head, then Markdown."""
    on, ceilings = report["environment"], report["ceilings"]
    batches: dict[tuple[str, str, int, str], dict[str, dict[str, Any]]] = {}
    for row in report["rows"]:
        facts = row["facts"]
        key = (facts["model"], facts["layer"], facts["tokens"], facts["routing"])
        batches.setdefault(key, {})[row["subject"]] = row
    bits = [row["compared"] for row in report["rows"] if row["compared"]]
    head = (
        f"{on['device']}, driver {on['driver']}, torch {on['torch']}, Triton {on['triton']},"
        f" {on['date']} UTC; HBM read {ceilings['read_tb_per_s']:.2f} TB/s, `torch._int_mm`"
        f" {ceilings['int_mm_tops']:.0f} TOPS; {sum(b['bits'] for b in bits)} bits compared,"
        f" {sum(b['different'] for b in bits)} differ."
    )
    table = [head, "", f"    {on['command']}", "", f"| {' | '.join(COLUMNS)} |"]
    table.append("| --- | --- |" + " ---: |" * (len(COLUMNS) - 2))
    for (model, layer, tokens, routing), rows in batches.items():
        own = rows["layer"]
        ours, floor = own["times"]["graph"], own["facts"]["floor_us"]
        others = [graph(rows.get(name)) for name in ("seed", "bf16 torch")]
        cells = [
            model,
            layer if routing == "uniform" else f"{layer}, {routing}",
            str(tokens),
            f"{ours['median']:.1f} ({ours['iqr']:.1f})",
            f"{floor:.1f}",
            f"{floor / ours['median']:.2f}",
            f"{own['times']['host']['median']:.0f}",
            *("" if each is None else f"{each['median']:.1f}" for each in others),
        ]
        table.append(f"| {' | '.join(cells)} |")
    return table


def main() -> None:
    for line in lines(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))):
        print(line)


if __name__ == "__main__":
    main()
