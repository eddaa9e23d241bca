"""The stages of a finished layer call, launched again alone: the one place that knows how a call
falls into launches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from generator.runtime.device import current
from generator.runtime.entry import Entry
from generator.runtime.layer import LayerRun
from generator.tune.calls import Prepared
from generator.tune.rotation import turns_of
from generator.tune.timing import Subject
from generator.verify.stages import Checked, poisoned, relaunch

GEMMS = ("up", "down")
COPIES_WHERE_PADDED = 3  # launches of torch around a layer whose H is padded: fill, copy in, out


def launches(run: LayerRun) -> int:
    """Kernels that one call starts."""
    return len(run.choice.stages) + (COPIES_WHERE_PADDED if run.problem.widened else 0)


def designs(run: LayerRun) -> Mapping[str, str]:
    """Target and design of every stage, by operation, in launch order."""
    return {operation: choice.entry.name for operation, choice in run.choice.stages.items()}


def finished(prepared: Prepared) -> Checked:
    """Call 0 in a workspace of its own, which nothing overwrites: what stages start from."""
    run = prepared.run(0, poisoned(prepared.workspace))
    given = prepared.tokens[0]
    return Checked(
        prepared.copies[0],
        prepared.layer,
        run,
        given.hidden,
        ids=given.ids,
        weights=given.weights,
    )


def stage_subjects(prepared: Prepared, checked: Checked) -> list[Subject]:
    """Every stage of a finished call, with the rotation's weights. Those that multiply nothing may
    be short, and go through it several times.
    """
    every = [replace(checked, packed=prepared.packed(i)) for i in range(len(prepared.tokens))]
    return [
        Subject(
            f"stage {operation}",
            tuple(partial(again, each, operation, choice.entry) for each in every)
            * (1 if operation in GEMMS else turns_of(len(every))),
        )
        for operation, choice in checked.run.choice.stages.items()
    ]


def again(checked: Checked, operation: str, entry: Entry) -> None:
    """Launch one stage of a finished call once more, by any entry of its contract that shares the
    call's row tile, from the buffers that it read to those that it wrote.
    """
    with current(checked.hidden.device):
        relaunch(checked, entry, operation, checked.written())
