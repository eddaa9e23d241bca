"""A worker process: answers one JSON request a line on standard input with one line on standard
output. Started by pool.py without the interpreter's flag, so that kernels are compiled.

Triton compiles in these processes only; the command line's may run its interpreter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.errors import TritonError

from generator.aot import offline
from generator.aot.binary import figures
from generator.aot.disassembly import tools
from generator.aot.launches import Launches, extremes, lengths
from generator.aot.looking import NotCached, look_only
from generator.errors import GroupwiseError
from generator.runtime.manifest import load

# What the stages of a compile raise: Triton's own, and its passes and LLVM through their bindings.
COMPILERS = (TritonError, RuntimeError)


class Worker:
    """What lives between requests: the driver without device, and Triton's word on the last
    kernel.
    """

    def __init__(self) -> None:
        self.offline = offline.activate()
        self.last: Mapping[str, Any] = {}
        triton.knobs.compilation.listener = self._listen

    def _listen(self, **said: Any) -> None:
        self.last = said

    def answer(self, request: Mapping[str, Any]) -> dict[str, object]:
        """The answer to one request. Anything unforeseen ends the process, whose last words the
        pool tells.
        """
        verbs = {"version": self.version, "launches": self.launches, "compile": self.compile}
        try:
            return verbs[request["verb"]](request)
        except NotCached as missing:
            return {"missing": str(missing)}
        except GroupwiseError as error:
            return {"findings": [asdict(each) for each in error.findings]}

    def version(self, request: Mapping[str, Any]) -> dict[str, object]:
        """Which Triton answers."""
        return {"triton": triton.__version__}

    def launches(self, request: Mapping[str, Any]) -> dict[str, object]:
        """What the runtime launches of some entries, or for some models."""
        of_models = "models" in request
        with Launches(load(request["directory"]), long=of_models and request["long"]) as found:
            if of_models:
                models = [found.manifest.models[name] for name in request["models"]]
                launches = found.of_models(models, tuple(request["targets"]))
            else:
                launches = found.of_entries(request["symbols"])
        if request["long"]:
            vary = lengths if of_models else extremes
            launches = [each for launch in launches for each in vary(launch)]
        return {"launches": [[each.symbol, each.arguments] for each in launches]}

    def compile(self, request: Mapping[str, Any]) -> dict[str, object]:
        """Launch one kernel on a device that is not there. With `look` nothing is compiled: a
        kernel that Triton's cache lacks is an answer of its own.
        """
        entry = load(request["directory"]).by_symbol[request["symbol"]]
        compiler = request["compiler"]
        target = GPUTarget(compiler["backend"], compiler["arch"], compiler["warp_size"])
        arguments = [
            each if isinstance(each, int) else _tensor(*each) for each in request["arguments"]
        ]
        self.offline.use(target)
        self.last = {}
        entry.kernel.device_caches.pop(self.offline.device, None)
        try:
            with look_only(request.get("look", False)):
                entry.kernel[(1, 1)](*arguments, **entry.options)
        except COMPILERS as error:
            return {"error": _message(error), "trace": traceback.format_exc()}
        metadata, group = self.last["metadata"], self.last["metadata_group"]
        folder = Path(next(iter(group.values()))).parent.name
        facts: dict[str, object] = {"key": folder, "cached": self.last["cache_hit"]}
        if request.get("figures", False):
            files = {Path(path).suffix[1:]: Path(path) for path in group.values()}
            try:
                facts["figures"] = asdict(figures(files, metadata["shared"], tools()))
            except (KeyError, OSError, ValueError, subprocess.SubprocessError) as error:
                return {"unread": _message(error), "trace": traceback.format_exc()}
        return facts


def _tensor(dtype: str, size: int, _: int) -> torch.Tensor:
    element: torch.dtype = getattr(torch, dtype)
    return torch.empty(size // element.itemsize, dtype=element, device="meta")


def _message(error: Exception) -> str:
    """The compiler's own words, without its traceback."""
    return f"{type(error).__name__}: {error}".strip()


def serve(requests: TextIO, answers: TextIO) -> None:
    worker = Worker()
    for line in requests:
        answers.write(json.dumps(worker.answer(json.loads(line))) + "\n")
        answers.flush()


def main() -> None:
    # Compilers write to standard output too; what they say must not stand among the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
