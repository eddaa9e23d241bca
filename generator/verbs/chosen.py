"""What a verb's options choose of the specs, and the arguments that choose it again."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from generator.data import folder, modules
from generator.errors import BuildError, Finding

if TYPE_CHECKING:
    from generator.lower.program import Program


def chosen_program(options: argparse.Namespace, *, portable: bool = False) -> Program:
    """What the options name; with `portable`, targets of any back end stand beside those named."""
    from generator.lower.program import Selection, program
    from generator.spec.load import load

    loaded = load(options.specs or folder("specs"))
    targets = list(options.target)
    if targets and portable:
        targets += [each.name for each in loaded.targets if each.backend == "any"]
    selection = Selection(
        specs=tuple(options.spec),
        contracts=tuple(options.contract),
        targets=tuple(targets),
        everything=options.all,
        rivals=getattr(options, "rivals", 0) or 0,
    )
    return program(loaded, selection)


def is_part(options: argparse.Namespace) -> bool:
    """Whether something other than the default build is asked for."""
    named = options.spec or options.contract or options.target or options.all
    most = (getattr(options, each, None) for each in ("candidates", "rivals"))
    return bool(named) or any(each is not None for each in most)


def chosen_outputs(options: argparse.Namespace) -> tuple[Path, dict[str, str], Program]:
    """The folder, the files that belong there by their paths in it, and what they are built of."""
    from generator.emit.outputs import outputs

    if is_part(options) and not options.out:
        what = (
            "is needed where --spec, --contract, --target, --all, --candidates or --rivals choose"
            " modules"
        )
        fix = "pass a folder of its own; the default one holds the default build"
        raise BuildError(Finding("--out DIR", what, fix))
    for name in ("candidates", "rivals"):
        number = getattr(options, name, None)
        if number is not None and number < 1:
            raise BuildError(Finding(f"--{name}", f"is {number}", "use 1 or more"))
    beside = options.specs.resolve().parent / "generated" if options.specs else modules()
    out = options.out or beside
    built = chosen_program(options)
    if (most := getattr(options, "candidates", None)) is not None:
        from generator.lower.candidates import with_candidates

        built = with_candidates(built, most)
    return out, outputs(built, folder("templates")), built


def repeated(options: argparse.Namespace) -> str:
    """The arguments that name the same modules and folders again."""
    words = []
    for name in ("specs", "generated", "out"):
        if getattr(options, name, None):
            words += [f"--{name}", str(getattr(options, name))]
    for name in ("spec", "contract", "target"):
        for value in getattr(options, name):
            words += [f"--{name}", value]
    words += ["--all"] if getattr(options, "all", False) else []
    return f" {shlex.join(words)}" if words else ""
