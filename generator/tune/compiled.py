"""Compile the modules that are to be timed, side by side and before the clock runs, and leave out
those that break a gate of `compile`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from generator.aot.check import launches_of
from generator.aot.gates import broken
from generator.aot.jobs import Progress, answered, compile_request, refused
from generator.aot.pool import Pool
from generator.resources import figures
from generator.runtime.entry import Entry
from generator.runtime.manifest import Manifest, Target


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A module that is not timed, and why."""

    symbol: str
    why: str


def triton_cache() -> Path:
    """Where this process looks for compiled kernels."""
    home = os.environ.get("TRITON_HOME", str(Path.home()))
    return Path(os.environ.get("TRITON_CACHE_DIR") or Path(home) / ".triton" / "cache")


def compiled(
    manifest: Manifest,
    entries: Sequence[Entry],
    target: Target,
    jobs: int,
    tell: Callable[[Progress], None],
) -> tuple[list[Entry], list[LeftOut]]:
    """The entries whose every launch compiles and keeps the gates, in Triton's own cache."""
    cache = triton_cache()
    cache.mkdir(parents=True, exist_ok=True)
    left: dict[str, str] = {}
    with Pool(jobs, cache) as pool:
        triton = pool.ask({"verb": "version"})["triton"]
        work = launches_of(manifest, entries, [target], pool)
        requests = [{**compile_request(manifest, each), "figures": True} for each in work]
        answers = answered(pool, work, requests, tell)
    for job, answer in zip(work, answers, strict=True):
        if "figures" not in answer:
            left.setdefault(job.entry.symbol, refused(job, answer).what)
            continue
        for gate in broken(job.entry, target, figures(answer["figures"]), triton):
            left.setdefault(job.entry.symbol, gate.what)
    there = [each for each in entries if each.symbol not in left]
    return there, [LeftOut(symbol, why) for symbol, why in left.items()]
