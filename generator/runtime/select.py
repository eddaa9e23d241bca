"""Choose emitted modules: a pure function of the problem and the manifest's table. No torch, no
measuring.

Every choice carries its reason, every refusal one line per variant that was asked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..conditions import Condition, Multiple, ProductBelow
from ..errors import Finding, NoVariantError
from .entry import Entry
from .manifest import LayerPlan, Manifest
from .problem import LayerProblem, Problem

LOG = logging.getLogger("groupwise")
MEMO = 4096  # distinct problems remembered; a server meets one per batch size


@dataclass(frozen=True, slots=True)
class Choice:
    """An entry and why it was chosen."""

    entry: Entry
    why: str


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """One entry per stage of one plan; up and down share a row tile, hence one tile map."""

    plan: LayerPlan
    why: str  # of the plan
    stages: Mapping[str, Choice]  # by operation
    block_m: int

    def __getitem__(self, operation: str) -> Choice:
        return self.stages[operation]


def candidates(problem: Problem, manifest: Manifest) -> Iterator[Choice]:
    """Every entry that accepts the problem, best first."""
    for target in problem.targets:
        entries = {
            entry.design: entry
            for entry in manifest.by_contract.get(problem.contract, ())
            if entry.target == target
        }
        bands = manifest.bands.get((problem.contract, target), ())
        for table in manifest.tuned.get((problem.contract, target), ()):
            if (table.n, table.k, table.experts) == (problem.n, problem.k, problem.experts):
                timed = table.choice(problem.rows, bands)
                if timed is None:
                    continue
                rows, design = timed
                if not list(_obstacles(entries[design], problem, manifest)):
                    near = f"at {rows} rows, the nearest measured, on {table.device}, {table.date}"
                    yield Choice(entries[design], f"chosen by timings {near}")
        for band in bands:
            if not band.holds(problem.rows_per_expert):
                continue
            for rank, design in enumerate(band.designs):
                if not list(_obstacles(entries[design], problem, manifest)):
                    last = "up" if band.high is None else f"to {band.high}"
                    yield Choice(
                        entries[design],
                        f"rank {rank + 1} of {len(band.designs)} on {target} for"
                        f" {problem.rows_per_expert} rows per expert (band {band.low} {last})",
                    )


def _obstacles(entry: Entry, problem: Problem, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """What keeps an entry from a problem on the device at hand, and the way out."""
    build = f"python -m generator build --contract {problem.contract} --out DIR"
    if entry.target not in problem.targets:
        anywhere = manifest.targets[entry.target].backend == "any"
        what = f"is for {entry.target}; this device runs {', '.join(problem.targets)}"
        yield what, f"name {entry.target} among the targets too" if anywhere else build
    else:
        own = manifest.targets[problem.targets[0]]
        if entry.dot is not None and entry.dot not in own.dots:
            what = f"multiplies by {entry.dot}, which is not right on {own.name}"
            fix = f"python -m generator build --target portable --target {own.name} --out DIR"
            yield what, fix
    if entry.needs_gpu and problem.interpreted:
        what = "has inline PTX or is Gluon, which the CPU interpreter does not run"
        yield what, f"{build} --target portable"
    for condition in entry.requires:
        if not condition.holds(problem.sizes()):
            yield condition.failure(problem.sizes()), _way_out(condition, build)


def _way_out(condition: Condition, build: str) -> str:
    """How a refused problem gets a variant that does not put the condition."""
    if isinstance(condition, Multiple):
        return f"{build} --target portable, whose variants take every padded length"
    if isinstance(condition, ProductBelow) and "experts" not in condition.of:
        return f"{build} --target portable, whose offsets are int64, or pass fewer tokens at once"
    if isinstance(condition, ProductBelow) or condition.of == "rows":
        return "pass fewer tokens at once"
    bins = ", and `block_n` of its route designs" if condition.of == "experts" else ""
    return f"raise `limits.{condition.of.lower()}` of the spec{bins}, then {build}"


def select(problem: Problem, manifest: Manifest) -> Choice:
    """The best entry for one operation. Raises NoVariantError with one finding per entry
    refused.
    """
    _refuse_unknown(problem.targets, manifest)
    for choice in candidates(problem, manifest):
        return choice
    raise NoVariantError(_refusals(problem, manifest))


def _refuse_unknown(targets: tuple[str, ...], manifest: Manifest) -> None:
    """A target that the manifest knows nothing of has no dots to go by."""
    what = f"is no target of {manifest.directory}"
    fix = f"use {' or '.join(manifest.targets)}, or build with `--target`"
    unknown = [
        Finding(f"target {each}", what, fix) for each in targets if each not in manifest.targets
    ]
    if unknown:
        raise NoVariantError(unknown)


def select_layer(problem: LayerProblem, manifest: Manifest) -> LayerChoice:
    """The best entries for a whole layer; remembered, and logged once for each distinct problem.

    Raises NoVariantError where a stage has no entry, or up and down have none of a common row tile.
    """
    known: LayerChoice | None = manifest.choices.get(problem)
    if known is None:
        if len(manifest.choices) >= MEMO:
            manifest.choices.clear()
        known = manifest.choices[problem] = _select_layer(problem, manifest)
        if (problem.layer, known.plan.name) not in manifest.logged:
            manifest.logged.add((problem.layer, known.plan.name))
            LOG.info("%s: plan %s, %s", problem.layer, known.plan.name, known.why)
        for choice in known.stages.values():
            if choice.entry.symbol not in manifest.logged:
                manifest.logged.add(choice.entry.symbol)
                LOG.info("%s: %s; first for %s", choice.entry.symbol, choice.why, problem)
    return known


def _select_layer(problem: LayerProblem, manifest: Manifest) -> LayerChoice:
    """Target by target, the plans in their order for the band and the length of K."""
    _refuse_unknown(problem.targets, manifest)
    findings: list[Finding] = []
    for target in problem.targets:
        for plan, why in _plans(problem, manifest, target):
            try:
                return _realise(plan, why, problem, manifest, target)
            except NoVariantError as error:
                findings += [each for each in error.findings if each not in findings]
    if not findings:
        asked = "plan" if problem.plan is None else f"plan {problem.plan}"
        what = f"has no {asked} for {', '.join(problem.targets) or 'this device'}"
        fix = f"python -m generator build --contract {problem.layer} --out DIR"
        findings.append(Finding(problem.layer, what, fix))
    raise NoVariantError(findings)


def _plans(
    problem: LayerProblem, manifest: Manifest, target: str
) -> Iterator[tuple[LayerPlan, str]]:
    """The plans that a target takes for a problem, best first; the one that was asked for alone."""
    layer = manifest.layer(problem.layer)
    if problem.plan is not None:
        if target in layer.selection:
            yield layer.plan(problem.plan), "asked for"
        return
    down = problem.problem("", "down")
    for band in layer.selection.get(target, ()):
        if band.holds(down.rows_per_expert):
            for choice in band.choices:
                if all(each.holds(down.sizes()) for each in choice.requires):
                    limits = ", ".join(str(each) for each in choice.requires)
                    why = f"cheaper for {limits}" if limits else "for any K"
                    yield layer.plan(choice.plan), f"{why} on {target}"


def _realise(
    plan: LayerPlan, why: str, problem: LayerProblem, manifest: Manifest, target: str
) -> LayerChoice:
    """The stages of a plan whose GEMMs are a target's own."""
    names = plan.tokens if problem.start == "tokens" else plan.rows
    by_operation = {manifest.contracts[name]["operation"]: name for name in names}
    stages: dict[str, Choice] = {}
    for operation, name in by_operation.items():
        if operation not in ("up", "down"):
            stages[operation] = select(problem.problem(name, operation), manifest)
    up, down = (
        [each for each in candidates(asked, manifest) if each.entry.target == target]
        or _refuse(asked, manifest)
        for asked in (problem.problem(by_operation[each], each) for each in ("up", "down"))
    )
    for first in up:
        for second in down:
            if first.entry.block_m is not None and first.entry.block_m == second.entry.block_m:
                stages |= {"up": first, "down": second}
                in_order = {operation: stages[operation] for operation in by_operation}
                return LayerChoice(plan, why, in_order, first.entry.block_m)
    raise NoVariantError(
        Finding(
            problem.layer,
            f"no up and down variants of a common row tile accept this shape on {target}",
            f"python -m generator build --contract {problem.layer} --out DIR",
            "both read one tile map",
        )
    )


def _refuse(problem: Problem, manifest: Manifest) -> list[Choice]:
    raise NoVariantError(_refusals(problem, manifest))


def _refusals(problem: Problem, manifest: Manifest) -> list[Finding]:
    entries = manifest.by_contract.get(problem.contract, ())
    build = f"python -m generator build --contract {problem.contract} --out DIR"
    if not entries:
        what = f"{manifest.directory} holds no variant of this contract"
        return [Finding(problem.contract, what, build)]
    findings = [
        Finding(f"{entry.contract} {entry.name}", what, fix)
        for entry in entries
        for what, fix in _obstacles(entry, problem, manifest)
    ]
    banned = Finding(problem.contract, "stands in no selection table", build)
    return findings or [banned]
