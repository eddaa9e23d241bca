"""How long a fresh process takes to its first finished layer, with an empty Triton cache and with a
prefilled one, and whether it compiles anything afterwards.

    python -m benchmarks.first_layer --cache DIR [--models NAME...] [--generated DIR] [--repeat 5]

Needs a GPU, and `python -m generator prefill --cache DIR` of the same models before. Each process
imports torch and the runtime, makes random packed weights on the GPU, and runs each layer of each
model at every number of tokens that its file names and at 1, from expert ids (int32 and int64) and
from sorted rows. `first layer` is the wall time from the start of the process to the end of its
first layer call, the device synchronised; `of that` is the part inside that call. Compiles are
counted by Triton's own listener (`knobs.compilation.listener`, which says of each kernel whether
the cache had it); `knobs.runtime.jit_post_compile_hook` sees both, compiled and loaded.
The table is Markdown; the median of the repetitions.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STARTED = "GROUPWISE_STARTED"  # environment variable: when the parent started the process


def child(models: Sequence[str], generated: Path | None) -> dict[str, Any]:
    """One fresh process: what it measured."""
    import torch
    import triton

    from generator.runtime.layer import run_rows, run_tokens
    from generator.runtime.manifest import load
    from generator.runtime.pack import pack
    from generator.verify.cases import Shape
    from generator.verify.inputs import seed_state, sorted_rows, tokens

    compiled: list[str] = []
    loaded: list[str] = []

    def listen(*, src: Any, cache_hit: bool, **_: Any) -> None:
        (loaded if cache_hit else compiled).append(src.name)

    hooked: list[str] = []

    def hook(*, repr: str, **_: Any) -> None:
        hooked.append(repr.partition("[")[0])

    triton.knobs.compilation.listener = listen
    triton.knobs.runtime.jit_post_compile_hook = hook
    manifest = load(generated)
    device = torch.device("cuda")
    first: dict[str, float] = {}
    calls = 0
    for name in models:
        model = manifest.models[name]
        for layer_name in model.layers:
            layer = manifest.layers[layer_name]
            sizes = (model.experts, model.global_experts, model.top_k)
            largest = Shape(*sizes, model.hidden, model.intermediate, max(model.tokens))
            packed = pack(seed_state(layer, largest, device, seed=0), layer)
            for count in sorted({1, *model.tokens}):
                shape = Shape(*sizes, model.hidden, model.intermediate, count)
                batch = tokens(layer, shape, device, seed=count)
                rows, counts = sorted_rows(batch, model.experts)
                torch.cuda.synchronize()
                start = time.time()
                run_tokens(packed, batch.hidden, batch.ids, batch.weights, manifest)
                torch.cuda.synchronize()
                if not first:
                    end = time.time()
                    first = {"total": end - float(os.environ[STARTED]), "call": end - start}
                run_tokens(packed, batch.hidden, batch.ids.int(), batch.weights, manifest)
                run_rows(packed, rows, counts, manifest)
                calls += 3
            torch.cuda.synchronize()
    return {
        **first,
        "calls": calls,
        "compiled": compiled,
        "from_cache": len(loaded),
        "hooked": len(hooked),
        "device": torch.cuda.get_device_name(),
        "versions": f"torch {torch.__version__}, Triton {triton.__version__}",
    }


def run(cache: Path, arguments: Sequence[str]) -> dict[str, Any]:
    """Start a process and read what it measured."""
    environment = os.environ | {"TRITON_CACHE_DIR": str(cache), STARTED: repr(time.time())}
    command = [sys.executable, "-m", "benchmarks.first_layer", "--child", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=["qwen3-30b-a3b"], metavar="NAME")
    parser.add_argument("--generated", type=Path, metavar="DIR", help="default: shipped modules")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="the prefilled cache")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="processes a row")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.models, options.generated)))
        return
    if options.cache is None:
        parser.error("--cache DIR is needed: what `python -m generator prefill` filled")
    shared = ["--models", *options.models]
    shared += ["--generated", str(options.generated)] if options.generated else []
    rows = {"empty": [], "prefilled": []}  # type: dict[str, list[dict[str, Any]]]
    for _ in range(options.repeat):
        with tempfile.TemporaryDirectory() as empty:
            rows["empty"].append(run(Path(empty), shared))
        rows["prefilled"].append(run(options.cache, shared))
    one = rows["empty"][0]
    print(f"{one['device']}, {one['versions']}, {', '.join(options.models)}\n")
    columns = ("cache", "first layer", "of that", "compiled", "from the cache", "seen by the hook")
    print(f"| {' | '.join(columns)} | layer calls |")
    print("| --- " * (len(columns) + 1) + "|")
    for name, results in rows.items():
        total, call = (
            statistics.median(each[key] for each in results) for key in ("total", "call")
        )
        counts = [len(each["compiled"]) for each in results]
        print(
            f"| {name} | {total:.2f} s | {call:.2f} s | {max(counts)} |"
            f" {max(each['from_cache'] for each in results)} |"
            f" {max(each['hooked'] for each in results)} | {results[0]['calls']} |"
        )
    for each in rows["prefilled"]:
        for symbol in each["compiled"]:
            print(f"compiled although the cache was prefilled: {symbol}")
    if any(each["compiled"] for each in rows["prefilled"]):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
