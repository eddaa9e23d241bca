"""A report's figures, by matplotlib (`pip install 'groupwise[bench]'`)."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from generator.errors import Finding, LaunchError
from generator.tune.rows import Report, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INCHES = (8.0, 5.0)
MARKS = "osD^vP*X"  # one a line; colours alone do not tell lines apart in print


def require() -> None:
    """Raises LaunchError where matplotlib is missing."""
    if find_spec("matplotlib") is None:
        what = "the plots need matplotlib, which is not installed"
        fix = "pip install 'groupwise[bench]', or pass --no-plots"
        raise LaunchError(Finding("--out", what, fix))


def write(report: Report, out: Path) -> list[Path]:
    """PNG files in a folder: their paths. Raises LaunchError where one cannot be written."""
    written = []
    for name, figure in figures(report):
        path = out / f"{name}.png"
        try:
            figure.savefig(path, dpi=150)
        except OSError as error:
            what = f"cannot be written: {error.strerror}"
            raise LaunchError(Finding(str(path), what, "pass another --out")) from error
        written.append(path)
    return written


def figures(report: Report) -> Iterator[tuple[str, Figure]]:
    """Latency against tokens of every model, layer and routing, and one roofline."""
    shown = [row for row in report.rows if row.best and not row.is_stage]
    for key in dict.fromkeys((r.facts.model, r.facts.layer, r.facts.routing) for r in shown):
        own = [r for r in shown if (r.facts.model, r.facts.layer, r.facts.routing) == key]
        yield f"latency-{'-'.join(key)}", _latency(report, key, own)
    layers = [row for row in shown if row.subject == "layer" and row.tops]
    if layers and report.ceilings is not None:
        yield "roofline", _roofline(report, layers)


def _latency(report: Report, key: tuple[str, ...], rows: list[Row]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, layout="constrained")
    axes = figure.subplots()
    for mark, subject in zip(cycle(MARKS), dict.fromkeys(r.subject for r in rows), strict=False):
        line = sorted((r for r in rows if r.subject == subject), key=lambda r: r.facts.tokens)
        samples = [(r.facts.tokens, r.best) for r in line]
        axes.errorbar(
            [tokens for tokens, _ in samples],
            [each.median for _, each in samples if each],
            yerr=[each.iqr / 2 for _, each in samples if each],
            marker=mark,
            label=subject,
        )
    floors = {r.facts.tokens: r.facts.floor_us for r in rows if r.facts.floor_us is not None}
    if floors:
        tokens = sorted(floors)
        axes.plot(tokens, [floors[each] for each in tokens], "k--", label="floor")
    how = "CUDA graph replay" if any(r.times.graph for r in rows) else "eager"
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="tokens",
        ylabel=f"microseconds a call, {how}",
        title=f"{', '.join(key)}\n{report.environment.device}",
    )
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    return figure


def _roofline(report: Report, rows: list[Row]) -> Figure:
    from matplotlib.figure import Figure

    best = report.ceilings
    assert best is not None
    figure = Figure(figsize=INCHES, layout="constrained")
    axes = figure.subplots()
    for mark, layer in zip(cycle(MARKS), dict.fromkeys(r.facts.layer for r in rows), strict=False):
        own = [r for r in rows if r.facts.layer == layer]
        axes.plot(
            [r.facts.work.intensity for r in own],
            [r.tops or 0.0 for r in own],
            mark,
            label=layer,
        )
    ridge = best.int8_tops / best.read_tb_per_s
    low = min(r.facts.work.intensity for r in rows) / 2
    high = 2 * max(ridge, *(r.facts.work.intensity for r in rows))
    axes.plot(
        [low, ridge, high],
        [low * best.read_tb_per_s, best.int8_tops, best.int8_tops],
        "k--",
        label=f"{best.read_tb_per_s:.2f} TB/s measured, {best.int8_tops:.0f} TOPS stated",
    )
    axes.axhline(best.int_mm_tops, color="grey", linestyle=":", label="torch._int_mm measured")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="operations per byte of the experts hit, hidden states and result",
        ylabel="TOPS",
        title=f"Whole layers, {report.environment.device}",
    )
    axes.grid(True, which="both", alpha=0.3)
    axes.legend(fontsize="small")
    return figure
