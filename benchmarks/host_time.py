"""What a layer call costs the host: the time until it returns, while the device is still busy.

    python -m benchmarks.host_time [--model NAME] [--layer NAME] [--tokens N...] [--generated DIR]

On a GPU these are real calls. Each sample is the time for `--calls` calls in a row to return,
divided by their number, the device synchronised before; that many launches fit its queue, so the
host never waits for it. Without GPU every kernel is replaced by one that does nothing, and what is
left is the Python around launches, Triton's own launcher not included. The median of `--repeat`
samples, and in brackets the interquartile range; the ways take turns. `by the JIT` is the same call
with every launch through Triton's JIT, as the first call of a batch takes it; `launches alone` is
what one of `run_tokens` ends with: the loop over Triton's launchers. The table is Markdown.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from generator.runtime import direct
from generator.runtime.layer import run_rows, run_tokens
from generator.runtime.manifest import Layer, Manifest, Model, load
from generator.runtime.module import Gating, QuantExperts, QuantMoE
from generator.runtime.packed import PackedExperts, kernel_shapes, storage_dtype
from generator.runtime.workspace import torch_dtype

Call = Callable[[], object]


class NoKernel(direct.CompiledKernel):
    """A compiled kernel that does nothing, and the JIT function that it comes from."""

    def __init__(self) -> None:
        self.function = self.packed_metadata = self.module = None
        self.pre_run_hooks: list[Any] = []

    def run(self, *arguments: object) -> None:
        pass

    def __getitem__(self, grid: object) -> Callable[..., NoKernel]:
        return self._jit

    def _jit(self, *arguments: object, **options: object) -> NoKernel:
        return self


def without_device(manifest: Manifest) -> None:
    """Let launches of this process go nowhere."""
    for entry in manifest.entries:
        vars(entry)["kernel"], vars(entry)["options"] = NoKernel(), {}
    torch.set_num_threads(1)  # of the router on the CPU: idle ones take turns with what is timed
    active = SimpleNamespace(get_current_device=lambda: 0, get_current_stream=lambda _: 0)
    direct.driver = SimpleNamespace(active=active)


def experts(layer: Layer, model: Model, device: torch.device) -> PackedExperts:
    """Weights of a model's shape; zeros, for nobody looks at the results."""
    sizes = (model.experts, model.hidden, model.intermediate)
    tensors: dict[str, Any] = {
        field: torch.zeros(shape, dtype=storage_dtype(layer, field), device=device)
        for field, shape in kernel_shapes(layer, *sizes).items()
    }
    return PackedExperts(layer.name, *sizes, **tensors)


def by_the_jit(call: Call) -> object:
    """A call as if its kernels had never been launched."""
    kept, direct.hold = direct.hold, lambda _: False
    try:
        return call()
    finally:
        direct.hold = kept


def launches_of(call: Call) -> Call:
    """The launches that a call ends with, alone. Its memory must outlive them."""
    seen: list[Call] = []
    kept, direct.launch = direct.launch, lambda *what: seen.append(partial(kept, *what))
    try:
        call()
    finally:
        direct.launch = kept
    [launches] = seen
    return launches


def ways(
    packed: PackedExperts, model: Model, tokens: int, manifest: Manifest
) -> Mapping[str, Call]:
    """Every way into a layer, by name."""
    device, dtype = packed.up_weight.device, torch_dtype(manifest.layer(packed.layer).dtype)
    hidden = torch.zeros(tokens, model.hidden, dtype=dtype, device=device)
    ids = torch.arange(model.top_k, device=device).repeat(tokens, 1)
    weights = torch.ones(tokens, model.top_k, device=device)
    counts = torch.zeros(packed.experts, dtype=torch.int32, device=device)
    from_tokens = partial(run_tokens, packed, hidden, ids, weights, manifest)
    from_rows = partial(run_rows, packed, hidden, counts, manifest)
    memory, of_rows = (
        {"out": run.out, "workspace": run.workspace} for run in (from_tokens(), from_rows())
    )
    module = QuantExperts.from_packed(packed, generated=manifest.directory)
    moe = QuantMoE(
        packed.layer,
        experts=packed.experts,
        global_experts=model.global_experts,
        top_k=model.top_k,
        hidden=model.hidden,
        intermediate=model.intermediate,
        generated=manifest.directory,
        device="meta",
    )
    moe.experts = module
    moe.gating = Gating(
        model.hidden, model.global_experts, model.top_k, renormalize=True, device=device
    )
    return {
        "run_tokens": from_tokens,
        "run_tokens, the caller's memory": partial(from_tokens, **memory),
        "run_tokens, its launches alone": launches_of(partial(from_tokens, **memory)),
        "run_tokens, by the JIT": partial(by_the_jit, from_tokens),
        "run_rows": from_rows,
        "run_rows, the caller's memory": partial(from_rows, **of_rows),
        "QuantExperts.forward_tokens": partial(module.forward_tokens, hidden, ids, weights),
        "QuantExperts": partial(module, hidden, counts),
        "QuantMoE": partial(moe, hidden),
    }


def sample(call: Call, count: int, synchronize: Callable[[], object]) -> float:
    """Microseconds until one of `count` calls in a row returns."""
    synchronize()
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) * 1e6 / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="qwen3-30b-a3b", metavar="NAME")
    parser.add_argument("--layer", metavar="NAME", help="default: the model's first")
    parser.add_argument("--tokens", nargs="+", type=int, default=[1, 64], metavar="N")
    parser.add_argument("--generated", type=Path, metavar="DIR", help="default: shipped modules")
    parser.add_argument("--calls", type=int, default=20, metavar="N", help="calls of a sample")
    parser.add_argument("--repeat", type=int, default=50, metavar="N", help="samples of a number")
    options = parser.parse_args()
    import triton  # after the runtime, which chooses between GPU and interpreter

    manifest = load(options.generated)
    model = manifest.models[options.model]
    layer = manifest.layer(options.layer or model.layers[0])
    real = torch.cuda.is_available()
    device = torch.device("cuda" if real else "cpu")
    synchronize = torch.cuda.synchronize if real else lambda: None
    if not real:
        without_device(manifest)
    where = torch.cuda.get_device_name() if real else "no GPU: launches do nothing"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{where}; {versions}, Triton {triton.__version__}; {model.name}, {layer.name}\n")
    packed = experts(layer, model, device)
    measured: dict[str, list[str]] = {}
    for tokens in options.tokens:
        calls = ways(packed, model, tokens, manifest)
        samples: dict[str, list[float]] = {name: [] for name in calls}
        for call in calls.values():  # compiles, and warms up
            sample(call, options.calls, synchronize)
        for _ in range(options.repeat):
            for name, call in calls.items():
                samples[name].append(sample(call, options.calls, synchronize))
        for name, values in samples.items():
            low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
            measured.setdefault(name, []).append(f"{middle:.1f} [{high - low:.1f}]")
    print("| host us a call | " + " | ".join(f"{each} tokens" for each in options.tokens) + " |")
    print("| --- " * (len(options.tokens) + 1) + "|")
    for name, cells in measured.items():
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
