"""Compile the modules that are to be timed, side by side and while no clock runs, and leave out
those that break a gate of `compile`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from generator.aot.check import launches_of
from generator.aot.gates import broken
from generator.aot.jobs import answered, compile_request, refused
from generator.aot.pool import Pool
from generator.resources import figures
from generator.runtime.entry import Entry
from generator.runtime.manifest import Manifest, Target


def triton_cache() -> Path:
    """Where this process looks for compiled kernels."""
    home = os.environ.get("TRITON_HOME", str(Path.home()))
    return Path(os.environ.get("TRITON_CACHE_DIR") or Path(home) / ".triton" / "cache")


class Gates:
    """The gates of `compile` before a tuner, which asks for modules as it comes to them: what is
    known of one is remembered, the others are compiled into Triton's own cache.
    """

    def __init__(
        self, manifest: Manifest, target: Target, pool: Pool, say: Callable[[str], None]
    ) -> None:
        self._manifest, self._target, self._pool, self._say = manifest, target, pool, say
        self._keeps: dict[str, bool] = {}  # by symbol

    def passing(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those whose every launch compiles and keeps the gates; why another one does not, it says
        once. Raises BuildError where no compiler's process answers.
        """
        new = {each.symbol: each for each in entries if each.symbol not in self._keeps}
        if new:
            left_out = self._left_out(list(new.values()))
            self._keeps |= {symbol: symbol not in left_out for symbol in new}
            for symbol, why in left_out.items():
                self._say(f"not timed: {symbol}: {why}")
        return [each for each in entries if self._keeps[each.symbol]]

    def _left_out(self, entries: Sequence[Entry]) -> dict[str, str]:
        """The first reason against each that has one, by symbol."""
        triton = self._pool.ask({"verb": "version"})["triton"]
        work = launches_of(self._manifest, entries, [self._target], self._pool)
        requests = [{**compile_request(self._manifest, each), "figures": True} for each in work]
        answers = answered(self._pool, work, requests, lambda _: None)
        left: dict[str, str] = {}
        for job, answer in zip(work, answers, strict=True):
            if "figures" not in answer:
                left.setdefault(job.entry.symbol, refused(job, answer).what)
                continue
            for gate in broken(job.entry, self._target, figures(answer["figures"]), triton):
                left.setdefault(job.entry.symbol, gate.what)
        return left


@contextmanager
def gates(
    manifest: Manifest, target: Target, jobs: int, say: Callable[[str], None]
) -> Iterator[Gates]:
    """Gates with up to `jobs` compilers, which stay, and wait for input while something is timed:
    to start them anew for each few modules would take longer than to compile those.
    """
    cache = triton_cache()
    cache.mkdir(parents=True, exist_ok=True)
    with Pool(jobs, cache) as pool:
        yield Gates(manifest, target, pool, say)
