"""What the command line takes: every verb and its options. Decides and prints nothing."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

# Where argparse puts the verbs; its class has no public name.
Verbs = Any

ROUTINGS = ("uniform", "zipf", "one-hot", "half-empty")  # how tokens choose experts


def parser(description: str) -> argparse.ArgumentParser:
    """Every verb with its options; `verb` of what is parsed is its name."""
    whole = argparse.ArgumentParser(prog="python -m generator", description=description)
    verbs = whole.add_subparsers(title="verbs", metavar="VERB", required=True, dest="verb")
    for add in (_emitting, _compiling, _telling, _running, _measuring, _tuning):
        add(verbs)
    return whole


def _emitting(verbs: Verbs) -> None:
    """What writes modules, or compares them with their inputs."""
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

    build.add_argument(
        "--rivals",
        type=int,
        metavar="N",
        help="the N cheapest tiles of a GEMM a row tile and shape: what `tune` times",
    )

    check = verbs.add_parser("check", help="compare the emitted modules with the specs; 1 if stale")
    _program_options(check)
    check.add_argument(
        "--out", type=Path, metavar="DIR", help="default: generated/ beside the specs"
    )

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


def _compiling(verbs: Verbs) -> None:
    """What makes machine code of modules."""
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


def _telling(verbs: Verbs) -> None:
    """What lowering decided."""
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


def _running(verbs: Verbs) -> None:
    """What runs here, or writes the language."""
    schema = verbs.add_parser("schema", help="write the JSON Schema of the spec language")
    schema.add_argument("--specs", type=Path, default=None, metavar="DIR")
    schema.add_argument("--print", action="store_true", help="to standard output instead")

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

    verbs.add_parser("probe", help="does this device keep the arithmetic's promises")


def _measuring(verbs: Verbs) -> None:
    """What times layers here."""
    bench = verbs.add_parser(
        "bench",
        help="time layers here and hold them against the device's ceilings; 1 if a bit differs",
        description="Time whole layers of the manifest's models, eagerly and as CUDA graphs whose"
        " weights do not sit in the cache, and compare their results with the oracle.",
    )
    bench.add_argument(
        "--model", nargs="+", default=[], metavar="NAME", help="default: all of the manifest"
    )
    bench.add_argument("--contract", metavar="GLOB", help="layer contracts; default: the models'")
    bench.add_argument(
        "--tokens", nargs="+", type=int, default=[], metavar="N", help="default: the models'"
    )
    bench.add_argument(
        "--routing",
        nargs="+",
        default=["uniform"],
        choices=ROUTINGS,
        help="how tokens choose experts; default: uniform",
    )
    _device_option(bench)
    bench.add_argument("--stages", action="store_true", help="each stage alone too")
    bench.add_argument(
        "--baselines",
        action="store_true",
        help="torch in bf16 and vLLM's int8 too; the seed's algorithm with --seed-modules",
    )
    bench.add_argument(
        "--seed-modules",
        type=Path,
        metavar="DIR",
        help="what `build --target ilu --target portable --out DIR` wrote",
    )
    bench.add_argument("--generated", type=Path, metavar="DIR", help="default: the shipped modules")
    bench.add_argument(
        "--check",
        default="sample",
        choices=("sample", "stages", "none"),
        help="compare up to 32 tokens' results, or all of every stage; default: %(default)s",
    )
    bench.add_argument("--out", type=Path, metavar="DIR", help="bench.json, bench.csv and plots")
    bench.add_argument("--no-plots", action="store_true", help="write no figures")
    bench.add_argument(
        "--repeat", type=int, default=20, metavar="N", help="measurements; default: %(default)s"
    )
    bench.add_argument("--seed", type=int, default=0, help="of weights, tokens and routing")


def _tuning(verbs: Verbs) -> None:
    """What times designs here."""
    tune = verbs.add_parser(
        "tune",
        help="time the rivals of `build --rivals` and write a file of specs/tuning/",
        description="Time the GEMM modules of a build of rivals on the GPU at hand, and write which"
        " of them are fastest for which rows. What stands in the trials file is not timed again.",
    )
    tune.add_argument(
        "--generated", type=Path, required=True, metavar="DIR", help="what build --rivals wrote"
    )
    tune.add_argument("--out", type=Path, required=True, metavar="FILE", help="the tuning file")
    tune.add_argument(
        "--trials",
        type=Path,
        required=True,
        metavar="FILE",
        help="every timing, a line each, after one that says on what",
    )
    tune.add_argument(
        "--model", nargs="+", default=[], metavar="NAME", help="default: all of the manifest"
    )
    tune.add_argument("--contract", metavar="GLOB", help="layer contracts; default: the models'")
    tune.add_argument(
        "--tokens", nargs="+", type=int, default=[], metavar="N", help="default: the models'"
    )
    tune.add_argument(
        "--routing",
        nargs="+",
        default=["uniform"],
        choices=ROUTINGS,
        help="how tokens choose experts, what is chosen serves all of them; default: uniform",
    )
    tune.add_argument(
        "--leave-out",
        nargs="+",
        default=[],
        metavar="GLOB",
        help="symbols of modules that are not to be timed, such as one that the device stopped at",
    )
    _device_option(tune)
    tune.add_argument("--seed", type=int, default=0, help="of weights, tokens and routing")
    tune.add_argument("--jobs", type=int, default=_cores(), metavar="N", help="default: one a core")


def _cores() -> int:
    """Those that this process may run on, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _device_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", type=int, metavar="N", help="the GPU, by number; default: torch's current one"
    )


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
