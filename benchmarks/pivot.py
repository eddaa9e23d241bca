"""A table of graph times across one thing, out of a `bench.json`.

    python -m benchmarks.pivot DIR/bench.json --across layer|tokens|routing|stage

A column for each of its values, a line for each batch otherwise, by what differs among them: of
layers the words of their names. Medians of graph replays in microseconds. Across stages, those of a
report taken with `--stages` stand beside the whole layer, each replayed alone. What was not
measured is left empty. Nothing is launched. Markdown, for benchmarks/README.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.report import Row, arguments, asked, batches, graph, head

FIELDS = ("model", "layer", "tokens", "routing")
STAGES = ("count", "route", "dispatch", "quantize", "up", "requantize", "down", "combine")
STAGE = "stage "  # how subjects of a report start that are stages


def lines(report: dict[str, Any], across: str) -> list[str]:
    """The head, then Markdown."""
    found = batches(report)
    layers = _short([batch.layer for batch in found])
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    columns: dict[str, None] = {}
    fixed = [name for name in FIELDS if name != across]
    for batch, rows in found.items():
        facts = {name: str(getattr(batch, name)) for name in FIELDS} | {
            "layer": layers[batch.layer]
        }
        own = cells.setdefault(tuple(facts[name] for name in fixed), {})
        of = _subjects(rows) if across == "stage" else {facts[across]: rows["layer"]}
        for name, row in of.items():
            columns.setdefault(name)
            time = graph(row)
            own[name] = "" if time is None else f"{time['median']:.1f}"
    varying = [i for i in range(len(fixed)) if len({key[i] for key in cells}) > 1] or [0]
    names = [fixed[index] for index in varying]
    if across == "stage":
        columns = dict.fromkeys(each for each in ("whole", *STAGES) if each in columns)
    table = [*head(report), "", f"| {' | '.join([*names, *columns])} |"]
    table.append("|" + " --- |" * len(names) + " ---: |" * len(columns))
    for key, own in cells.items():
        line = [*(key[index] for index in varying), *(own.get(name, "") for name in columns)]
        table.append(f"| {' | '.join(line)} |")
    return table


def _subjects(rows: dict[str, Row]) -> dict[str, Row]:
    """The whole layer, and what of it was replayed alone, in launch order."""
    names = [name for name in STAGES if STAGE + name in rows]
    return {"whole": rows["layer"], **{name: rows[STAGE + name] for name in names}}


def _short(layers: Sequence[str]) -> dict[str, str]:
    """Layers by the words of their names in which they differ; one alone by its whole name."""
    words = {name: name.split("_") for name in layers}
    if len(words) < 2 or len({len(own) for own in words.values()}) > 1:
        return {name: name for name in words}
    differ = [len(set(each)) > 1 for each in zip(*words.values(), strict=True)]
    return {
        name: " ".join(word for word, kept in zip(own, differ, strict=True) if kept)
        for name, own in words.items()
    }


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("--across", choices=("layer", "tokens", "routing", "stage"), required=True)
    report, options = asked(parser)
    for line in lines(report, options.across):
        print(line)


if __name__ == "__main__":
    main()
