"""`verify`, `probe`, `bench` and `tune`: what runs kernels here."""

from __future__ import annotations

import argparse
import shlex
import sys


def verify(options: argparse.Namespace) -> int:
    from generator.verify import command

    return command.verify(
        shape=options.shape,
        contract=options.contract,
        generated=options.generated,
        everything=options.all,
        seed=options.seed,
        say=_say,
    )


def probe(options: argparse.Namespace) -> int:
    from generator.runtime import probe as promises

    broken = 0
    for result in promises.probe():
        print(result, flush=True)
        broken += not result.holds
    return 1 if broken else 0


def bench(options: argparse.Namespace) -> int:
    from generator.runtime.device import on
    from generator.tune import command

    asked = command.Options(
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
        command=_typed(options),
    )
    with on(options.device):
        return command.bench(asked, _say, _progress)


def tune(options: argparse.Namespace) -> int:
    from generator.runtime.device import on
    from generator.tune import tune_command

    asked = tune_command.Options(
        models=options.model,
        contract=options.contract,
        tokens=options.tokens,
        routings=options.routing,
        generated=options.generated,
        trials=options.trials,
        leave_out=options.leave_out,
        out=options.out,
        jobs=options.jobs,
        seed=options.seed,
        command=_typed(options),
    )
    with on(options.device):
        return tune_command.tune(asked, _say, _progress)


def _say(line: str) -> None:
    print(line, flush=True)


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _typed(options: argparse.Namespace) -> str:
    """The command, for what is written to say how it came to be."""
    return shlex.join(["python", "-m", "generator", *options.arguments])
