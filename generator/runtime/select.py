"""Choose emitted modules: a pure function of the problem and the manifest's table. No torch, no
measuring.

Every choice carries its reason, every refusal one line per variant that was asked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from generator.errors import Finding, NoVariantError
from generator.runtime.manifest import Entry, LayerPlan, Manifest
from generator.runtime.problem import LayerProblem, Problem

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
    stages: Mapping[str, Choice]  # by operation
    block_m: int

    def __getitem__(self, operation: str) -> Choice:
        return self.stages[operation]


def candidates(problem: Problem, manifest: Manifest) -> Iterator[Choice]:
    """Every entry that accepts the problem, best first."""
    for target in problem.targets:
        for band in manifest.bands.get((problem.contract, target), ()):
            if not band.holds(problem.rows_per_expert):
                continue
            entries = {
                entry.design: entry
                for entry in manifest.by_contract[problem.contract]
                if entry.target == target
            }
            for rank, design in enumerate(band.designs):
                entry = entries[design]
                if all(each.holds(problem.sizes()) for each in entry.requires):
                    upper = "up" if band.high is None else band.high
                    yield Choice(
                        entry,
                        f"rank {rank + 1} of {len(band.designs)} on {target} for"
                        f" {problem.rows_per_expert} rows per expert (band {band.low} to {upper})",
                    )


def select(problem: Problem, manifest: Manifest) -> Choice:
    """The best entry for one operation. Raises NoVariantError with one finding per entry
    refused.
    """
    for choice in candidates(problem, manifest):
        return choice
    raise NoVariantError(_refusals(problem, manifest))


def select_layer(problem: LayerProblem, manifest: Manifest) -> LayerChoice:
    """The best entries for a whole layer; remembered, and logged once for each distinct problem.

    Raises NoVariantError where a stage has no entry, or up and down have none of a common row tile.
    """
    known: LayerChoice | None = manifest.choices.get(problem)
    if known is None:
        if len(manifest.choices) >= MEMO:
            manifest.choices.clear()
        known = manifest.choices[problem] = _select_layer(problem, manifest)
        for choice in known.stages.values():
            if choice.entry.symbol not in manifest.logged:
                manifest.logged.add(choice.entry.symbol)
                LOG.info("%s: %s; first for %s", choice.entry.symbol, choice.why, problem)
    return known


def _select_layer(problem: LayerProblem, manifest: Manifest) -> LayerChoice:
    findings: list[Finding] = []
    for plan in manifest.layer(problem.layer).plans:
        try:
            return _realise(plan, problem, manifest)
        except NoVariantError as error:
            findings += error.findings
    raise NoVariantError(findings)


def _realise(plan: LayerPlan, problem: LayerProblem, manifest: Manifest) -> LayerChoice:
    names = plan.tokens if problem.start == "tokens" else plan.rows
    by_operation = {manifest.contracts[name]["operation"]: name for name in names}
    stages: dict[str, Choice] = {}
    for operation, name in by_operation.items():
        stages[operation] = select(problem.problem(name, operation), manifest)
    up, down = (problem.problem(by_operation[each], each) for each in ("up", "down"))
    for first in candidates(up, manifest):
        for second in candidates(down, manifest):
            if first.entry.block_m is not None and first.entry.block_m == second.entry.block_m:
                stages |= {"up": first, "down": second}
                return LayerChoice(plan, stages, first.entry.block_m)
    raise NoVariantError(
        Finding(
            problem.layer,
            "no up and down variants of a common row tile accept this shape",
            f"python -m generator build --contract {problem.layer} --out DIR",
            "both read one tile map",
        )
    )


def _refusals(problem: Problem, manifest: Manifest) -> list[Finding]:
    entries = manifest.by_contract.get(problem.contract, ())
    build = f"python -m generator build --contract {problem.contract} --out DIR"
    if not entries:
        what = f"{manifest.directory} holds no variant of this contract"
        return [Finding(problem.contract, what, build)]
    findings = []
    for entry in entries:
        where = f"{entry.contract} {entry.name}"
        if entry.target not in problem.targets:
            what = f"is for {entry.target}; this device runs {', '.join(problem.targets)}"
            findings.append(Finding(where, what, build))
        for condition in entry.requires:
            if not condition.holds(problem.sizes()):
                what = condition.failure(problem.sizes())
                findings.append(Finding(where, what, "pad the layer, or split the call"))
    banned = Finding(problem.contract, "stands in no selection table", build)
    return findings or [banned]
