"""`python -m generator tune`: compile, time, write what was chosen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
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
from generator.tune.compiled import gates
from generator.tune.environment import environment
from generator.tune.measured import Measurement
from generator.tune.stages import GEMMS
from generator.tune.timing import timer_for
from generator.tune.tuner import Tuner, first_orders
from generator.tune.tuning_file import text

Say = Callable[[str], None]
BUILD = "python -m generator build --rivals 8 --target portable --target NAME --out DIR"


@dataclass(frozen=True)
class Options:
    """The verb's options, as the command line gives them."""

    models: Sequence[str]
    contract: str | None
    tokens: Sequence[int]
    routings: Sequence[str]
    generated: Path
    trials: Path
    out: Path
    leave_out: Sequence[str]  # globs of symbols
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
        manifest,
        models=options.models,
        contract=options.contract,
        tokens=options.tokens,
        routings=options.routings,
    )
    left = _left(wanted, known)
    _refuse_globs(options.leave_out, manifest, target)
    if left:
        with gates(manifest, target, options.jobs, say) as gate:
            entries = _entries(manifest, target, left, options.leave_out)
            first = first_orders(entries)
            progress(
                f"{len(first)} modules of {target.name} to be compiled, others as they are timed"
            )
            gate.passing(first)
            own = _by_contract(entries)
            tuner = Tuner(manifest, own, gate.passing, device, timer_for(device), options.seed, say)
            for found in _timed(tuner, left, tuple(known), progress):
                measured.append(options.trials, conditions, found)
                known += found
    shapes = chosen(
        each
        for each in known
        if not _matches(f"{each.contract}_{target.name}_{each.design}", options.leave_out)
    )
    replace_file(options.out, text(on, target.name, shapes).encode())
    buckets = sum(len(each.buckets) for each in shapes)
    designs_taken = len({(s.contract, b.design) for s in shapes for b in s.buckets})
    say(f"{options.out}: {len(shapes)} shapes, {buckets} buckets, {designs_taken} designs")
    return 0


def _timed(
    tuner: Tuner, left: Sequence[Setup], known: Sequence[Measurement], progress: Say
) -> Iterator[list[Measurement]]:
    """Batch by batch, and how far it is after each round of one."""
    start, done, total = time.monotonic(), 0, 2 * sum(len(each.batches) for each in left)
    for setup in left:
        for batch, found in tuner.measurements(setup, known):
            if found is not None:
                yield found
            done += 1
            seconds = time.monotonic() - start
            eta = seconds / done * (total - done)
            what = "first round" if found is None else f"{len(found)} timings"
            progress(
                f"[{done}/{total}] {setup.model.name} {setup.layer.name} {batch.tokens} tokens"
                f" {batch.routing}: {what}, {seconds:.0f} s, {eta:.0f} s to go"
            )


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
    """Without the batches that are in the trials file, each under a routing of its own."""
    done = {(each.model, each.layer, each.rows, each.routing) for each in known}
    left = []
    for setup in wanted:
        model, layer = setup.model, setup.layer.name
        batches = tuple(
            each
            for each in setup.batches
            if (model.name, layer, each.tokens * model.top_k, each.routing) not in done
        )
        if batches:
            left.append(replace(setup, batches=batches))
    return left


def _entries(
    manifest: Manifest, target: Target, wanted: Sequence[Setup], without: Sequence[str]
) -> list[Entry]:
    """The GEMM modules of a target that the layers use, but for symbols that a glob of `without`
    matches. Raises LaunchError where there are none.
    """
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
    return [each for each in found if not _matches(each.symbol, without)]


def _matches(symbol: str, globs: Sequence[str]) -> bool:
    return any(fnmatch(symbol, glob) for glob in globs)


def _refuse_globs(globs: Sequence[str], manifest: Manifest, target: Target) -> None:
    """Raises LaunchError with those that leave nothing out."""
    own = [each.symbol for each in manifest.entries if each.target == target.name]
    what = f"matches no module of {target.name}"
    fix = "write it like a symbol, such as 'down_w8g128_*_w4s1_*'"
    findings = [
        Finding(f"--leave-out {glob}", what, fix)
        for glob in globs
        if not any(fnmatch(symbol, glob) for symbol in own)
    ]
    if findings:
        raise LaunchError(findings)


def _by_contract(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for each in entries:
        found.setdefault(each.contract, []).append(each)
    return found
