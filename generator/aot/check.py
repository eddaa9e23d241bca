"""Compile emitted modules for targets that are not there, hold each against its gates, and record
what it takes. Behind `python -m generator compile`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from generator.aot.gates import Broken, broken
from generator.aot.jobs import (
    Failure,
    Job,
    Progress,
    answered,
    compile_request,
    refused,
    specializes_length,
)
from generator.aot.pool import Pool
from generator.errors import BuildError, Finding
from generator.resources import Figures, Record, figures
from generator.runtime.entry import Entry
from generator.runtime.manifest import Manifest, Target


@dataclass(frozen=True, slots=True)
class Result:
    """What compiling came to."""

    records: tuple[Record, ...]
    failures: tuple[Failure, ...]
    compiled: int


def chosen_targets(manifest: Manifest, names: Sequence[str]) -> list[Target]:
    """The named targets, else all that modules were built for and a compiler knows. Raises
    BuildError for a name that there is not, or that no compiler compiles for.
    """
    there = manifest.targets
    legal = [name for name, target in there.items() if target.compiler is not None]
    unknown = [name for name in names if name not in legal]
    if unknown:
        fix = f"use one of {', '.join(legal)}"
        why = "has no compiler of its own"
        raise BuildError(
            [
                Finding(f"--target {name}", why if name in there else "no such target", fix)
                for name in unknown
            ]
        )
    built = {entry.target for entry in manifest.entries}
    chosen = [there[name] for name in legal if name in (names or built)]
    if not chosen:
        what = "was built for no target that has a compiler"
        raise BuildError(Finding(str(manifest.directory), what, f"pass --target {legal[0]}"))
    return chosen


def chosen_entries(
    manifest: Manifest, specs: Sequence[str], contracts: Sequence[str]
) -> list[Entry]:
    """The entries of contracts that fit a glob, and that layers of the named specs use; empty names
    mean no restriction. Raises BuildError where nothing fits.
    """
    used = {
        name
        for layer in manifest.layers.values()
        if not specs or layer.spec in specs
        for plan in layer.plans
        for name in plan.tokens + plan.rows
    }
    entries = [
        entry
        for entry in manifest.entries
        if entry.contract in used
        and (not contracts or any(fnmatch(entry.contract, each) for each in contracts))
    ]
    if not entries:
        asked = [*(f"--spec {each}" for each in specs), *(f"--contract {c}" for c in contracts)]
        what = f"fits nothing that a layer of {manifest.directory} uses"
        fix = "see `python -m generator list`"
        raise BuildError(Finding(" ".join(asked) or str(manifest.directory), what, fix))
    return entries


def compile_entries(
    manifest: Manifest,
    entries: Sequence[Entry],
    targets: Sequence[Target],
    jobs: int,
    tell: Callable[[Progress], None],
    *,
    known: Sequence[Record] = (),
) -> Result:
    """Compile each entry for its own target, or for all of them where it runs anywhere, in a Triton
    cache of its own. What is `known` of the same Triton is not compiled again, only judged.
    """
    failures: list[Failure] = []
    with (
        tempfile.TemporaryDirectory(prefix="groupwise-") as cache,
        Pool(jobs, Path(cache), plain=True) as pool,
    ):
        triton = pool.ask({"verb": "version"})["triton"]
        recorded = {each.target: each.variants for each in known if each.triton == triton}
        work = []
        for job in launches_of(manifest, entries, targets, pool):
            figure = recorded.get(job.target.name, {}).get(job.entry.symbol)
            if figure is None:
                work.append(job)
            else:
                failures += _failures(job, broken(job.entry, job.target, figure, triton))
        requests = [{**compile_request(manifest, each), "figures": True} for each in work]
        answers = answered(pool, work, requests, tell)
    taken: dict[str, dict[str, Figures]] = {each.name: {} for each in targets}
    for job, answer in zip(work, answers, strict=True):
        if "figures" not in answer:
            failures.append(refused(job, answer))
            continue
        found = figures(answer["figures"])
        own = taken[job.target.name]
        most = own.setdefault(job.entry.symbol, found)
        own[job.entry.symbol] = max(most, found, key=_burden)  # of its launches
        failures += _failures(job, broken(job.entry, job.target, found, triton))
    records = tuple(Record(name, triton, own) for name, own in taken.items() if own)
    return Result(records, tuple(dict.fromkeys(failures)), len(work))


def _burden(each: Figures) -> tuple[int, int, int]:
    return (each.stack, each.registers + each.accumulators, each.shared)


def _failures(job: Job, gates: Iterable[Broken]) -> list[Failure]:
    return [Failure(job.name, each.what, f"rule {each.rule}") for each in gates]


def launches_of(
    manifest: Manifest, entries: Sequence[Entry], targets: Sequence[Target], pool: Pool
) -> list[Job]:
    """What the runtime launches of the entries, on each target that runs them."""
    anywhere = {name for name, each in manifest.targets.items() if each.backend == "any"}
    jobs = []
    for target in targets:
        own = anywhere | {target.name}
        asked = {
            "verb": "launches",
            "directory": str(manifest.directory),
            "symbols": [each.symbol for each in entries if each.target in own],
            "long": specializes_length(target),
        }
        for symbol, arguments in pool.ask(asked)["launches"]:
            jobs.append(Job(manifest.by_symbol[symbol], target, arguments))
    return jobs
