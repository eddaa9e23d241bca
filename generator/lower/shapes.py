"""The shapes that a contract is ranked for: those it meets in the shipped models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from generator.lower.contract import Contract, GemmContract
from generator.lower.cost import Shape
from generator.lower.layer_contract import (
    LayerContract,
    LayerPlan,
    model_layers,
)
from generator.packing import padded
from generator.spec.model import Model, SpecSet


@dataclass(frozen=True)
class ShapeSource:
    """A real layer's GEMM, before its rows are known."""

    experts: int
    n: int
    k: int
    rows: int  # of its largest call

    def at(self, rows_per_expert: int) -> Shape:
        return Shape(self.experts, rows_per_expert, self.n, self.k)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Of its largest call, by the names that conditions use."""
        return {"rows": self.rows, "N": self.n, "K": self.k, "experts": self.experts}


# Layers of no shipped model are ranked for these, the middle of the field's real shapes.
TYPICAL = (
    ShapeSource(experts=64, n=2048, k=2048, rows=32768),
    ShapeSource(experts=64, n=1024, k=4096, rows=32768),
)


@dataclass(frozen=True)
class Users:
    """Which layers and models use a contract."""

    models: tuple[Model, ...]
    by_layer: dict[LayerContract, list[Model]]
    by_contract: dict[Contract, list[tuple[LayerContract, str]]]  # layer and plan

    def of(self, contract: Contract) -> list[tuple[LayerContract, str]]:
        return self.by_contract.get(contract, [])

    def sources(self, contract: Contract) -> tuple[ShapeSource, ...]:
        """Shapes in the models that use a contract; else any of theirs that its group divides."""
        users = {layer for layer, _ in self.of(contract)}
        named = [
            model for model in self.models if any(model in self.by_layer.get(u, ()) for u in users)
        ]
        if named:
            return tuple(dict.fromkeys(source(contract.operation, model) for model in named))
        met = [source(contract.operation, model) for model in self.models]
        group = contract.group_k if isinstance(contract, GemmContract) else None
        fits = [each for each in met if not group or each.k % group == 0]
        step = group or 1
        typical = [replace(each, k=-(-each.k // step) * step) for each in TYPICAL]
        return tuple(dict.fromkeys(fits or typical))

    def layer_source(self, layer: LayerContract) -> ShapeSource:
        """The up kernel's shape in the model of a layer that has the least intermediate."""
        shapes = [source("up", model) for model in self.by_layer.get(layer, [])]
        return min(shapes, key=lambda each: each.n) if shapes else TYPICAL[0]


def users(loaded: SpecSet, layers: Sequence[tuple[LayerContract, tuple[LayerPlan, ...]]]) -> Users:
    """Index the layers of a build and the models that are served with them."""
    by_layer: dict[LayerContract, list[Model]] = {}
    for model in loaded.models:
        for layer in model_layers(loaded.specs, (model,)):
            by_layer.setdefault(layer, []).append(model)
    by_contract: dict[Contract, list[tuple[LayerContract, str]]] = {}
    for layer, plans in layers:
        for plan in plans:
            for contract in plan.contracts:
                by_contract.setdefault(contract, []).append((layer, plan.name))
    return Users(loaded.models, by_layer, by_contract)


def source(operation: str, model: Model) -> ShapeSource:
    """N and K of an operation in a model, as they are stored."""
    hidden, intermediate = padded(model.hidden), padded(model.intermediate)
    n, k = {
        "up": (intermediate, hidden),
        "down": (hidden, intermediate),
        "requantize": (intermediate, intermediate),
    }.get(operation, (hidden, hidden))
    return ShapeSource(model.experts, n, k, max(model.tokens) * model.top_k)
