"""What the GPU suite runs: read off the manifest alone, at collection."""

from __future__ import annotations

from dataclasses import dataclass

from generator.runtime.manifest import Manifest
from generator.verify.cases import Shape, least_shape


@dataclass(frozen=True)
class Real:
    """A layer contract at a real model's shape and one of its batches."""

    layer: str
    name: str
    shape: Shape


def real_shapes(manifest: Manifest) -> list[Real]:
    """Every layer of every model at its smallest, a middle and its largest batch."""
    found = []
    for model in manifest.models.values():
        batches = sorted(model.tokens)
        for tokens in sorted({batches[0], batches[len(batches) // 2], batches[-1]}):
            for layer in model.layers:
                shape = Shape(
                    model.experts,
                    model.global_experts,
                    model.top_k,
                    model.hidden,
                    model.intermediate,
                    tokens,
                )
                found.append(Real(layer, f"{model.name}-T{tokens}-{layer}", shape))
    return found


def covering_layers(manifest: Manifest) -> list[str]:
    """As many layer contracts as it takes to run every operation contract of the manifest."""
    chosen, open_contracts = [], set(manifest.by_contract)
    for layer in manifest.layers.values():
        used = {name for plan in layer.plans for name in plan.tokens + plan.rows}
        if used & open_contracts:
            chosen.append(layer.name)
            open_contracts -= used
    return chosen


def uncovered_contracts(manifest: Manifest) -> set[str]:
    """Contracts that no layer of the manifest runs; there should be none."""
    used = {
        name
        for layer in manifest.layers.values()
        for plan in layer.plans
        for name in plan.tokens + plan.rows
    }
    return set(manifest.by_contract) - used


def covering_shape(layer: str, manifest: Manifest) -> Shape:
    """At least 512 wide, so that every walk takes several groups, and rows for every band."""
    least = least_shape(manifest.layers[layer], manifest)
    hidden, intermediate = (size * -(-512 // size) for size in (least.hidden, least.intermediate))
    return Shape(6, 8, 3, hidden, intermediate, 200)
