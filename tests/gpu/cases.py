"""What the GPU suite runs: read off the manifest alone, at collection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from generator.runtime.layer import run_rows, run_tokens
from generator.runtime.manifest import Layer, Manifest
from generator.runtime.pack import pack
from generator.verify.cases import Shape, least_shape
from generator.verify.inputs import seed_state, sorted_rows, tokens
from generator.verify.stages import Checked
from tests.shapes import ragged


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
        for tokens_ in sorted({batches[0], batches[len(batches) // 2], batches[-1]}):
            for layer in model.layers:
                shape = Shape(
                    model.experts,
                    model.global_experts,
                    model.top_k,
                    model.hidden,
                    model.intermediate,
                    tokens_,
                )
                found.append(Real(layer, f"{model.name}-T{tokens_}-{layer}", shape))
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


def edge_layers(manifest: Manifest) -> list[str]:
    """One layer contract of each weight format: the first."""
    first: dict[str, str] = {}
    for layer in manifest.layers.values():
        first.setdefault(layer.weights, layer.name)
    return list(first.values())


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


def tail_shapes(name: str, manifest: Manifest) -> dict[str, Shape]:
    """By GEMM, the covering shape with a tail in its K: behind one group and behind several. Its N
    stays a multiple of every block.
    """
    layer, whole = manifest.layers[name], covering_shape(name, manifest)
    return {
        "up": replace(whole, hidden=ragged(layer.up_group, 3)),
        "down": replace(whole, intermediate=ragged(layer.down_group, 3)),
    }


def calls(
    layer: Layer,
    shape: Shape,
    manifest: Manifest,
    device: torch.device,
    *,
    plans: tuple[str | None, ...] = (None,),
    starts: tuple[str, ...] = ("tokens", "rows"),
) -> Iterator[Checked]:
    """The layer from tokens with ids and from sorted rows, by each of the plans; None is the one
    that selection takes.
    """
    packed = pack(seed_state(layer, shape, device, seed=7), layer)
    batch = tokens(layer, shape, device, seed=7)
    rows, counts = sorted_rows(batch, shape.experts)
    for plan in plans:
        if "tokens" in starts:
            run = run_tokens(packed, batch.hidden, batch.ids, batch.weights, manifest, plan=plan)
            yield Checked(packed, layer, run, batch.hidden, ids=batch.ids, weights=batch.weights)
        if "rows" in starts:
            run = run_rows(packed, rows, counts, manifest, plan=plan)
            yield Checked(packed, layer, run, rows, counts=counts)


def plan_names(layer: Layer) -> tuple[str, ...]:
    return tuple(plan.name for plan in layer.plans)
