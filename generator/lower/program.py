"""A whole build: which layers and contracts, each lowered on each of its targets."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from typing import TypeVar

from generator.errors import BuildError, Finding
from generator.lower.contract import Contract, GemmContract
from generator.lower.layer import PlanBand, rank_plans, wanted_bands
from generator.lower.layer_contract import (
    LayerContract,
    LayerPlan,
    all_layers,
    model_layers,
    plans,
)
from generator.lower.measured import Measured
from generator.lower.plan import Plan, lower
from generator.lower.shapes import Users, users
from generator.lower.tuned import tuned
from generator.spec.model import Model, Spec, SpecSet, Target, Tuning

# Where a user finds the names that can be asked for.
LISTED = "`python -m generator list --all` names all but layers of two group sizes"


@dataclass(frozen=True, slots=True)
class Selection:
    """What the user asked to build; empty tuples mean no restriction."""

    specs: tuple[str, ...] = ()
    contracts: tuple[str, ...] = ()  # glob patterns on contract and layer names
    targets: tuple[str, ...] = ()
    everything: bool = False  # all contracts of the specs, not only those of shipped models
    rivals: int = 0  # tiles kept of a GEMM, a band and a shape, for a tuner; 0: those that serve


@dataclass(frozen=True, slots=True)
class LayerEntry:
    """A layer contract, the plans that realise it, and when a target takes which."""

    contract: LayerContract
    plans: tuple[LayerPlan, ...]
    bands: Mapping[str, tuple[PlanBand, ...]]  # by target


@dataclass(frozen=True, slots=True)
class Program:
    """Everything that emission needs."""

    layers: tuple[LayerEntry, ...]
    plans: tuple[Plan, ...]  # per contract and target
    targets: tuple[Target, ...]  # that anything is built for
    every_target: tuple[Target, ...]  # what a device may not run is a fact of its own target
    models: tuple[Model, ...]
    specs: tuple[Spec, ...]
    measured: Measured
    tunings: tuple[Tuning, ...]


def program(loaded: SpecSet, selection: Selection) -> Program:
    """Lower what was asked for. Raises BuildError for unknown names and contracts without a legal
    design.
    """
    with _uncollected():
        return _program(loaded, selection)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Lowering makes a million small objects that live to its end: looking again and again for
    those that do not took two fifths of the time.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _program(loaded: SpecSet, selection: Selection) -> Program:
    _refuse_unknown(loaded, selection)
    specs = _named(loaded.specs, selection.specs)
    targets = _named(loaded.targets, selection.targets)
    by_name = {spec.name: spec for spec in specs}
    layers = {
        layer: plans(by_name[layer.spec], layer)
        for layer in _layers(specs, loaded.models, selection)
    }
    _one_spec(list(layers))
    known = users(loaded, list(layers.items()))
    measured = Measured(loaded.resources, loaded.calibrations)
    ranked: dict[LayerContract, LayerEntry] = {}
    lowered: dict[tuple[str, str], Plan] = {}
    owners: dict[str, tuple[Contract, Spec]] = {}
    for spec in specs:
        chosen = [each for each in targets if each.name in (selection.targets or spec.targets)]
        own = {layer: each for layer, each in layers.items() if layer.spec == spec.name}
        asked = _contracts(own, selection)
        if selection.rivals:
            asked = _distinct(asked)
        gemms = {each for each in asked if isinstance(each, GemmContract)}
        for layer, layer_plans in own.items():
            if any(gemms.intersection(plan.contracts) for plan in layer_plans):
                bands = {
                    target.name: plan_bands(
                        layer,
                        layer_plans,
                        spec,
                        target,
                        loaded.targets,
                        known,
                        measured,
                        loaded.tunings,
                    )
                    for target in chosen
                    if has_gemms(target)
                }
                ranked[layer] = LayerEntry(layer, layer_plans, bands)
        for contract in asked:
            _one_meaning(owners, contract, spec)
            for target in chosen:
                key = (contract.name, target.name)
                if contract.operation in target.operations and key not in lowered:
                    sources = known.sources(contract)
                    tables = tuned(contract, target, loaded.tunings)
                    plan = lower(
                        spec, contract, target, sources, measured, selection.rivals, tables
                    )
                    if not selection.rivals:
                        plan = _restricted(plan, ranked, known)
                    if plan.kept:
                        lowered[key] = plan
    if not lowered:
        raise BuildError(_nothing(layers, targets, selection))
    used = {target for _, target in lowered}
    return Program(
        _whole(list(ranked.values()), {plan.contract for plan in lowered.values()}),
        tuple(lowered.values()),
        tuple(target for target in targets if target.name in used),
        loaded.targets,
        loaded.models,
        specs,
        measured,
        loaded.tunings,
    )


def has_gemms(target: Target) -> bool:
    """Whether a target has both GEMMs of a layer, hence plans to choose from."""
    return {"up", "down"} <= set(target.operations)


def plan_bands(
    layer: LayerContract,
    layer_plans: tuple[LayerPlan, ...],
    spec: Spec,
    target: Target,
    every_target: Sequence[Target],
    known: Users,
    measured: Measured,
    tunings: Sequence[Tuning],
) -> tuple[PlanBand, ...]:
    """When a target takes which plan of a layer; nothing where it lacks one of both GEMMs."""

    @cache
    def lowered(contract: Contract) -> Plan | None:
        for each in (target, *every_target):
            if contract.operation in each.operations:
                sources, tables = known.sources(contract), tuned(contract, each, tunings)
                return lower(spec, contract, each, sources, measured, tunings=tables)
        return None

    if not has_gemms(target):
        return ()
    return rank_plans(layer_plans, lowered, target, known.layer_source(layer))


def _distinct(contracts: Sequence[Contract]) -> list[Contract]:
    """Without GEMMs that move and multiply like one before, for what is timed of one holds for all,
    and without those of folded plans, whose kernels do more.
    """
    known: set[Contract] = set()
    distinct = []
    for each in contracts:
        if isinstance(each, GemmContract):
            if each.amax or each.requantizes or each.geometry in known:
                continue
            known.add(each.geometry)
        distinct.append(each)
    return distinct


def _restricted(plan: Plan, ranked: Mapping[LayerContract, LayerEntry], known: Users) -> Plan:
    """Without the designs of bands in which no layer takes a plan that uses the contract."""
    if not isinstance(plan.contract, GemmContract):
        return plan
    wanted = [
        band
        for layer, name in known.of(plan.contract)
        if layer in ranked
        for band in wanted_bands(ranked[layer].bands.get(plan.target.name, ()), name)
    ]
    return plan.within(wanted)


def _whole(layers: Sequence[LayerEntry], built: set[Contract]) -> tuple[LayerEntry, ...]:
    """The layers with those of their plans whose every contract is built."""
    whole = []
    for layer in layers:
        kept = tuple(each for each in layer.plans if set(each.contracts) <= built)
        names = {each.name for each in kept}
        bands = {
            target: tuple(each.among(names) for each in ranked)
            for target, ranked in layer.bands.items()
        }
        if kept:
            whole.append(LayerEntry(layer.contract, kept, bands))
    return tuple(whole)


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
    layers: Mapping[LayerContract, tuple[LayerPlan, ...]],
    targets: tuple[Target, ...],
    selection: Selection,
) -> Finding:
    """Why a selection is empty: no name fits, or no chosen target has the operation."""
    asked = " ".join(f"--contract {each}" for each in selection.contracts) or "the selection"
    operations = {contract.operation for contract in _contracts(layers, selection)}
    names = ", ".join(target.name for target in targets)
    if operations:
        what = f"{', '.join(sorted(operations))} is not emitted for {names}"
        return Finding(asked, what, "add `--target portable`")
    what = "matches no contract and no layer"
    return Finding(asked, what, LISTED)


def _layers(
    specs: tuple[Spec, ...], models: tuple[Model, ...], selection: Selection
) -> list[LayerContract]:
    """Layers of the models; with --all or patterns all of one group size; any that is named."""
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
    return list(dict.fromkeys(contracts))


def _contracts(
    layers: Mapping[LayerContract, tuple[LayerPlan, ...]], selection: Selection
) -> list[Contract]:
    """Contracts in first-use order; a pattern that names a layer takes all of its contracts."""
    chosen: dict[Contract, None] = {}
    for layer, layer_plans in layers.items():
        for plan in layer_plans:
            for contract in plan.contracts:
                if not selection.contracts or any(
                    fnmatch(name, pattern)
                    for pattern in selection.contracts
                    for name in (layer.name, contract.name)
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


def _one_spec(layers: list[LayerContract]) -> None:
    """A layer's name stands for one spec."""
    owners: dict[str, str] = {}
    shared: dict[tuple[str, str], list[str]] = {}
    for layer in layers:
        name, spec = layer.name, layer.spec
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
