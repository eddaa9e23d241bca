"""Reports with numbers that tests know."""

from __future__ import annotations

from dataclasses import replace

from generator.tune.ceilings import Ceilings
from generator.tune.environment import Environment
from generator.tune.rows import Compared, Facts, Report, Row, Times
from generator.tune.timing import Sample
from generator.tune.work import Work

ON = Environment(
    device="A device",
    driver="580.1",
    cuda="13.0",
    torch="2.11.0",
    triton="3.6.0",
    python="3.12.1",
    date="2026-11-25 10:00",
    command="python -m generator bench",
    generated="/somewhere/generated",
)
CEILINGS = Ceilings(4.5, Sample(950.0, 1.0, 20), 1314.0, 940.0, Sample(1170.0, 2.0, 20))
WORK = Work(rows=64, experts=8, weight_bytes=4.4e7, token_bytes=1e6, operations=3e9)
FACTS = Facts("tiny", "layer_x", 8, "uniform", WORK, 10.0, copies=6, calls=12, cold=True)
LAYER = Row(
    FACTS,
    "layer",
    Times(Sample(20.0, 0.5, 20), Sample(70.0, 4.0, 20), Sample(60.0, 3.0, 20)),
    compared=Compared(4096, 0),
    plan="separate",
    designs={"route": "portable/m1", "up": "sm_90/m16", "down": "sm_90/m32"},
    workspace_bytes=1024,
    launches=6,
)
UP = Row(FACTS, "stage up", Times(Sample(9.0, 0.1, 20)), designs={"up": "sm_90/m16"})
VLLM = Row(FACTS, "vllm int8", note="not installed")


def later(row: Row, tokens: int, microseconds: float) -> Row:
    """The row at another batch size."""
    times = Times(Sample(microseconds, 1.0, 20))
    return replace(row, facts=replace(FACTS, tokens=tokens, floor_us=12.0), times=times)


REPORT = Report(ON, CEILINGS, (LAYER, UP, VLLM, later(LAYER, 64, 40.0)))
