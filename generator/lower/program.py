"""A whole build: which layers and contracts, each lowered on each of its targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TypeVar

from generator.errors import BuildError, Finding
from generator.lower.contract import (
    Contract,
    GemmContract,
    LayerContract,
    LayerPlan,
    all_layers,
    model_layers,
    plans,
)
from generator.lower.plan import Plan, ShapeSource, lower
from generator.spec.model import Model, Spec, SpecSet, Target

# Layers of no shipped model are ranked for these, the middle of the field's real shapes.
TYPICAL = (ShapeSource(experts=64, n=2048, k=2048), ShapeSource(experts=64, n=1024, k=4096))


@dataclass(frozen=True, slots=True)
class Selection:
    """What the user asked to build; empty tuples mean no restriction."""

    specs: tuple[str, ...] = ()
    contracts: tuple[str, ...] = ()  # glob patterns on contract and layer names
    targets: tuple[str, ...] = ()
    everything: bool = False  # all contracts of the specs, not only those of shipped models


@dataclass(frozen=True, slots=True)
class LayerEntry:
    """A layer contract and the plans that realise it."""

    contract: LayerContract
    plans: tuple[LayerPlan, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """Everything that emission needs."""

    layers: tuple[LayerEntry, ...]
    plans: tuple[Plan, ...]  # per contract and target
    targets: tuple[Target, ...]
    models: tuple[Model, ...]
    specs: tuple[Spec, ...]


def program(loaded: SpecSet, selection: Selection) -> Program:
    """Lower what was asked for. Raises BuildError for unknown names and contracts without a legal
    design.
    """
    _refuse_unknown(loaded, selection)
    specs = _named(loaded.specs, selection.specs)
    targets = _named(loaded.targets, selection.targets)
    layers = _layers(specs, loaded.models, selection)
    _one_spec(layers)
    lowered: dict[tuple[str, str], Plan] = {}
    owners: dict[str, tuple[Contract, Spec]] = {}
    for spec in specs:
        spec_layers = [layer for layer in layers if layer.contract.spec == spec.name]
        for contract in _contracts(spec_layers, selection):
            _one_meaning(owners, contract, spec)
            for target in targets:
                key = (contract.name, target.name)
                emitted = target.name in spec.targets and contract.operation in target.operations
                if emitted and key not in lowered:
                    sources = _sources(contract, spec_layers, spec, loaded.models)
                    lowered[key] = lower(spec, contract, target, sources)
    if not lowered:
        raise BuildError(_nothing(layers, targets, selection))
    built = {plan.contract for plan in lowered.values()}
    whole = tuple(
        layer for layer in layers if all(set(plan.contracts) <= built for plan in layer.plans)
    )
    return Program(whole, tuple(lowered.values()), targets, loaded.models, specs)


Named = TypeVar("Named", Spec, Target)


def _refuse_unknown(loaded: SpecSet, selection: Selection) -> None:
    findings = []
    for kind, items, names in (
        ("spec", loaded.specs, selection.specs),
        ("target", loaded.targets, selection.targets),
    ):
        known = [item.name for item in items]
        findings += [
            Finding(f"--{kind} {name}", f"no such {kind}", f"use one of {', '.join(known)}")
            for name in names
            if name not in known
        ]
    if findings:
        raise BuildError(findings)


def _named(items: Sequence[Named], names: tuple[str, ...]) -> tuple[Named, ...]:
    return tuple(item for item in items if not names or item.name in names)


def _nothing(
    layers: list[LayerEntry], targets: tuple[Target, ...], selection: Selection
) -> Finding:
    """Why a selection is empty: no name fits, or no chosen target has the operation."""
    asked = " ".join(f"--contract {each}" for each in selection.contracts) or "the selection"
    operations = {
        contract.operation for each in layers for contract in _contracts([each], selection)
    }
    names = ", ".join(target.name for target in targets)
    if operations:
        what = f"{', '.join(sorted(operations))} is not emitted for {names}"
        return Finding(asked, what, "add `--target portable`")
    what = "matches no contract and no layer"
    return Finding(asked, what, "`python -m generator list --all` names what can be built")


def _layers(
    specs: tuple[Spec, ...], models: tuple[Model, ...], selection: Selection
) -> list[LayerEntry]:
    """Layers of the models; with --all or patterns all of one group size; any that is named."""
    by_name = {spec.name: spec for spec in specs}
    contracts = model_layers(specs, models)
    if selection.everything or selection.contracts:
        contracts += [layer for spec in specs for layer in all_layers(spec)]
    if selection.contracts:
        contracts += [
            layer
            for spec in specs
            for layer in all_layers(spec, mixed=True)
            if any(fnmatch(layer.name, pattern) for pattern in selection.contracts)
        ]
    return [
        LayerEntry(contract, plans(by_name[contract.spec], contract))
        for contract in dict.fromkeys(contracts)
    ]


def _contracts(layers: list[LayerEntry], selection: Selection) -> list[Contract]:
    """Contracts in first-use order; a pattern that names a layer takes all of its contracts."""
    chosen: dict[Contract, None] = {}
    for layer in layers:
        for plan in layer.plans:
            for contract in plan.contracts:
                if not selection.contracts or any(
                    fnmatch(name, pattern)
                    for pattern in selection.contracts
                    for name in (layer.contract.name, contract.name)
                ):
                    chosen.setdefault(contract)
    return list(chosen)


def _one_meaning(owners: dict[str, tuple[Contract, Spec]], contract: Contract, spec: Spec) -> None:
    """A name stands for one contract, one design space and one set of limits."""
    owner, first = owners.setdefault(contract.name, (contract, spec))
    ours, theirs = contract.axes(), owner.axes()
    differs = [key for key in ours if ours[key] != theirs[key]]
    operation = contract.operation
    if getattr(spec.designs, operation) != getattr(first.designs, operation):
        differs.append(f"designs.{operation}")
    if spec.limits != first.limits:
        differs.append("limits")
    if differs:
        raise BuildError(
            Finding(
                contract.name,
                f"specs {first.name} and {spec.name} differ in {', '.join(differs)} under one name",
                "raise `version` in one of them",
            )
        )


def _one_spec(layers: list[LayerEntry]) -> None:
    """A layer's name stands for one spec."""
    owners: dict[str, str] = {}
    shared: dict[tuple[str, str], list[str]] = {}
    for layer in layers:
        name, spec = layer.contract.name, layer.contract.spec
        owner = owners.setdefault(name, spec)
        if owner != spec:
            shared.setdefault((owner, spec), []).append(name)
    if shared:
        raise BuildError(
            [
                Finding(
                    f"specs {first} and {second}",
                    f"both describe {names[0]} and {len(names) - 1} more layers",
                    "raise `version` in one of them, or change an axis that names show",
                )
                for (first, second), names in shared.items()
            ]
        )


def _sources(
    contract: Contract, layers: list[LayerEntry], spec: Spec, models: tuple[Model, ...]
) -> list[ShapeSource]:
    """The shapes that a contract meets in the models; else any of theirs that its group divides."""
    users = {
        layer.contract
        for layer in layers
        if any(contract in plan.contracts for plan in layer.plans)
    }
    named = [model for model in models if users & set(model_layers((spec,), (model,)))]
    met = [_source(contract, model) for model in named or models]
    group = contract.group_k if isinstance(contract, GemmContract) else None
    fits = [source for source in met if not group or source.k % group == 0]
    if fits:
        return list(dict.fromkeys(fits))
    step = group or 1
    return [ShapeSource(each.experts, each.n, -(-each.k // step) * step) for each in TYPICAL]


def _source(contract: Contract, model: Model) -> ShapeSource:
    """N and K of an operation in a model."""
    hidden, intermediate = model.hidden, model.intermediate
    match contract.operation:
        case "up":
            return ShapeSource(model.experts, intermediate, hidden)
        case "down":
            return ShapeSource(model.experts, hidden, intermediate)
        case "requantize":
            return ShapeSource(model.experts, intermediate, intermediate)
        case _:
            return ShapeSource(model.experts, hidden, hidden)
