"""What rounding the activation costs in output error: fp32, fp16 and bf16 side by side.

    python -m benchmarks.intermediate [--tokens 64] [--seed 0]

Every figure is computed by the oracle (`generator/runtime/reference.py`) on random weights and
tokens at the models' real H and I, with four experts and top-2. `error` is the root mean square of
y - y' over that of y', where y' goes on from the same codes of the hidden states in float64 without
rounding or requantizing the activation; so the fp32 row shows what requantization alone costs.
`codes` is the share of int8 codes that differ from those of the fp32 row, `scales` the largest
relative change of a row's scale against it. The table is Markdown, for docs/intermediate.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from generator.runtime import reference
from generator.runtime.manifest import Layer, Manifest, load
from generator.runtime.pack import int8_weights, pack
from generator.runtime.workspace import torch_dtype
from generator.verify.cases import Shape
from generator.verify.inputs import seed_state, tokens

CASES = (  # layer contract, and the model whose H and I it is run at
    ("layer_w8gn_a8_swiglu_bf16_v1", "seed-large"),
    ("layer_w4g512g320_a8_swiglu_bf16_v1", "seed-large"),
    ("layer_w8gn_a8_swiglu_bf16_v1", "qwen3-30b-a3b"),
    ("layer_w4g128_a8_swiglu_bf16_v1", "qwen3-30b-a3b"),
    ("layer_w8g128_a8_swiglu_bf16_v1", "deepseek-v3-ep8"),
    ("layer_w4g128_a8_swiglu_bf16_v1", "deepseek-v3-ep8"),
    ("layer_w8gn_a8_swiglu_bf16_v1", "mixtral-8x7b"),
)
INTERMEDIATES = ("fp32", "fp16", "bf16")


@dataclass(frozen=True, slots=True)
class Row:
    """One intermediate format at one layer and shape."""

    layer: str
    model: str
    intermediate: str
    error: float  # relative root mean square of the expert outputs
    codes: float  # share of codes that differ from those of fp32
    scales: float  # largest relative change of a row's scale


def measure(
    manifest: Manifest, name: str, model: str, device: torch.device, count: int, seed: int
) -> Iterator[Row]:
    """The rows of one layer at one model's H and I."""
    layer, facts = manifest.layer(name), manifest.models[model]
    shape = Shape(4, 4, 2, facts.hidden, facts.intermediate, count)
    packed = pack(seed_state(layer, shape, device, seed), layer)
    batch = tokens(layer, shape, device, seed)
    expert = batch.ids.reshape(-1)
    rows = batch.hidden.repeat_interleave(2, dim=0)
    codes, scale = reference.quantize(rows, packed.up_inv_smooth, expert, layer.rounding)
    up = int8_weights(packed.up_weight, layer, layer.up_group)
    down = int8_weights(packed.down_weight, layer, layer.down_group)
    y = reference.gemm(codes, scale, up, packed.up_scale, expert, layer.up_group)
    want = _ideal(y, down, packed.down_scale, packed.down_inv_smooth, expert, layer)
    table = reference.exp_table(torch_dtype(layer.dtype), device)
    first = None
    for each in INTERMEDIATES:
        a = reference.swiglu(y, torch_dtype(layer.dtype), torch_dtype(each), table)
        q, s = reference.quantize(a, packed.down_inv_smooth, expert, layer.rounding)
        got = reference.gemm(q, s, down, packed.down_scale, expert, layer.down_group).double()
        first = first or (q, s)
        yield Row(
            name,
            model,
            each,
            float((got - want).square().mean().sqrt() / want.square().mean().sqrt()),
            float((q != first[0]).double().mean()),
            float(((s - first[1]).abs() / first[1]).max()),
        )


def _ideal(
    y: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    inv_smooth: torch.Tensor,
    expert: torch.Tensor,
    layer: Layer,
) -> torch.Tensor:
    """silu(gate) * up, smoothed, and the down projection in float64, nothing rounded on the way."""
    gate, up = y.double().chunk(2, dim=1)
    a = torch.nn.functional.silu(gate) * up * inv_smooth[expert].double()
    length = layer.down_group or a.shape[1]
    out = torch.empty(a.shape[0], weight.shape[1], dtype=torch.float64, device=y.device)
    for e in range(weight.shape[0]):
        spread = scale[e].double().repeat_interleave(length, dim=0)[: a.shape[1]]
        own = expert == e
        out[own] = a[own] @ (weight[e].double() * spread.T).T
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print("| layer | H and I of | intermediate | error | codes | scales |")
    print("| --- | --- | --- | --- | --- | --- |")
    manifest = load()
    for name, model in CASES:
        for row in measure(manifest, name, model, device, options.tokens, options.seed):
            print(
                f"| {row.layer} | {row.model} | {row.intermediate} | {row.error:.6f}"
                f" | {row.codes:.4%} | {row.scales:.4%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
