"""A report as aligned Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from generator.tune.rows import Report, Row
from generator.tune.timing import Sample

NUMBERS = (
    "tokens",
    "graph us",
    "eager us",
    "host us",
    "floor us",
    "share",
    "TOPS",
    "bits",
    "differ",
)
COLUMNS = ("model", "layer", "routing", "what", *NUMBERS, "how")


def lines(report: Report) -> Iterator[str]:
    """Where it was measured, the ceilings, the table, the verdict."""
    on = report.environment
    yield f"{on.device}, driver {on.driver}, CUDA {on.cuda}, torch {on.torch}, Triton {on.triton},"
    yield f"Python {on.python}, {on.date} UTC: `{on.command}`; modules of {on.generated}"
    yield ""
    best = report.ceilings
    if best is None:
        yield "No GPU: eager times of the interpreter, no ceilings, no graphs, no floors."
    else:
        yield (
            f"HBM read {best.read_tb_per_s:.2f} TB/s and `torch._int_mm` {best.int_mm_tops:.0f}"
            f" TOPS, measured; floors take {best.int8_tops:.0f} TOPS."
        )
    yield ""
    yield from aligned(COLUMNS, [cells(row) for row in report.rows], NUMBERS)
    yield ""
    yield f"{report.bits} bits compared, {report.different} different"


def cells(row: Row) -> tuple[str, ...]:
    """One row's texts, in the order of COLUMNS."""
    facts, compared = row.facts, row.compared
    return (
        facts.model,
        facts.layer,
        facts.routing,
        row.subject,
        str(facts.tokens),
        _sample(row.times.graph),
        _sample(row.times.eager),
        _sample(row.times.host),
        _number(row.floor_us, 1),
        _number(row.share, 2),
        _number(row.tops, 0),
        "" if compared is None else str(compared.bits),
        "" if compared is None else str(compared.different),
        _how(row),
    )


def aligned(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]
) -> Iterator[str]:
    """A Markdown table whose columns are as wide as their longest cell; those of `right` end
    there.
    """
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    ends = [name in right for name in columns]

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if end else cell.ljust(width)
            for cell, width, end in zip(row, widths, ends, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    yield line(columns)
    rules = (
        "-" * (width + 1) + ":" if end else "-" * (width + 2)
        for width, end in zip(widths, ends, strict=True)
    )
    yield f"|{'|'.join(rules)}|"
    yield from (line(row) for row in rows)


def _sample(sample: Sample | None) -> str:
    """Median and, in brackets, the interquartile range."""
    return "" if sample is None else f"{sample.median:.1f} ({sample.iqr:.1f})"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _how(row: Row) -> str:
    """The plan and the GEMMs' designs, or a stage's own, and what else is to be said."""
    told = [row.plan] if row.plan else []
    if row.is_stage:
        told += row.designs.values()
    else:
        told += [f"{name} {row.designs[name]}" for name in ("up", "down") if name in row.designs]
    told += [row.note] if row.note else []
    told += [] if row.facts.cold else ["weights partly in L2"]
    return ", ".join(told)
