"""`python -m generator verify`: the table, the progress and the verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from generator.errors import Finding, LaunchError, NoVariantError
from generator.runtime import interpreter
from generator.runtime.device import here, targets_for
from generator.runtime.layer import (
    rows_problem,
    run_rows,
    run_tokens,
    tokens_problem,
    workspace_bytes,
)
from generator.runtime.manifest import Manifest, load
from generator.runtime.pack import pack
from generator.runtime.packed import PackedExperts
from generator.runtime.select import select_layer
from generator.verify.cases import Case, cases
from generator.verify.compare import Comparison
from generator.verify.inputs import seed_state, sorted_rows, tokens
from generator.verify.stages import (
    Checked,
    check_stages,
    check_variants,
    poisoned,
    poisoned_bytes,
)


def verify(
    *,
    shape: str | None,
    contract: str | None,
    generated: Path | None,
    everything: bool,
    seed: int,
    say: Callable[[str], None],
) -> int:
    """Run the cases and say what differed. Returns the exit code: 1 where a bit differs."""
    manifest = load(generated)
    device = here()
    chosen = list(
        cases(
            manifest,
            shape=shape,
            contract=contract,
            everything=everything,
            small=interpreter.active(),
        )
    )
    if not chosen:
        what = f"nothing in {manifest.directory} fits --shape and --contract"
        raise LaunchError(Finding("verify", what, "`--all` alone runs everything there is"))
    # The bare command on a CPU is a first look, so it takes one of the two ways in.
    quick = interpreter.active() and not (shape or contract or everything)
    where = "Triton's CPU interpreter"
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    say(f"{where}; {manifest.directory}; {len(chosen)} cases")
    bits = different = 0
    for index, case in enumerate(chosen):
        started = time.monotonic()
        say(f"\n[{index + 1}/{len(chosen)}] {case.layer.name}  {case.shape}")
        calls = _calls(case, manifest, device, seed, say, rows=not quick, every_plan=everything)
        for checked in calls:
            taken = checked.run.choice
            say(f"  from {checked.run.problem.start}, plan {taken.plan.name}: {taken.why}")
            for each in _comparisons(checked, manifest, everything):
                bits, different = bits + each.bits, different + each.different
                say(_row(each))
        say(f"  {time.monotonic() - started:.1f} s")
    say(f"\n{bits} bits compared, {different} different")
    return 1 if different else 0


def _calls(
    case: Case,
    manifest: Manifest,
    device: torch.device,
    seed: int,
    say: Callable[[str], None],
    *,
    rows: bool,
    every_plan: bool,
) -> Iterator[Checked]:
    """The layer from tokens with ids, then the same batch from sorted rows if `rows`; by the plan
    that selection takes, or by every one that the device has.
    """
    packed = pack(seed_state(case.layer, case.shape, device, seed), case.layer)
    batch = tokens(case.layer, case.shape, device, seed)
    targets = targets_for(device, manifest)
    for plan in _plans(case, packed, manifest, targets, say) if every_plan else [None]:
        problem = tokens_problem(packed, case.shape.tokens, case.shape.top_k, targets, plan)
        run = run_tokens(
            packed,
            batch.hidden,
            batch.ids,
            batch.weights,
            manifest,
            out=poisoned(batch.hidden),
            workspace=poisoned_bytes(workspace_bytes(problem, manifest), device),
            plan=plan,
        )
        yield Checked(packed, case.layer, run, batch.hidden, ids=batch.ids, weights=batch.weights)
        if not rows:
            continue
        hidden, counts = sorted_rows(batch, case.shape.experts)
        problem = rows_problem(packed, hidden.shape[0], targets, plan)
        run = run_rows(
            packed,
            hidden,
            counts,
            manifest,
            out=poisoned(hidden),
            workspace=poisoned_bytes(workspace_bytes(problem, manifest), device),
            plan=plan,
        )
        yield Checked(packed, case.layer, run, hidden, counts=counts)


def _plans(
    case: Case,
    packed: PackedExperts,
    manifest: Manifest,
    targets: tuple[str, ...],
    say: Callable[[str], None],
) -> list[str]:
    """The plans that the device has. A target without int8 dots has no other modules to fall back
    on, so it may lack one. Raises NoVariantError where it has none.
    """
    there, missing = [], []
    for plan in case.layer.plans:
        problem = tokens_problem(packed, case.shape.tokens, case.shape.top_k, targets, plan.name)
        try:
            select_layer(problem, manifest)
        except NoVariantError as error:
            missing.append(error)
            say(f"  plan {plan.name} has no modules here")
        else:
            there.append(plan.name)
    if not there:
        raise missing[0]
    return there


def _comparisons(checked: Checked, manifest: Manifest, everything: bool) -> Iterator[Comparison]:
    yield from check_stages(checked)
    if everything:
        yield from check_variants(checked, manifest)


def _row(each: Comparison) -> str:
    verdict = "equal" if each.different == 0 else "DIFFERS"
    return (
        f"    {each.stage:10} {each.bits:>12} bits {each.different:>8} different  {verdict:7}"
        f"  {each.variant:28} {each.why}"
    )
