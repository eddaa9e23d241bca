"""A report as JSON, with every fact, and as CSV, one line a row."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from generator.errors import Finding, LaunchError
from generator.tune.rows import Report, Row
from generator.tune.timing import Sample

SCHEMA = 1


def as_json(report: Report) -> str:
    """Every number with its spread and count."""
    data = {
        "schema": SCHEMA,
        "environment": asdict(report.environment),
        "ceilings": None if report.ceilings is None else asdict(report.ceilings),
        "rows": [
            asdict(row) | {"share_of_floor": row.share, "tops": row.tops} for row in report.rows
        ],
    }
    return json.dumps(data, indent=1) + "\n"


def as_csv(report: Report) -> str:
    """One line a row, times as median and interquartile range in microseconds."""
    out = io.StringIO()
    lines = [_flat(row) for row in report.rows]
    writer = csv.DictWriter(out, list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _flat(row: Row) -> dict[str, Any]:
    facts, work = row.facts, row.facts.work
    return {
        "model": facts.model,
        "layer": facts.layer,
        "tokens": facts.tokens,
        "routing": facts.routing,
        "subject": row.subject,
        **_times("graph", row.times.graph),
        **_times("eager", row.times.eager),
        **_times("host", row.times.host),
        "floor_us": row.floor_us,
        "share_of_floor": row.share,
        "tops": row.tops,
        "bytes": work.bytes,
        "operations": work.operations,
        "rows": work.rows,
        "experts_hit": work.experts,
        "bits_compared": None if row.compared is None else row.compared.bits,
        "bits_different": None if row.compared is None else row.compared.different,
        "plan": row.plan,
        "designs": " ".join(f"{name}={design}" for name, design in row.designs.items()),
        "workspace_bytes": row.workspace_bytes,
        "launches": row.launches,
        "weight_copies": facts.copies,
        "calls_of_a_graph": facts.calls,
        "weights_cold": facts.cold,
        "note": row.note,
    }


def _times(name: str, sample: Sample | None) -> dict[str, float | None]:
    return {
        f"{name}_us": None if sample is None else sample.median,
        f"{name}_iqr_us": None if sample is None else sample.iqr,
    }


def write(report: Report, out: Path) -> None:
    """bench.json and bench.csv in a folder, which is made. Raises LaunchError where it cannot."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "bench.json").write_text(as_json(report), encoding="utf-8")
        (out / "bench.csv").write_text(as_csv(report), encoding="utf-8")
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        raise LaunchError(Finding(f"--out {out}", what, "pass another folder")) from error
