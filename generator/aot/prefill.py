"""Fill a Triton cache with every kernel that serving some models can launch on a target, or look
whether one is filled. Behind `python -m generator prefill`.

Which kernels those are is found by running the runtime itself, on tensors without storage, for
every number of tokens at which its choice may change.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from generator.aot.jobs import (
    Job,
    Progress,
    answered,
    compile_request,
    refused,
    specializes_length,
)
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
    """The named models, else all that the manifest has layers of. Raises BuildError where there is
    none, and for a name that there is not.
    """
    served = [name for name, model in manifest.models.items() if model.layers]
    if not served:
        nothing = "holds no layer of any model, so there is no call to serve"
        write = "name the layer in a file of specs/models/, and build again"
        raise BuildError(Finding(str(manifest.directory), nothing, write))
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

    The calls are those of the runtime's own choice of targets. On AMD, weights that are parts of a
    storage of 2 GiB and more are other keys, unless a model's are that long themselves. Raises
    BuildError where a kernel does not compile, where a model has none, and for a target that
    another Triton serves.
    """
    _refuse_stand_in(target)
    _refuse_folder(cache, look)
    cache = cache.resolve()  # Triton writes it into the cache, and a server may start elsewhere
    anywhere = [name for name, each in manifest.targets.items() if each.backend == "any"]
    asked = {
        "verb": "launches",
        "directory": str(manifest.directory),
        "models": models,
        "targets": list(dict.fromkeys((target.name, *anywhere))),
        "long": specializes_length(target),
    }
    with Pool(jobs, cache) as pool:
        triton = pool.ask({"verb": "version"})["triton"]
        launches = pool.ask(asked)["launches"]
        work = [Job(manifest.by_symbol[symbol], target, each) for symbol, each in launches]
        requests = [{**compile_request(manifest, each), "look": look} for each in work]
        answers = answered(pool, work, requests, tell)
    failed = [
        refused(job, answer)
        for job, answer in zip(work, answers, strict=True)
        if not answer.keys() & {"key", "missing"}
    ]
    if failed:
        raise BuildError([Finding(each.name, each.what, each.look_at) for each in failed])
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


def _refuse_stand_in(target: Target) -> None:
    if target.compiler is not None and target.compiler.stand_in:
        what = "has a stand-in for a compiler; its own Triton looks for other kernels"
        fix = "serve once on such a device: what it compiled stays in its cache"
        raise BuildError(Finding(f"--target {target.name}", what, fix))


def _refuse_folder(cache: Path, look: bool) -> None:
    """A cache that is not there holds nothing, and one that cannot be written takes nothing."""
    if look and not cache.is_dir():
        what = "is no folder, so no kernel is cached there"
        raise BuildError(Finding(f"--cache {cache}", what, "leave out --verify to fill it"))
    if look:
        return
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        raise BuildError(Finding(f"--cache {cache}", what, "pass another folder")) from error
