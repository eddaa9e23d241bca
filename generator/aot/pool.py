"""Worker processes that compile side by side, and what is told when one of them dies."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from generator.errors import BuildError, Finding

Request = Mapping[str, Any]
Answer = Mapping[str, Any]
COMMAND = (sys.executable, "-m", "generator.aot.worker")
# Environment variables that change what Triton's compilers make of a kernel.
SWITCHES = ("TRITON_", "AMDGCN_", "DISABLE_LLVM_OPT", "USE_IR_LOC", "LLVM_", "MLIR_", "PTXAS")
TAIL = 12  # lines of a dead worker's standard error that are shown


class _Worker:
    """One process. Its standard error goes to a file, so that a crash can be told."""

    def __init__(self, cache: Path, errors: IO[str], plain: bool) -> None:
        self.errors = errors
        kept = {k: v for k, v in os.environ.items() if not (plain and k.startswith(SWITCHES))}
        # 0, for without the flag a machine without GPU would choose the interpreter.
        environment = kept | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(cache)}
        self.process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            text=True,
            start_new_session=True,  # an interrupt is the command line's, which ends them
        )

    def ask(self, request: Request) -> Answer:
        """Its answer; `died` where it gave none."""
        assert self.process.stdin is not None and self.process.stdout is not None
        line = ""
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        if line:
            answer: Answer = json.loads(line)
            return answer
        code = self.process.wait()
        self.errors.seek(0)
        tail = self.errors.read().strip().splitlines()[-TAIL:]
        what = f"the compiler's process ended with code {code}"
        return {"died": what, "code": code, "trace": "\n".join(tail)}


@dataclass(frozen=True, slots=True)
class Started:
    """A request is being worked on."""

    index: int


@dataclass(frozen=True, slots=True)
class Answered:
    """A request was answered."""

    index: int
    answer: Answer


class Pool:
    """Up to `jobs` workers that share one Triton cache. A context: leaving it, also by an
    interrupt, ends them at once. With `plain`, switches of the environment do not reach them.

    Each worker is started and asked by a thread of its own. Python raises an interrupt in the main
    thread alone, so none comes between a process's start and the note that it is there.
    """

    def __init__(self, jobs: int, cache: Path, *, plain: bool = False) -> None:
        if jobs < 1:
            raise BuildError(Finding("--jobs", f"is {jobs}", "use 1 or more"))
        self.jobs, self.cache, self.plain = jobs, cache, plain
        self._lock = threading.Lock()
        self._workers: dict[int, _Worker] = {}  # by slot; changed under the lock
        self._closed = False
        self._logs = tempfile.TemporaryDirectory(prefix="groupwise-")

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:  # nobody starts another one from here on
            self._closed = True
        for worker in self._workers.values():
            worker.process.kill()
        for worker in self._workers.values():
            worker.process.wait()
            worker.errors.close()
        self._logs.cleanup()

    def ask(self, request: Request) -> Answer:
        """One answer. Raises BuildError where the worker refused or died: there is no way on."""
        [answer] = (each.answer for each in self.run([request]) if isinstance(each, Answered))
        if "findings" in answer:
            raise BuildError([Finding(**each) for each in answer["findings"]])
        for key in ("died", "error"):
            if key in answer:
                what = f"{answer[key]}\n{answer['trace']}"
                fix = f"see whether `{sys.executable} -c 'import torch, triton'` works"
                raise BuildError(Finding("the compiler's process", what, fix))
        return answer

    def run(self, requests: Sequence[Request]) -> Iterator[Started | Answered]:
        """Answers as they come, and before each of them that work on it starts. Raises BuildError
        where a worker cannot be started, or not again.
        """
        events: queue.SimpleQueue[Started | Answered | BuildError] = queue.SimpleQueue()
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(len(requests)):
            waiting.put(index)
        for slot in range(min(self.jobs, len(requests))):
            work = (slot, requests, waiting, events)
            threading.Thread(target=self._work, args=work, daemon=True).start()
        answered = 0
        while answered < len(requests):
            event = events.get()
            if isinstance(event, BuildError):
                raise event
            answered += isinstance(event, Answered)
            yield event

    def _worker(self, slot: int) -> _Worker | None:
        """The worker of a slot, started where there is none; None once the pool is closed."""
        with self._lock:
            if self._closed:
                return None
            if slot not in self._workers:
                self._workers[slot] = self._new()
            return self._workers[slot]

    def _new(self) -> _Worker:
        try:
            handle, _ = tempfile.mkstemp(dir=self._logs.name)
            errors = os.fdopen(handle, "w+", encoding="utf-8", errors="replace")
            return _Worker(self.cache, errors, self.plain)
        except OSError as error:
            what = f"cannot be started: {error.strerror}"
            raise BuildError(Finding("the compiler's process", what, "use fewer --jobs")) from error

    def _work(
        self,
        slot: int,
        requests: Sequence[Request],
        waiting: queue.SimpleQueue[int],
        events: queue.SimpleQueue[Started | Answered | BuildError],
    ) -> None:
        """Feed one worker until nothing waits; one that died is replaced for the next request."""
        while True:
            try:
                index = waiting.get_nowait()
                worker = self._worker(slot)
            except queue.Empty:
                return
            except BuildError as error:
                events.put(error)
                return
            if worker is None:
                return
            events.put(Started(index))
            try:
                answer = worker.ask(requests[index])
            except (OSError, ValueError) as error:  # the pool was closed meanwhile
                answer = {"died": str(error), "code": None, "trace": ""}
            with self._lock:
                if self._closed:
                    return
                if "died" in answer:
                    worker.process.kill()
                    worker.errors.close()
                    del self._workers[slot]
            events.put(Answered(index, answer))
