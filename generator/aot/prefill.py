"""Fill a Triton cache with every kernel that serving some models can launch on a target, or look
whether one is filled. Behind `python -m generator prefill`.

Which kernels those are is found by running the runtime itself, on tensors without storage, for
every number of tokens at which its choice may change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from generator.aot.check import Job, Progress, answered, compile_request
from generator.aot.pool import Pool
from generator.errors import BuildError, Finding
from generator.runtime.manifest import Manifest, Target


@dataclass(frozen=True, slots=True)
class Key:
    """One kernel of Triton's cache."""

    symbol: str
    key: str  # the folder below the cache, or what was looked for


@dataclass(frozen=True, slots=True)
class Prefilled:
    """What a cache holds of the kernels that serving can launch."""

    keys: tuple[Key, ...]  # all of them
    compiled: tuple[Key, ...]  # those that were compiled now
    missing: tuple[Key, ...]  # those that are not there
    triton: str


def chosen_models(manifest: Manifest, names: Sequence[str]) -> list[str]:
    """The named models, else all. Raises BuildError for one that there is not, or that no layer of
    the manifest serves.
    """
    served = [name for name, model in manifest.models.items() if model.layers]
    unknown = [name for name in names if name not in served]
    if unknown:
        what = {
            name: "has no layer in " + str(manifest.directory)
            for name in manifest.models.keys() - set(served)
        }
        fix = f"use {', '.join(served)}"
        raise BuildError(
            [Finding(f"--models {n}", what.get(n, "no such model"), fix) for n in unknown]
        )
    return list(names or served)


def prefill(
    manifest: Manifest,
    models: Sequence[str],
    target: Target,
    cache: Path,
    jobs: int,
    tell: Callable[[Progress], None],
    *,
    look: bool = False,
) -> Prefilled:
    """Compile what is missing in `cache`; with `look` say what is, and compile nothing.

    Raises BuildError where a kernel does not compile, and NoVariantError where a model has none.
    """
    anywhere = [name for name, each in manifest.targets.items() if each.backend == "any"]
    asked = {
        "verb": "launches",
        "directory": str(manifest.directory),
        "models": models,
        "targets": list(dict.fromkeys((target.name, *anywhere))),
    }
    with Pool(jobs, cache) as pool:
        triton = pool.ask({"verb": "version"})["triton"]
        launches = pool.ask(asked)["launches"]
        work = [Job(manifest.by_symbol[symbol], target, each) for symbol, each in launches]
        requests = [{**compile_request(manifest, each), "look": look} for each in work]
        answers = answered(pool, work, requests, tell)
    fix = "see `python -m generator compile`"
    failed = [
        Finding(job.name, f"does not compile: {answer.get('error') or answer['died']}", fix)
        for job, answer in zip(work, answers, strict=True)
        if "error" in answer or "died" in answer
    ]
    if failed:
        raise BuildError(failed)
    keys: dict[str, Key] = {}
    compiled: dict[str, Key] = {}
    missing: dict[str, Key] = {}
    for job, answer in zip(work, answers, strict=True):
        key = str(answer.get("missing") or answer["key"])
        keys[key] = Key(job.entry.symbol, key)
        if "missing" in answer:
            missing[key] = keys[key]
        elif not answer["cached"]:
            compiled[key] = keys[key]
    return Prefilled(
        tuple(keys.values()), tuple(compiled.values()), tuple(missing.values()), triton
    )
