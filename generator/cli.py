"""The command line: one short function per verb. The only place that prints or exits.

Exit codes: 0 all is well; 1 the answer is no (stale modules, differing bits, a variant that spills,
a broken device); 2 bad input; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from generator.data import folder, modules
from generator.errors import BuildError, Finding, GroupwiseError
from generator.version import VERSION

if TYPE_CHECKING:
    from generator.aot.check import Progress
    from generator.emit.sync import Difference
    from generator.lower.facts import Report
    from generator.lower.listing import Listing
    from generator.lower.program import Program


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(name)s: %(message)s")
    if getattr(options, "verbose", False):
        logging.getLogger("groupwise").setLevel(logging.INFO)
    try:
        code: int = options.verb(options)
    except GroupwiseError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; what was finished before stays", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe left; what it wanted, it has
        sys.stderr.close()
        return 0
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m generator", description=__doc__.split("\n")[0])
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    build = verbs.add_parser("build", help="emit the modules of the specs")
    _program_options(build)
    build.add_argument(
        "--out", type=Path, metavar="DIR", help="default: generated/ beside the specs"
    )
    build.add_argument(
        "--candidates",
        type=int,
        metavar="N",
        help="up to N designs a GEMM, rejected for resources or not: what calibrates those rules",
    )
    build.set_defaults(verb=_build)

    check = verbs.add_parser("check", help="compare the emitted modules with the specs; 1 if stale")
    _program_options(check)
    check.add_argument(
        "--out", type=Path, metavar="DIR", help="default: generated/ beside the specs"
    )
    check.set_defaults(verb=_check)

    bundle = verbs.add_parser(
        "bundle",
        help="write a package of only what serving needs",
        description="Write a Python package of emitted modules and the runtime, for `pip wheel`. It"
        " always holds the target `portable`, which alone routes, quantizes and combines and takes"
        " every shape that the named targets leave out.",
    )
    _program_options(bundle)
    bundle.add_argument("--out", type=Path, metavar="DIR", required=True, help="what to write")
    bundle.add_argument(
        "--name",
        default="groupwise_moe",
        metavar="NAME",
        help="of the package; default: %(default)s",
    )
    bundle.add_argument(
        "--cache", type=Path, metavar="DIR", help="a filled Triton cache to take along"
    )
    bundle.set_defaults(verb=_bundle)

    compile_ = verbs.add_parser(
        "compile", help="compile emitted modules for targets that are not there; 1 if one fails"
    )
    _worker_options(compile_)
    compile_.add_argument(
        "--target", action="append", default=[], metavar="NAME", help="default: those of the build"
    )
    compile_.add_argument(
        "--spec", action="append", default=[], metavar="NAME", help="only this spec's layers"
    )
    compile_.add_argument(
        "--contract", action="append", default=[], metavar="GLOB", help="only these contracts"
    )
    compile_.add_argument(
        "--specs", type=Path, metavar="DIR", help="whose resources/ to compare with, or to write"
    )
    compile_.add_argument("--record", action="store_true", help="write resources/")
    compile_.add_argument(
        "--missing", action="store_true", help="only what is not in resources/ yet"
    )
    compile_.add_argument(
        "--calibrate",
        action="store_true",
        help="write resources/calibration/, of designs that rules may have rejected: no gates",
    )
    compile_.set_defaults(verb=_compile)

    prefill = verbs.add_parser(
        "prefill", help="fill a Triton cache with all that serving some models can launch"
    )
    _worker_options(prefill)
    prefill.add_argument("--target", required=True, metavar="NAME", help="the device to serve on")
    prefill.add_argument(
        "--models", nargs="+", default=[], metavar="NAME", help="default: all of the manifest"
    )
    prefill.add_argument(
        "--cache", type=Path, required=True, metavar="DIR", help="TRITON_CACHE_DIR of the server"
    )
    prefill.add_argument(
        "--verify", action="store_true", help="compile nothing; 1 if a launch would, and its key"
    )
    prefill.set_defaults(verb=_prefill)

    listing = verbs.add_parser("list", help="the layers and variants that build emits, one a line")
    _program_options(listing)
    listing.add_argument(
        "--operation", action="append", default=[], metavar="NAME", help="only this operation"
    )
    listing.add_argument(
        "--kind", choices=("layers", "contracts", "variants"), help="default: layers and variants"
    )
    listing.add_argument(
        "--sort",
        choices=("name", "target", "operation", "shared", "registers"),
        help="ascending; shared memory and registers as modelled; default: as built",
    )
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(verb=_list)

    explain = verbs.add_parser(
        "explain", help="what lowering rejected, proved, kept and would choose"
    )
    explain.add_argument("name", metavar="NAME", help="of a spec, a contract or a layer contract")
    explain.add_argument(
        "--problem",
        metavar="KEY=VALUE,...",
        help="rows=,n=,k=,experts= of one call; n and k as stored",
    )
    explain.add_argument("--specs", type=Path, metavar="DIR", help="default: the shipped specs")
    explain.add_argument(
        "--target", action="append", default=[], metavar="NAME", help="default: the spec's targets"
    )
    explain.add_argument("--json", action="store_true", help="as JSON")
    explain.set_defaults(verb=_explain)

    schema = verbs.add_parser("schema", help="write the JSON Schema of the spec language")
    schema.add_argument("--specs", type=Path, default=None, metavar="DIR")
    schema.add_argument("--print", action="store_true", help="to standard output instead")
    schema.set_defaults(verb=_schema)

    verify = verbs.add_parser("verify", help="run layers here and compare every stage's bits")
    verify.add_argument(
        "--shape",
        metavar="NAME|KEY=VALUE,...",
        help="a model of the manifest, or experts=,top_k=,hidden=,intermediate=,tokens=",
    )
    verify.add_argument("--contract", metavar="GLOB", help="layer contracts; default: the shape's")
    verify.add_argument(
        "--generated", type=Path, metavar="DIR", help="default: the shipped modules"
    )
    verify.add_argument("--all", action="store_true", help="every layer contract and every variant")
    verify.add_argument("--seed", type=int, default=0, help="of weights, tokens and routing")
    verify.add_argument("-v", "--verbose", action="store_true", help="log each choice once")
    verify.set_defaults(verb=_verify)

    probe = verbs.add_parser("probe", help="does this device keep the arithmetic's promises")
    probe.set_defaults(verb=_probe)
    return parser


def _cores() -> int:
    """Those that this process may run on, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _worker_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--generated", type=Path, metavar="DIR", help="default: the shipped modules"
    )
    parser.add_argument(
        "--jobs", type=int, default=_cores(), metavar="N", help="default: one a core"
    )


