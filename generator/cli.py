"""The command line: one short function per verb. The only place that prints or exits.

Exit codes: 0 all is well; 1 the answer is no (stale modules, differing bits, a variant that spills,
a broken device); 2 bad input; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from generator.arguments import parser
from generator.data import folder, modules
from generator.errors import BuildError, Finding, GroupwiseError
from generator.version import VERSION

if TYPE_CHECKING:
    from generator.aot.jobs import Progress
    from generator.emit.sync import Difference
    from generator.lower.facts import Report
    from generator.lower.listing import Listing
    from generator.lower.program import Program
    from generator.resources import Record
    from generator.runtime.manifest import Manifest


LEFT = {  # of a verb that was interrupted
    "build": "what was written before stays",
    "bundle": "what was written before stays",
    "prefill": "what was compiled before stays",
    "bench": "what was measured before stays in --out",
    "tune": "what was timed before stays in --trials, and the next run goes on there",
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser(__doc__.split("\n")[0]).parse_args(arguments)
    options.arguments = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(format="%(name)s: %(message)s")
    if getattr(options, "verbose", False):
        logging.getLogger("groupwise").setLevel(logging.INFO)
    try:
        code = VERBS[options.verb](options)
    except GroupwiseError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ninterrupted; {LEFT.get(options.verb, 'nothing was written')}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe left; what it wanted, it has
        sys.stderr.close()
        return 0
    return code


def _program(options: argparse.Namespace, *, portable: bool = False) -> Program:
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


def _outputs(options: argparse.Namespace) -> tuple[Path, dict[str, str]]:
    from generator.emit.outputs import outputs

    most = getattr(options, "candidates", None)
    part = options.spec or options.contract or options.target or options.all or most is not None
    part = part or getattr(options, "rivals", None) is not None
    if part and not options.out:
        what = (
            "is needed where --spec, --contract, --target, --all, --candidates or --rivals choose"
            " modules"
        )
        fix = "pass a folder of its own; the default one holds the default build"
        raise BuildError(Finding("--out DIR", what, fix))
    beside = options.specs.resolve().parent / "generated" if options.specs else modules()
    out = options.out or beside
    built = _program(options)
    if most is not None:
        from generator.lower.candidates import with_candidates

        built = with_candidates(built, most)
    return out, outputs(built, folder("templates"))


def _modules(files: dict[str, str]) -> int:
    return sum("/" in path for path in files)


def _build(options: argparse.Namespace) -> int:
    from generator.emit.sync import write

    out, files = _outputs(options)
    difference = write(out, files)
    print(f"{_modules(files)} modules in {out}; {_counted(difference)}")
    return 0


def _counted(difference: Difference) -> str:
    missing, changed, stale = difference.missing, difference.changed, difference.stale
    return f"files: {len(missing)} new, {len(changed)} changed, {len(stale)} removed"


def _check(options: argparse.Namespace) -> int:
    from generator.emit.sync import compare, diff

    out, files = _outputs(options)
    difference = compare(out, files)
    if not difference:
        print(f"{out} is fresh: {_modules(files)} modules")
        return 0
    print(diff(out, files, difference))
    print(f"{out} is stale; run `python -m generator build{_repeat(options)}`", file=sys.stderr)
    return 1


def _repeat(options: argparse.Namespace) -> str:
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


def _bundle(options: argparse.Namespace) -> int:
    from generator.aot.bundle import BUNDLE, bundle, compiled, held, library
    from generator.emit.outputs import outputs
    from generator.emit.sync import write

    built = _program(options, portable=True)
    emitted = outputs(built, folder("templates"))
    cache = compiled(options.cache, emitted) if options.cache else {}
    files = bundle(emitted, library(), name=options.name, version=VERSION, cache=cache)
    difference = write(options.out, files, BUNDLE)
    print(
        f"{options.name} {VERSION} in {options.out}: {_modules(emitted)} modules,"
        f" {len(cache)} files of a Triton cache; {_counted(difference)}"
    )
    symbols = [variant.symbol for plan in built.plans for variant in plan.kept]
    if options.cache:
        print(f"the cache holds kernels of {held(symbols, cache)} of {len(symbols)} modules")
    unknown = sum(not built.measured.of(symbol) for symbol in symbols)
    if unknown:
        where = ["--generated", str(options.out / options.name / "generated")]
        legal = [each.name for each in built.every_target if each.compiler != "none"]
        named = [f"--target={each}" for each in options.target if each in legal]
        again = shlex.join([*where, *(named or ["--target=NAME"] * bool(options.target))])
        print(f"{unknown} are on no record; `python -m generator compile {again}` tries them")
    return 0


def _compile(options: argparse.Namespace) -> int:
    from generator.aot.check import chosen_entries, chosen_targets, compile_entries
    from generator.aot.record import summary
    from generator.resources import read_folder
    from generator.runtime.manifest import load

    manifest = load(options.generated)
    targets = chosen_targets(manifest, options.target)
    entries = chosen_entries(manifest, options.spec, options.contract)
    if options.specs and not options.specs.is_dir():
        raise BuildError(Finding(f"--specs {options.specs}", "is no folder", "pass one"))
    resources = (options.specs or folder("specs")) / "resources"
    if options.calibrate and (options.record or options.missing):
        what = "measures designs that rules may have rejected"
        fix = "leave out --record and --missing"
        raise BuildError(Finding("--calibrate", what, fix))
    known = read_folder(resources) if options.missing else ()
    start = time.monotonic()
    result = compile_entries(manifest, entries, targets, options.jobs, _Bar(), known=known)
    seconds = time.monotonic() - start
    stale: list[str] = []
    for record in result.records:
        print(summary(record))
        stale += _file(options, record, resources, manifest)
    counted = "outside the gates" if options.calibrate else "failures"
    print(
        f"{result.compiled} launches compiled in {seconds:.0f} s, {len(result.failures)} {counted}"
    )
    failures = () if options.calibrate else result.failures
    for failure in failures:
        print(f"{failure.name}: {failure.what}\n    {failure.look_at}", file=sys.stderr)
    for line in stale:
        print(line)
    if stale:
        again = f"python -m generator compile{_repeat(options)} --record"
        print(f"records are stale; run `{again}`, with this Triton", file=sys.stderr)
    return 1 if failures or stale else 0


def _file(
    options: argparse.Namespace, record: Record, resources: Path, manifest: Manifest
) -> list[str]:
    """Write a record where that is asked for, else what is written otherwise."""
    from generator.aot.record import behind, write_calibration, write_record

    whole = options.generated is None
    if options.calibrate:
        print(f"wrote {write_calibration(resources, record, manifest)}")
    elif options.record:
        print(f"wrote {write_record(resources, record, manifest.by_symbol if whole else None)}")
    elif not (resources / record.name).exists():
        print(f"{resources / record.name}: not there, so nothing is compared")
    else:
        return list(behind(resources, record, whole=whole))
    return []


def _prefill(options: argparse.Namespace) -> int:
    from generator.aot.check import chosen_targets
    from generator.aot.prefill import chosen_models, prefill
    from generator.runtime.manifest import load

    manifest = load(options.generated)
    [target] = chosen_targets(manifest, [options.target])
    models = chosen_models(manifest, options.models)
    start = time.monotonic()
    result = prefill(
        manifest, models, target, options.cache, options.jobs, _Bar(), look=options.verify
    )
    seconds = time.monotonic() - start
    for each in result.missing:
        print(f"{each.symbol}: a launch would compile; {options.cache} lacks {each.key}")
    there = len(result.keys) - len(result.missing)
    print(
        f"{options.cache} holds {there} of {len(result.keys)} keys of {len(models)} models on"
        f" {target.name} for Triton {result.triton}; {len(result.compiled)} compiled now,"
        f" {seconds:.0f} s"
    )
    return 1 if result.missing else 0


class _Bar:
    """A line on a terminal that says how far the workers are, and at what; nothing elsewhere."""

    WIDTH = 24

    def __call__(self, progress: Progress) -> None:
        if not sys.stderr.isatty():
            return
        filled = self.WIDTH * progress.done // max(progress.of, 1)
        bar = "#" * filled + "-" * (self.WIDTH - filled)
        now = progress.now[-1] if progress.now else ""
        columns = shutil.get_terminal_size().columns
        line = f"[{bar}] {progress.done}/{progress.of} {now}"[: columns - 1]
        end = "\n" if progress.done == progress.of else ""
        print(f"\r{line}\033[K", end=end, file=sys.stderr, flush=True)


def _list(options: argparse.Namespace) -> int:
    from generator.lower.listing import listed_lines, listing

    listed = listing(
        _program(options), operations=options.operation, kind=options.kind, sort=options.sort
    )
    return _say(options, listed, listed_lines(listed, options.sort))


def _explain(options: argparse.Namespace) -> int:
    from generator.lower.choice import problem
    from generator.lower.report import explain
    from generator.lower.report_text import lines
    from generator.spec.load import load

    asked = problem(options.problem) if options.problem is not None else None
    loaded = load(options.specs or folder("specs"))
    report = explain(loaded, options.name, asked, options.target)
    return _say(options, report, lines(report))


def _say(options: argparse.Namespace, facts: Listing | Report, text: Iterable[str]) -> int:
    print(json.dumps(asdict(facts), indent=2) if options.json else "\n".join(text))
    return 0


def _schema(options: argparse.Namespace) -> int:
    from generator.spec.canonical import json_schema

    if options.print:
        print(json_schema(), end="")
        return 0
    path = (options.specs or folder("specs")) / "schema.json"
    try:
        path.write_text(json_schema(), encoding="utf-8")
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        raise BuildError(Finding(str(path), what, "pass --specs DIR, or --print")) from error
    print(f"wrote {path}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from generator.verify.command import verify

    return verify(
        shape=options.shape,
        contract=options.contract,
        generated=options.generated,
        everything=options.all,
        seed=options.seed,
        say=lambda line: print(line, flush=True),
    )


def _probe(options: argparse.Namespace) -> int:
    from generator.runtime.probe import probe

    broken = 0
    for result in probe():
        print(result, flush=True)
        broken += not result.holds
    return 1 if broken else 0


def _bench(options: argparse.Namespace) -> int:
    from generator.tune.command import Options, bench

    asked = Options(
        models=options.model,
        contract=options.contract,
        tokens=options.tokens,
        routings=options.routing,
        baselines=options.baselines,
        stages=options.stages,
        generated=options.generated,
        seed_modules=options.seed_modules,
        out=options.out,
        plots=not options.no_plots,
        repeat=options.repeat,
        check=options.check,
        seed=options.seed,
        command=shlex.join(["python", "-m", "generator", *options.arguments]),
    )
    return bench(
        asked,
        say=lambda line: print(line, flush=True),
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )


def _tune(options: argparse.Namespace) -> int:
    from generator.tune.tune_command import Options, tune

    asked = Options(
        models=options.model,
        contract=options.contract,
        tokens=options.tokens,
        generated=options.generated,
        trials=options.trials,
        out=options.out,
        jobs=options.jobs,
        seed=options.seed,
        command=shlex.join(["python", "-m", "generator", *options.arguments]),
    )
    return tune(
        asked,
        say=lambda line: print(line, flush=True),
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )


VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "build": _build,
    "check": _check,
    "bundle": _bundle,
    "compile": _compile,
    "prefill": _prefill,
    "list": _list,
    "explain": _explain,
    "schema": _schema,
    "verify": _verify,
    "probe": _probe,
    "bench": _bench,
    "tune": _tune,
}
