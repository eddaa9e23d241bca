"""A layer small enough for the interpreter, prepared as the bench prepares it."""

from __future__ import annotations

import torch

from generator.runtime.manifest import Manifest, Model
from generator.tune.calls import Prepared, prepare, random_tokens
from generator.tune.cases import Batch
from generator.tune.weights import copies, random_experts

CHANNEL = "layer_w8gn_a8_swiglu_bf16_v1"
GROUPS = "layer_w8g128_a8_swiglu_bf16_v1"
INT4 = "layer_w4g128_a8_swiglu_bf16_v1"
CPU = torch.device("cpu")


def model(*layers: str, intermediate: int = 128, **changes: int) -> Model:
    """Four local experts of six, two a token."""
    sizes = {"experts": 4, "global_experts": 6, "top_k": 2, "hidden": 128} | changes
    return Model(
        name="tiny", intermediate=intermediate, tokens=(3,), layers=layers or (CHANNEL,), **sizes
    )


def prepared(
    manifest: Manifest,
    layer: str = CHANNEL,
    *,
    tokens: int = 5,
    routing: str = "uniform",
    calls: int = 1,
    places: int = 1,
    plan: str | None = None,
    device: torch.device = CPU,
    **sizes: int,
) -> Prepared:
    """`calls` batches, on `places` copies of the weights."""
    own = model(layer, **sizes)
    contract = manifest.layers[layer]
    batches = tuple(
        random_tokens(own, contract, Batch(tokens, routing), device, seed) for seed in range(calls)
    )
    weights = copies(random_experts(own, contract, device, seed=0), places)
    return prepare(manifest, contract, weights, batches, plan)
