"""The algorithm of the pull request that this project starts from, in modules emitted for `ilu`:
int8 products by fp16 dots, from rows that are sorted by expert, a separate requantization.

What differs from the original: tiles are chosen by this project's cost model, where it had Triton's
autotuner; int4 weights are unpacked in registers, where it kept a second, int8 copy; sums are
rounded back to int32 only where a proof asks for it; groups are walked in exact tiles, where it
masked; codes are rounded half to even if the layer contract says so. Like the original, an eager
call first reads the largest count back to the host, by which that sized its grid; a graph cannot,
so a replay leaves it out. Neither sorts the rows nor combines them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from generator.errors import Finding, LaunchError
from generator.runtime import reference
from generator.runtime.layer import LayerRun, rows_problem, run_rows, workspace_bytes
from generator.runtime.manifest import Manifest, load
from generator.runtime.packed import PackedExperts
from generator.tune.timing import Subject
from generator.verify.inputs import Tokens, sorted_rows
from generator.verify.stages import poisoned, poisoned_bytes

TARGETS = ("ilu", "portable")
PLAN = "separate"
BUILD = "python -m generator build --target ilu --target portable --out DIR"


def seed_manifest(directory: Path) -> Manifest:
    """The manifest of --seed-modules. Raises LaunchError where it holds no module for `ilu`."""
    manifest = load(directory)
    if not any(entry.target == TARGETS[0] for entry in manifest.entries):
        what = f"holds no module for {TARGETS[0]}"
        raise LaunchError(Finding(f"--seed-modules {directory}", what, BUILD))
    return manifest


@dataclass(frozen=True)
class SeedCall:
    """One call from sorted rows."""

    manifest: Manifest
    packed: PackedExperts
    rows: torch.Tensor  # [R, H]
    counts: torch.Tensor  # int32 [E]
    out: torch.Tensor  # [R, H]
    workspace: torch.Tensor  # bytes

    def run(self) -> LayerRun:
        return run_rows(
            self.packed,
            self.rows,
            self.counts,
            self.manifest,
            out=self.out,
            workspace=self.workspace,
            targets=TARGETS,
            plan=PLAN,
        )

    def run_and_ask(self) -> LayerRun:
        """As the original does: its grid was sized by the largest count."""
        int(self.counts.max())
        return self.run()


def seed_calls(
    manifest: Manifest, copies: tuple[PackedExperts, ...], tokens: tuple[Tokens, ...]
) -> tuple[SeedCall, ...]:
    """One call for each batch of tokens, on the copies of the weights in turn."""
    top_k = tokens[0].ids.shape[1]
    rows = tokens[0].ids.shape[0] * top_k
    needed = workspace_bytes(rows_problem(copies[0], rows, TARGETS, PLAN), manifest)
    workspace = poisoned_bytes(needed, tokens[0].hidden.device)
    calls = []
    for index, given in enumerate(tokens):
        packed = copies[index % len(copies)]
        hidden, counts = sorted_rows(given, packed.experts)
        calls.append(SeedCall(manifest, packed, hidden, counts, poisoned(hidden), workspace))
    return tuple(calls)


def seed_subject(calls: tuple[SeedCall, ...]) -> Subject:
    """The calls, to be timed."""
    return Subject(
        "seed",
        tuple(each.run for each in calls),
        eager=tuple(partial(SeedCall.run_and_ask, each) for each in calls),
    )


def combined(call: SeedCall, given: Tokens) -> torch.Tensor:
    """[T, H] of a finished call: its rows by the oracle's combine, to hold against a layer's."""
    local = torch.where(given.ids < call.packed.experts, given.ids, call.packed.experts)
    order = torch.argsort(local.reshape(-1), stable=True)
    there = int((given.ids < call.packed.experts).sum())
    slot_row = torch.full((order.numel(),), -1, dtype=torch.int32, device=order.device)
    slot_row[order[:there]] = torch.arange(there, dtype=torch.int32, device=order.device)
    return reference.combine(call.out, slot_row, given.weights)
