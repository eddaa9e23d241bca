"""`build`, `check` and `bundle`: what writes modules, or compares them with their inputs."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING

from generator.data import folder
from generator.errors import BuildError
from generator.verbs.chosen import chosen_outputs, chosen_program, is_part, repeated
from generator.version import VERSION

if TYPE_CHECKING:
    from generator.emit.sync import Difference


def build(options: argparse.Namespace) -> int:
    from generator.emit.sync import write

    out, files, _ = chosen_outputs(options)
    difference = write(out, files)
    print(f"{_modules(files)} modules in {out}; {_counted(difference)}")
    return 0


def check(options: argparse.Namespace) -> int:
    from generator.emit.sync import compare, diff
    from generator.lower.coverage import uncovered, unreached

    out, files, built = chosen_outputs(options)
    whole = not is_part(options)
    if whole and (findings := unreached(built)):
        raise BuildError(findings)
    difference = compare(out, files)
    if not difference:
        print(f"{out} is fresh: {_modules(files)} modules")
        for each in uncovered(built) if whole else ():
            print(each)
        return 0
    print(diff(out, files, difference))
    print(f"{out} is stale; run `python -m generator build{repeated(options)}`", file=sys.stderr)
    return 1


def bundle(options: argparse.Namespace) -> int:
    from generator.aot import bundle as bundling
    from generator.emit.outputs import outputs
    from generator.emit.sync import write

    built = chosen_program(options, portable=True)
    emitted = outputs(built, folder("templates"))
    cache = bundling.compiled(options.cache, emitted) if options.cache else {}
    files = bundling.bundle(
        emitted, bundling.library(), name=options.name, version=VERSION, cache=cache
    )
    difference = write(options.out, files, bundling.BUNDLE)
    print(
        f"{options.name} {VERSION} in {options.out}: {_modules(emitted)} modules,"
        f" {len(cache)} files of a Triton cache; {_counted(difference)}"
    )
    symbols = [variant.symbol for plan in built.plans for variant in plan.kept]
    if options.cache:
        print(
            f"the cache holds kernels of {bundling.held(symbols, cache)} of {len(symbols)} modules"
        )
    unknown = sum(not built.measured.of(symbol) for symbol in symbols)
    if unknown:
        where = ["--generated", str(options.out / options.name / "generated")]
        legal = [each.name for each in built.every_target if each.compiler != "none"]
        named = [f"--target={each}" for each in options.target if each in legal]
        again = shlex.join([*where, *(named or ["--target=NAME"] * bool(options.target))])
        print(f"{unknown} are on no record; `python -m generator compile {again}` tries them")
    return 0


def _modules(files: dict[str, str]) -> int:
    return sum("/" in path for path in files)


def _counted(difference: Difference) -> str:
    missing, changed, stale = difference.missing, difference.changed, difference.stale
    return f"files: {len(missing)} new, {len(changed)} changed, {len(stale)} removed"
