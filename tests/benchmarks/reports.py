"""Reports as `bench` writes them, with numbers that tests know."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from generator.tune.record import as_json
from generator.tune.rows import Report, Row, Times
from generator.tune.timing import Sample
from tests.tune.reports import CEILINGS, FACTS, LAYER, ON


def layer(
    model: str, name: str, tokens: int, us: float, floor: float, routing: str = "uniform"
) -> Row:
    """Ours on one batch."""
    times = replace(LAYER.times, graph=Sample(us, 0.5, 20))
    own = replace(FACTS, model=model, layer=name, tokens=tokens, floor_us=floor, routing=routing)
    return replace(LAYER, facts=own, times=times)


def baseline(of: Row, subject: str, us: float | None) -> Row:
    """A baseline beside it; None: without times, as where it is not installed."""
    times = Times() if us is None else Times(Sample(us, 0.5, 20))
    return Row(of.facts, subject, times, note="" if us else "not installed")


def report(*rows: Row) -> dict[str, Any]:
    """As it is read back."""
    read: dict[str, Any] = json.loads(as_json(Report(ON, CEILINGS, rows)))
    return read
