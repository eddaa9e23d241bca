"""What serving a layer takes of the device's memory beside hidden states and result.

    python -m benchmarks.memory

For every layer of every model of the shipped manifest: its weights as packed, which is the only
copy there is, and the workspace of a call, which layers share. Sizes are those that the runtime
allocates; nothing is launched. The table is Markdown, for benchmarks/README.md.
"""

from __future__ import annotations

from collections.abc import Iterator

from generator.runtime.layer import tokens_problem, workspace_bytes
from generator.runtime.manifest import Layer, Manifest, Model, load
from generator.runtime.module import QuantExperts
from generator.tune.weights import total_bytes

TOKENS = (1, 64, 4096)
TARGETS = ("sm_90", "portable")
COLUMNS = (
    "model",
    "layer",
    "weights, MiB",
    "bits a weight",
    *(f"workspace at {each}, KiB" for each in TOKENS),
    f"at {TOKENS[-1]}, bytes a token",
)


def row(manifest: Manifest, model: Model, layer: Layer) -> tuple[str, ...]:
    """One line's cells; the last is bytes of workspace a token at the most of TOKENS."""
    packed = QuantExperts(
        layer.name,
        experts=model.experts,
        hidden=model.hidden,
        intermediate=model.intermediate,
        device="meta",
    ).packed()
    needed = [
        workspace_bytes(tokens_problem(packed, tokens, model.top_k, TARGETS), manifest)
        for tokens in TOKENS
    ]
    weights = total_bytes(packed)
    count = 3 * model.experts * model.hidden * model.intermediate
    return (
        model.name,
        layer.name,
        f"{weights / 2**20:.1f}",
        f"{8 * weights / count:.2f}",
        *(f"{each / 2**10:.0f}" for each in needed),
        f"{needed[-1] / TOKENS[-1]:.0f}",
    )


def lines() -> Iterator[str]:
    """Markdown."""
    manifest = load()
    yield f"| {' | '.join(COLUMNS)} |"
    yield "| --- | --- |" + " ---: |" * (len(COLUMNS) - 2)
    for model in manifest.models.values():
        for name in model.layers:
            yield f"| {' | '.join(row(manifest, model, manifest.layers[name]))} |"


if __name__ == "__main__":
    for line in lines():
        print(line)
