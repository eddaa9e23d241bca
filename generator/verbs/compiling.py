"""`compile` and `prefill`: what makes machine code of modules."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from generator.data import folder
from generator.errors import BuildError, Finding
from generator.verbs.chosen import repeated

if TYPE_CHECKING:
    from generator.aot.jobs import Progress
    from generator.resources import Record
    from generator.runtime.manifest import Manifest


def compile_(options: argparse.Namespace) -> int:
    from generator.aot.check import chosen_entries, chosen_targets, compile_entries
    from generator.aot.record import summary
    from generator.resources import read_folder
    from generator.runtime.manifest import load

    manifest = load(options.generated)
    targets = chosen_targets(manifest, options.target)
    entries = chosen_entries(manifest, options.spec, options.contract)
    if options.specs and not options.specs.is_dir():
        raise BuildError(Finding(f"--specs {options.specs}", "is no folder", "pass one"))
    resources = (options.specs or folder("specs")) / "resources"
    if options.calibrate and (options.record or options.missing):
        what = "measures designs that rules may have rejected"
        fix = "leave out --record and --missing"
        raise BuildError(Finding("--calibrate", what, fix))
    known = read_folder(resources) if options.missing else ()
    start = time.monotonic()
    result = compile_entries(manifest, entries, targets, options.jobs, Bar(), known=known)
    seconds = time.monotonic() - start
    stale: list[str] = []
    for record in result.records:
        print(summary(record))
        stale += _file(options, record, resources, manifest)
    counted = "outside the gates" if options.calibrate else "failures"
    print(
        f"{result.compiled} launches compiled in {seconds:.0f} s, {len(result.failures)} {counted}"
    )
    failures = () if options.calibrate else result.failures
    for failure in failures:
        print(f"{failure.name}: {failure.what}\n    {failure.look_at}", file=sys.stderr)
    for line in stale:
        print(line)
    if stale:
        again = f"python -m generator compile{repeated(options)} --record"
        print(f"records are stale; run `{again}`, with this Triton", file=sys.stderr)
    return 1 if failures or stale else 0


def _file(
    options: argparse.Namespace, record: Record, resources: Path, manifest: Manifest
) -> list[str]:
    """Write a record where that is asked for, else what is written otherwise."""
    from generator.aot.record import behind, write_calibration, write_record

    whole = options.generated is None
    if options.calibrate:
        print(f"wrote {write_calibration(resources, record, manifest)}")
    elif options.record:
        print(f"wrote {write_record(resources, record, manifest.by_symbol if whole else None)}")
    elif not (resources / record.name).exists():
        print(f"{resources / record.name}: not there, so nothing is compared")
    else:
        return list(behind(resources, record, whole=whole))
    return []


def prefill(options: argparse.Namespace) -> int:
    from generator.aot import prefill as prefilling
    from generator.aot.check import chosen_targets
    from generator.runtime.manifest import load

    manifest = load(options.generated)
    [target] = chosen_targets(manifest, [options.target])
    models = prefilling.chosen_models(manifest, options.models)
    start = time.monotonic()
    result = prefilling.prefill(
        manifest, models, target, options.cache, options.jobs, Bar(), look=options.verify
    )
    seconds = time.monotonic() - start
    for each in result.missing:
        print(f"{each.symbol}: a launch would compile; {options.cache} lacks {each.key}")
    there = len(result.keys) - len(result.missing)
    print(
        f"{options.cache} holds {there} of {len(result.keys)} keys of {len(models)} models on"
        f" {target.name} for Triton {result.triton}; {len(result.compiled)} compiled now,"
        f" {seconds:.0f} s"
    )
    return 1 if result.missing else 0


class Bar:
    """A line on a terminal that says how far the workers are, and at what; nothing elsewhere."""

    WIDTH = 24

    def __call__(self, progress: Progress) -> None:
        if not sys.stderr.isatty():
            return
        filled = self.WIDTH * progress.done // max(progress.of, 1)
        bar = "#" * filled + "-" * (self.WIDTH - filled)
        now = progress.now[-1] if progress.now else ""
        columns = shutil.get_terminal_size().columns
        line = f"[{bar}] {progress.done}/{progress.of} {now}"[: columns - 1]
        end = "\n" if progress.done == progress.of else ""
        print(f"\r{line}\033[K", end=end, file=sys.stderr, flush=True)