def _program_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--specs", type=Path, metavar="DIR", help="default: the shipped specs")
    parser.add_argument(
        "--spec", action="append", default=[], metavar="NAME", help="only this spec"
    )
    parser.add_argument(
        "--contract",
        action="append",
        default=[],
        metavar="GLOB",
        help="only these contracts or layers",
    )
    parser.add_argument(
        "--target", action="append", default=[], metavar="NAME", help="only this target"
    )
    parser.add_argument("--all", action="store_true", help="every contract, not only the models'")


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
    )
    return program(loaded, selection)


def _outputs(options: argparse.Namespace) -> tuple[Path, dict[str, str]]:
    from generator.emit.outputs import outputs

    most = getattr(options, "candidates", None)
    part = options.spec or options.contract or options.target or options.all or most is not None
    if part and not options.out:
        what = "is needed where --spec, --contract, --target, --all or --candidates choose modules"
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
    """The arguments that name the same program and folder again."""
    words = []
    for name in ("specs", "out"):
        if getattr(options, name):
            words += [f"--{name}", str(getattr(options, name))]
    for name in ("spec", "contract", "target"):
        for value in getattr(options, name):
            words += [f"--{name}", value]
    words += ["--all"] if options.all else []
    return f" {shlex.join(words)}" if words else ""


def _bundle(options: argparse.Namespace) -> int:
    from generator.aot.bundle import BUNDLE, bundle, compiled, library
    from generator.emit.outputs import outputs
    from generator.emit.sync import write

    emitted = outputs(_program(options, portable=True), folder("templates"))
    cache = compiled(options.cache, emitted) if options.cache else {}
    files = bundle(emitted, library(), name=options.name, version=VERSION, cache=cache)
    difference = write(options.out, files, BUNDLE)
    print(
        f"{options.name} {VERSION} in {options.out}: {_modules(emitted)} modules,"
        f" {len(cache)} files of a Triton cache; {_counted(difference)}"
    )
    return 0


def _compile(options: argparse.Namespace) -> int:
    from generator.aot.check import chosen_entries, chosen_targets, compile_entries
    from generator.aot.record import differing, write_calibration, write_record
    from generator.resources import read_folder
    from generator.runtime.manifest import load

    manifest = load(options.generated)
    targets = chosen_targets(manifest, options.target)
    entries = chosen_entries(manifest, options.spec, options.contract)
    resources = (options.specs or folder("specs")) / "resources"
    if options.calibrate and (options.record or options.missing):
        what = "measures designs that rules may have rejected"
        fix = "leave out --record and --missing"
        raise BuildError(Finding("--calibrate", what, fix))
    known = read_folder(resources)
    start = time.monotonic()
    result = compile_entries(
        manifest,
        entries,
        targets,
        options.jobs,
        _Bar(),
        known=known if options.missing else (),
    )
    seconds = time.monotonic() - start
    stale = 0
    for record in result.records:
        figures = record.variants.values()
        print(
            f"{record.target}, Triton {record.triton}: {len(figures)} variants, at most"
            f" {max(each.registers for each in figures)} registers,"
            f" {max(each.shared for each in figures)} bytes of shared memory,"
            f" {max(each.stack for each in figures)} of stack"
        )
        if options.record:
            print(f"wrote {write_record(resources, record)}")
        if options.calibrate:
            print(f"wrote {write_calibration(resources, record, manifest)}")
            continue
        for symbol, recorded, found in differing(resources, record):
            print(f"{record.name}: {symbol} is recorded with {recorded}; it takes {found}")
            stale += 1
    if options.generated is None and not options.record:
        shipped = {(each.target, each.triton): each.variants for each in known}
        for record in result.records:
            lacking = record.variants.keys() - shipped.get((record.target, record.triton), {})
            if lacking and (record.target, record.triton) in shipped:
                print(f"{record.name} lacks {len(lacking)} variants, such as {min(lacking)}")
                stale += len(lacking)
    counted = "outside the gates" if options.calibrate else "failures"
    print(
        f"{result.compiled} launches compiled in {seconds:.0f} s, {len(result.failures)} {counted}"
    )
    failures = () if options.calibrate else result.failures
    for failure in failures:
        print(f"{failure.name}: {failure.what}\n    {failure.look_at}", file=sys.stderr)
    if stale:
        print("records are stale; run `python -m generator compile --record`", file=sys.stderr)
    return 1 if failures or stale else 0


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
