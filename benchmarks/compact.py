"""The table of benchmarks/README.md out of a `bench.json`.

    python -m benchmarks.compact DIR/bench.json

One line for each model, layer and batch: medians of graph replays in microseconds, in brackets the
interquartile range of the layer's; host is the time of an eager call until it returns. A baseline
that was not measured at all has no column.
"""

from __future__ import annotations

from typing import Any

from benchmarks.report import arguments, asked, batches, graph, head

COLUMNS = ("model", "layer", "tokens", "ours", "floor", "share", "host")
BASELINES = ("seed", "bf16 torch", "vllm int8")  # subjects of a report


def lines(report: dict[str, Any]) -> list[str]:
    """The head, then Markdown."""
    found = batches(report)
    measured = [name for name in BASELINES if any(graph(rows.get(name)) for rows in found.values())]
    columns = (*COLUMNS, *measured)
    table = [*head(report), "", f"| {' | '.join(columns)} |"]
    table.append("| --- | --- |" + " ---: |" * (len(columns) - 2))
    for batch, rows in found.items():
        own = rows["layer"]
        ours, floor = own["times"]["graph"], own["facts"]["floor_us"]
        others = [graph(rows.get(name)) for name in measured]
        cells = [
            batch.model,
            batch.layer if batch.routing == "uniform" else f"{batch.layer}, {batch.routing}",
            str(batch.tokens),
            f"{ours['median']:.1f} ({ours['iqr']:.1f})",
            f"{floor:.1f}",
            f"{floor / ours['median']:.2f}",
            f"{own['times']['host']['median']:.0f}",
            *("" if each is None else f"{each['median']:.1f}" for each in others),
        ]
        table.append(f"| {' | '.join(cells)} |")
    return table


def main() -> None:
    report, _ = asked(arguments(__doc__))
    for line in lines(report):
        print(line)


if __name__ == "__main__":
    main()
