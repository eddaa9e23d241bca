"""`python -m generator tune`: compile, time, write what was chosen."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from generator.errors import Finding, LaunchError
from generator.files import replace_file
from generator.runtime.device import here, targets_for
from generator.runtime.entry import Entry
from generator.runtime.manifest import Manifest, Target, load
from generator.tune import measured
from generator.tune.cases import Setup, setups
from generator.tune.choose import chosen
from generator.tune.compiled import compiled
from generator.tune.environment import environment
from generator.tune.measured import Measurement
from generator.tune.timing import timer_for
from generator.tune.trials import unordered
from generator.tune.tuner import GEMMS, Tuner, first_orders
from generator.tune.tuning_file import text

Say = Callable[[str], None]
BUILD = "python -m generator build --rivals 8 --target portable --target NAME --out DIR"


@dataclass(frozen=True)
class Options:
    """The verb's options, as the command line gives them."""

    models: Sequence[str]
    contract: str | None
    tokens: Sequence[int]
    generated: Path
    trials: Path
    out: Path
    jobs: int
    seed: int
    command: str  # as it was typed


def tune(options: Options, say: Say, progress: Say) -> int:
    """Time what is not in the trials file yet, then write the tuning file anew of all in it."""
    device = here()
    _refuse(options, gpu=device.type == "cuda")
    manifest = load(options.generated)
    target = _target(device, manifest)
    on = environment(device, options.command, str(manifest.directory))
    conditions = measured.Conditions.of(on)
    known = measured.read(options.trials, conditions)
    wanted = setups(
        manifest, models=options.models, contract=options.contract, tokens=options.tokens
    )
    left = list(_left(wanted, known))
    start, total = time.monotonic(), sum(len(each.batches) for each in left)
    if left:
        entries = _entries(manifest, target, left)
        progress(f"{len(entries)} modules of {target.name} to be compiled")
        there, left_out = compiled(
            manifest, first_orders(entries), target, options.jobs, lambda _: None
        )
        for each in left_out:
            say(f"not timed: {each.symbol}: {each.why}")
        designs = {(entry.contract, unordered(entry)) for entry in there}
        by_contract: dict[str, list[Entry]] = {}
        for entry in entries:
            if (entry.contract, unordered(entry)) in designs:
                by_contract.setdefault(entry.contract, []).append(entry)
        tuner = Tuner(manifest, by_contract, device, timer_for(device), options.seed)
        done = 0
        for setup in left:
            for batch, found in tuner.measurements(setup):
                measured.append(options.trials, conditions, found)
                known, done = [*known, *found], done + 1
                seconds = time.monotonic() - start
                eta = seconds / done * (total - done)
                progress(
                    f"[{done}/{total}] {setup.model.name} {setup.layer.name} {batch.tokens} tokens:"
                    f" {len(found)} designs, {seconds:.0f} s, {eta:.0f} s to go"
                )
    shapes = chosen(known)
    replace_file(options.out, text(on, target.name, shapes).encode())
    buckets = sum(len(each.buckets) for each in shapes)
    designs_taken = len({(s.contract, b.design) for s in shapes for b in s.buckets})
    say(f"{options.out}: {len(shapes)} shapes, {buckets} buckets, {designs_taken} designs")
    return 0


def _refuse(options: Options, *, gpu: bool) -> None:
    """Raises LaunchError with all that cannot be done, before anything is timed."""
    findings = []
    if not gpu:
        what = "there is no GPU, and the CPU interpreter's times say nothing of one"
        findings.append(Finding("tune", what, "run it on the device that is to serve"))
    for name, path in (("--trials", options.trials), ("--out", options.out)):
        if path.is_dir():
            findings.append(Finding(f"{name} {path}", "is a folder", "name a file"))
        elif not path.parent.is_dir():
            what = f"there is no folder {path.parent}"
            findings.append(Finding(f"{name} {path}", what, "make it, or name another file"))
    if findings:
        raise LaunchError(findings)


def _target(device: torch.device, manifest: Manifest) -> Target:
    """The device's own. Raises LaunchError where no target describes it."""
    target = manifest.targets[targets_for(device, manifest)[0]]
    if target.compiler is None:
        what = "no target of its manifest describes this device"
        fix = "add one to specs/targets/, see CONTRIBUTING.md"
        raise LaunchError(Finding(f"--generated {manifest.directory}", what, fix))
    return target


def _left(wanted: Sequence[Setup], known: Sequence[Measurement]) -> list[Setup]:
    """Without the batches that are in the trials file."""
    done = {(each.model, each.layer, each.rows) for each in known}
    left = []
    for setup in wanted:
        batches = tuple(
            each
            for each in setup.batches
            if (setup.model.name, setup.layer.name, each.tokens * setup.model.top_k) not in done
        )
        if batches:
            left.append(replace(setup, batches=batches))
    return left


def _entries(manifest: Manifest, target: Target, wanted: Sequence[Setup]) -> list[Entry]:
    """The GEMM modules of a target that the layers use. Raises LaunchError where there are none."""
    used = {name for each in wanted for plan in each.layer.plans for name in plan.tokens}
    found = [
        each
        for each in manifest.entries
        if each.contract in used
        and each.target == target.name
        and manifest.contracts[each.contract]["operation"] in GEMMS
    ]
    if not found:
        what = f"holds no GEMM of {target.name} for these layers"
        raise LaunchError(Finding(f"--generated {manifest.directory}", what, BUILD))
    return found
