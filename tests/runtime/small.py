"""A small layer that tests run again and again."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from generator.runtime.layer import LayerRun, run_rows, run_tokens
from generator.runtime.manifest import Layer, Manifest
from generator.runtime.pack import pack
from generator.runtime.packed import PackedExperts
from generator.verify.cases import Shape
from generator.verify.inputs import Tokens, seed_state, tokens


@dataclass(frozen=True)
class Small:
    """Packed weights and one batch of a layer contract."""

    manifest: Manifest
    layer: Layer
    shape: Shape
    packed: PackedExperts
    batch: Tokens
    plan: str | None = None  # None: the one that selection takes

    def tokens(self, **changes: object) -> LayerRun:
        """Run from tokens, with hidden, ids, weights, packed or options of run_tokens replaced."""
        call: dict[str, object] = {
            "hidden": self.batch.hidden,
            "ids": self.batch.ids,
            "weights": self.batch.weights,
            "packed": self.packed,
            "manifest": self.manifest,
            "plan": self.plan,
        }
        return run_tokens(**(call | changes))

    def rows(self, hidden: torch.Tensor, counts: list[int], **changes: object) -> LayerRun:
        """Run from sorted rows."""
        per_expert = torch.tensor(counts, dtype=torch.int32, device=hidden.device)
        call = {"plan": self.plan} | changes
        return run_rows(self.packed, hidden, per_expert, self.manifest, **call)


def small(
    manifest: Manifest,
    device: torch.device,
    *,
    name: str = "layer_w8g128_a8_swiglu_bf16_v1",
    experts: int = 4,
    global_experts: int = 4,
    top_k: int = 2,
    count: int = 10,
    hidden: int = 128,
    intermediate: int = 128,
    seed: int = 0,
    plan: str | None = None,
) -> Small:
    layer = manifest.layer(name)
    shape = Shape(experts, global_experts, top_k, hidden, intermediate, count)
    packed = pack(seed_state(layer, shape, device, seed), layer)
    return Small(manifest, layer, shape, packed, tokens(layer, shape, device, seed), plan)
