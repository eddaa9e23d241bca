"""`python -m generator bench`: what it asks of the options, the progress, the files, the
verdict.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from generator.errors import Finding, LaunchError
from generator.runtime.device import here
from generator.runtime.manifest import load
from generator.tune import plots, record
from generator.tune.bench import Bench
from generator.tune.cases import setups
from generator.tune.ceilings import ceilings
from generator.tune.environment import environment
from generator.tune.rows import Report, Row
from generator.tune.seed_layer import seed_manifest
from generator.tune.table import lines
from generator.tune.timing import Timer, timer_for

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """The verb's options, as the command line gives them."""

    models: Sequence[str]
    contract: str | None
    tokens: Sequence[int]
    routings: Sequence[str]
    baselines: bool
    stages: bool
    generated: Path | None
    seed_modules: Path | None
    out: Path | None
    plots: bool
    repeat: int
    check: str
    seed: int
    command: str  # as it was typed


def bench(options: Options, say: Say, progress: Say, timer: Timer | None = None) -> int:
    """Measure, and say the table; with `out`, write what is done after every batch. Returns the
    exit code: 1 where a bit differs.
    """
    manifest = load(options.generated)
    device = here()
    _refuse(options, gpu=device.type == "cuda")
    chosen = setups(
        manifest,
        models=options.models,
        contract=options.contract,
        tokens=options.tokens,
        routings=options.routings,
    )
    seed_modules = None if options.seed_modules is None else seed_manifest(options.seed_modules)
    timer = timer or timer_for(device)
    measuring = Bench(
        manifest,
        device,
        timer,
        ceilings(device, timer, options.repeat),
        repeat=options.repeat,
        stages=options.stages,
        baselines=options.baselines,
        seed_modules=seed_modules,
        check=options.check,
        seed=options.seed,
    )
    on = environment(device, options.command, str(manifest.directory))
    rows: list[Row] = []
    total, done, start = sum(len(each.batches) for each in chosen), 0, time.monotonic()
    for setup in chosen:
        for batch, found in measuring.rows(setup):
            rows, done = rows + found, done + 1
            seconds = time.monotonic() - start
            progress(
                f"[{done}/{total}] {setup.model.name} {setup.layer.name}"
                f" {batch.tokens} tokens {batch.routing}, {seconds:.0f} s"
            )
            if options.out is not None:  # a run that is cut off leaves what it measured
                record.write(Report(on, measuring.ceilings, tuple(rows)), options.out)
    report = Report(on, measuring.ceilings, tuple(rows))
    for line in lines(report):
        say(line)
    if options.out is not None and options.plots:
        plots.write(report, options.out)
    return 1 if report.different else 0


def _refuse(options: Options, *, gpu: bool) -> None:
    """Raises LaunchError with all that cannot be done, before anything is measured."""
    findings = []
    if options.repeat < 1:
        findings.append(Finding("--repeat", f"is {options.repeat}", "use 1 or more"))
    if options.baselines and not gpu:
        what = "there is no GPU, and the CPU interpreter's times compare with nothing"
        findings.append(Finding("--baselines", what, "leave it out, or run on a GPU"))
    if findings:
        raise LaunchError(findings)
    if options.out is not None and options.plots:
        plots.require()
