"""Launches that are to be compiled: what a worker is asked, how far the work is, and what is told
of a launch that came to nothing.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from generator.aot.pool import Answered, Pool
from generator.errors import Finding
from generator.runtime.entry import Entry
from generator.runtime.manifest import Manifest, Target

NOT_COMPILED = "rule strategy_on_target, unpack_on_target or dot_minimum"
TRACE = 6  # lines of a compiler's traceback that are shown


@dataclass(frozen=True, slots=True)
class Job:
    """One launch of one entry to be compiled for one target."""

    entry: Entry
    target: Target
    arguments: Sequence[Any]

    @property
    def name(self) -> str:
        return f"{self.target.name}: {self.entry.symbol}"


@dataclass(frozen=True, slots=True)
class Failure:
    """A variant that did not compile, or compiled to what it must not."""

    name: str
    what: str
    look_at: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work is, and what is being worked on."""

    done: int
    of: int
    now: tuple[str, ...]


def compile_request(manifest: Manifest, job: Job) -> dict[str, Any]:
    """What a worker is asked to do."""
    compiler = job.target.compiler
    assert compiler is not None
    return {
        "verb": "compile",
        "directory": str(manifest.directory),
        "symbol": job.entry.symbol,
        "arguments": job.arguments,
        "compiler": {
            "backend": compiler.backend,
            "arch": compiler.arch,
            "warp_size": compiler.warp_size,
        },
    }


def specializes_length(target: Target) -> bool:
    """Whether kernels are compiled anew for storages of 2 GiB and more."""
    return target.compiler is not None and target.compiler.backend == "hip"


def answered(
    pool: Pool,
    work: Sequence[Job],
    requests: Sequence[Mapping[str, Any]],
    tell: Callable[[Progress], None],
) -> list[Mapping[str, Any]]:
    """The answer to each request, whose progress is told as it comes."""
    answers: dict[int, Mapping[str, Any]] = {}
    now: dict[int, str] = {}
    for event in pool.run(requests):
        if isinstance(event, Answered):
            answers[event.index] = event.answer
            now.pop(event.index)
        else:
            now[event.index] = work[event.index].name
        tell(Progress(len(answers), len(work), tuple(now.values())))
    return [answers[index] for index in range(len(work))]


def refused(job: Job, answer: Mapping[str, Any]) -> Failure:
    """A variant of which the compiler, or the runtime, made nothing."""
    if "findings" in answer:
        said = [Finding(**each) for each in answer["findings"]]
        return Failure(job.name, "\n".join(str(each) for each in said), "the modules on disk")
    trace = "\n".join(str(answer["trace"]).splitlines()[-TRACE:])
    if "died" in answer:
        return Failure(job.name, f"{answer['died']}\n{trace}", _look_at(answer["code"]))
    if "unread" in answer:
        what = f"compiles to what cannot be read: {answer['unread']}\n{trace}"
        return Failure(job.name, what, "generator/aot/binary.py")
    return Failure(
        job.name,
        f"does not compile: {answer['error']}\n{trace}",
        NOT_COMPILED,
    )


def _look_at(code: int | None) -> str:
    """What a worker died of. LLVM's own fatal errors end a process by a signal."""
    if code == -signal.SIGKILL:
        return "memory: fewer --jobs, or dmesg"
    return NOT_COMPILED if code is not None and code < 0 else "generator/aot/worker.py"
