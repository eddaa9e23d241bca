"""A table of graph times across one thing, out of a `bench.json`.

    python -m benchmarks.pivot DIR/bench.json --across layer|tokens|routing|stage

A column for each of its values, a line for each batch otherwise, by what differs among them:
medians of graph replays in microseconds. Across stages, those of a report taken with `--stages`
stand beside the whole layer, each replayed alone. What was not measured is left empty. Nothing is
launched. Markdown, for benchmarks/README.md.
"""

from __future__ import annotations

from typing import Any

from benchmarks.report import Row, arguments, asked, batches, graph, head

FIELDS = ("model", "layer", "tokens", "routing")
STAGE = "stage "  # how subjects of a report start that are stages


def lines(report: dict[str, Any], across: str) -> list[str]:
    """The head, then Markdown."""
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    columns: dict[str, None] = {}
    fixed = [name for name in FIELDS if name != across]
    for batch, rows in batches(report).items():
        own = cells.setdefault(tuple(str(getattr(batch, name)) for name in fixed), {})
        of = _subjects(rows) if across == "stage" else {str(getattr(batch, across)): rows["layer"]}
        for name, row in of.items():
            columns.setdefault(name)
            time = graph(row)
            own[name] = "" if time is None else f"{time['median']:.1f}"
    varying = [i for i in range(len(fixed)) if len({key[i] for key in cells}) > 1] or [0]
    names = [fixed[index] for index in varying]
    table = [*head(report), "", f"| {' | '.join([*names, *columns])} |"]
    table.append("|" + " --- |" * len(names) + " ---: |" * len(columns))
    for key, own in cells.items():
        line = [*(key[index] for index in varying), *(own.get(name, "") for name in columns)]
        table.append(f"| {' | '.join(line)} |")
    return table


def _subjects(rows: dict[str, Row]) -> dict[str, Row]:
    """The whole layer, and what of it was replayed alone."""
    stages = {name.removeprefix(STAGE): row for name, row in rows.items() if name.startswith(STAGE)}
    return {"whole": rows["layer"], **stages}


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("--across", choices=("layer", "tokens", "routing", "stage"), required=True)
    report, options = asked(parser)
    for line in lines(report, options.across):
        print(line)


if __name__ == "__main__":
    main()
