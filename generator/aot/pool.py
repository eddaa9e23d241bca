"""Worker processes that compile side by side, and what is lost when one of them dies."""

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
from types import TracebackType
from typing import Any

from generator.errors import BuildError, Finding

Request = Mapping[str, Any]
Answer = Mapping[str, Any]
TAIL = 12  # lines of a dead worker's standard error that are shown


class _Worker:
    """One process. Its standard error goes to a file, so that a crash can be told."""

    def __init__(self, cache: Path) -> None:
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        # 0, for without the flag a machine without GPU would choose the interpreter.
        environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(cache)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "generator.aot.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment,
            text=True,
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
        return {"died": f"the compiler's process ended with code {code}", "trace": "\n".join(tail)}

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.errors.close()


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
    """`jobs` workers that share one Triton cache. A context: leaving it, also by an interrupt, ends
    them at once.
    """

    def __init__(self, jobs: int, cache: Path) -> None:
        if jobs < 1:
            raise BuildError(Finding("--jobs", f"is {jobs}", "use 1 or more"))
        self.jobs, self.cache = jobs, cache
        self._workers: list[_Worker] = []
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            worker.close()
        self._workers.clear()

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
        """Answers as they come, and beforehand that work on them starts."""
        events: queue.SimpleQueue[Started | Answered | BaseException] = queue.SimpleQueue()
        waiting = iter(range(len(requests)))
        lock = threading.Lock()

        def work(worker: _Worker) -> None:
            while True:
                with lock:
                    index = next(waiting, None)
                if index is None:
                    return
                events.put(Started(index))
                answer = worker.ask(requests[index])
                events.put(Answered(index, answer))
                if "died" in answer:
                    worker.close()
                    worker.__init__(self.cache)  # type: ignore[misc]

        while len(self._workers) < min(self.jobs, len(requests)):
            self._workers.append(_Worker(self.cache))
        threads = [
            threading.Thread(target=work, args=(worker,), daemon=True) for worker in self._workers
        ]
        for thread in threads:
            thread.start()
        answered = 0
        while answered < len(requests):
            event = events.get()
            answered += isinstance(event, Answered)
            yield event
