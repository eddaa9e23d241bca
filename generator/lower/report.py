"""What lowering decided and why, as the facts of facts.py: of a spec, an operation contract or a
layer contract. Behind `python -m generator explain`; nothing is decided or printed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from itertools import chain
from typing import get_args

from generator.errors import BuildError, Finding
from generator.lower.bands import Band
from generator.lower.choice import Problem, choice
from generator.lower.contract import (
    Contract,
    GemmContract,
    contract_digest,
)
from generator.lower.enumerate import axes, designs, space
from generator.lower.facts import (
    BandFacts,
    BuiltFacts,
    ContractReport,
    KeptFacts,
    LayerReport,
    LayerTargetFacts,
    PlanBandFacts,
    PlanFacts,
    ProofFacts,
    Report,
    RuleFacts,
    SpaceFacts,
    SpecReport,
    TakenFacts,
    TargetFacts,
    TotalFacts,
)
from generator.lower.layer import PlanBand, wanted_bands
from generator.lower.layer_contract import (
    LayerContract,
    all_layers,
    model_layers,
    plans,
)
from generator.lower.measured import Measured
from generator.lower.plan import Plan, lower
from generator.lower.program import LISTED, Program, Selection, has_gemms, plan_bands, program
from generator.lower.prune import RULES
from generator.lower.rule import Rejection
from generator.lower.shapes import Users, users
from generator.lower.tuned import tuned
from generator.lower.variant import Variant
from generator.spec.model import OperationName, Spec, SpecSet, Target

AxisValues = tuple[tuple[str, tuple[object, ...]], ...]


@dataclass(frozen=True)
class Catalogue:
    """Everything that a folder of specs describes, by name."""

    loaded: SpecSet

    @cached_property
    def specs(self) -> dict[str, Spec]:
        return {spec.name: spec for spec in self.loaded.specs}

    @cached_property
    def targets(self) -> dict[str, Target]:
        return {target.name: target for target in self.loaded.targets}

    @cached_property
    def usual(self) -> tuple[LayerContract, ...]:
        """Layers of the models, and all whose GEMMs share a group size."""
        every = (layer for spec in self.loaded.specs for layer in all_layers(spec))
        models = model_layers(self.loaded.specs, self.loaded.models)
        return tuple(dict.fromkeys(chain(models, every)))

    @cached_property
    def layers(self) -> dict[str, LayerContract]:
        mixed = (layer for spec in self.loaded.specs for layer in all_layers(spec, mixed=True))
        return {layer.name: layer for layer in chain(mixed, self.usual)}

    @cached_property
    def measured(self) -> Measured:
        return Measured(self.loaded.resources, self.loaded.calibrations)

    @cached_property
    def known(self) -> Users:
        return users(
            self.loaded, [(layer, plans(self.specs[layer.spec], layer)) for layer in self.usual]
        )

    @cached_property
    def contracts(self) -> dict[str, Contract]:
        return {contract.name: contract for contract in self.known.by_contract}

    def owners(self, contract: Contract) -> tuple[Spec, ...]:
        """The specs that describe a contract, in file order; the first one's designs count."""
        names = {layer.spec for layer, _ in self.known.of(contract)}
        return tuple(spec for spec in self.loaded.specs if spec.name in names)

    def chosen(self, names: Sequence[str], default: Iterable[str]) -> list[Target]:
        """The named targets, in file order. Raises BuildError for names that there are not."""
        unknown = [name for name in names if name not in self.targets]
        if unknown:
            fix = f"use one of {', '.join(self.targets)}"
            raise BuildError([Finding(f"--target {n}", "no such target", fix) for n in unknown])
        wanted = set(names or default)
        return [target for target in self.loaded.targets if target.name in wanted]

    def plan_bands(self, layer: LayerContract, target: Target) -> tuple[PlanBand, ...]:
        """When a target takes which plan of a layer; nothing where it lacks one of both GEMMs."""
        spec = self.specs[layer.spec]
        return plan_bands(
            layer,
            plans(spec, layer),
            spec,
            target,
            self.loaded.targets,
            self.known,
            self.measured,
            self.loaded.tunings,
        )

    def used_bands(self, contract: Contract, target: Target) -> list[Band]:
        """The bands in which some layer takes a plan with a GEMM contract."""
        return [
            band
            for layer, plan in self.known.of(contract)
            for band in wanted_bands(self.plan_bands(layer, target), plan)
        ]


def explain(
    loaded: SpecSet, name: str, asked: Problem | None = None, targets: Sequence[str] = ()
) -> Report:
    """The facts of a spec, a contract or a layer. Raises BuildError for a name that there is not,
    and where no design is legal.
    """
    catalogue = Catalogue(loaded)
    if name in catalogue.contracts:
        return _contract_report(catalogue, catalogue.contracts[name], asked, targets)
    if name not in catalogue.specs and name not in catalogue.layers:
        raise BuildError(_unknown(name, catalogue))
    if name in catalogue.specs:
        return _spec_report(catalogue, catalogue.specs[name], asked, targets)
    layer = catalogue.layers[name]
    if asked is not None:
        every = (each for plan in plans(catalogue.specs[layer.spec], layer) for each in plan.rows)
        gemms = dict.fromkeys(each.name for each in every if isinstance(each, GemmContract))
        what = f"{name} is a layer, no single operation"
        raise BuildError(Finding("--problem", what, f"name one of {', '.join(gemms)}"))
    return _layer_report(catalogue, layer, targets)


def _unknown(name: str, catalogue: Catalogue) -> Finding:
    names = [*catalogue.specs, *catalogue.contracts, *catalogue.layers]
    close = get_close_matches(name, names, n=3)
    what = "names no spec, no contract and no layer"
    if close:
        what += f" (nearest: {', '.join(close)})"
    return Finding(f"explain {name}", what, LISTED)


def _spec_report(
    catalogue: Catalogue, spec: Spec, asked: Problem | None, names: Sequence[str]
) -> SpecReport:
    targets = tuple(each.name for each in catalogue.chosen(names, spec.targets))
    built = program(catalogue.loaded, Selection(specs=(spec.name,), targets=targets))
    own = [layer for layer in catalogue.usual if layer.spec == spec.name]
    served = model_layers((spec,), catalogue.loaded.models)
    return SpecReport(
        kind="spec",
        name=spec.name,
        layers=sum(1 for _ in all_layers(spec)),
        mixed_layers=sum(1 for _ in all_layers(spec, mixed=True)),
        contracts=len({c for layer in own for p in plans(spec, layer) for c in p.contracts}),
        model_layers=tuple(layer.name for layer in served),
        model_contracts=len({plan.contract for plan in built.plans}),
        spaces=tuple(
            each
            for operation in get_args(OperationName)
            for each in _spaces(spec, operation, built.targets)
        ),
        problem=asked.sizes() if asked else None,
        targets=tuple(_totals(target, built, catalogue, asked) for target in built.targets),
    )


def _totals(
    target: Target, built: Program, catalogue: Catalogue, asked: Problem | None
) -> TotalFacts:
    own = [plan for plan in built.plans if plan.target == target]
    return TotalFacts(
        target=target.name,
        contracts=len(own),
        enumerated=sum(plan.enumerated for plan in own),
        legal=sum(plan.legal for plan in own),
        kept=sum(len(plan.kept) for plan in own),
        rejected=_rules(
            (f"{plan.contract.name} ", each) for plan in own for each in plan.rejections
        ),
        built=tuple(_built(plan, catalogue, asked) for plan in own),
    )


def _built(plan: Plan, catalogue: Catalogue, asked: Problem | None) -> BuiltFacts:
    contract, found = plan.contract, None
    if asked is not None and isinstance(contract, GemmContract):
        tiles = {band.block_m for band in catalogue.used_bands(contract, plan.target)}
        found = choice(plan, catalogue.owners(contract)[0], asked, tiles)
    kept = tuple(each.design.name for each in plan.kept)
    return BuiltFacts(contract.name, _proofs(plan.kept), kept, found)


def _spaces(spec: Spec, operation: str, targets: Iterable[Target]) -> tuple[SpaceFacts, ...]:
    """Those of the targets that have the operation, each with the targets that share it."""
    listed, sharing = space(spec, operation), dict[AxisValues, list[Target]]()
    for target in targets:
        if operation in target.operations:
            sharing.setdefault(tuple(axes(listed, target).items()), []).append(target)
    return tuple(
        SpaceFacts(
            operation=operation,
            targets=tuple(each.name for each in own),
            axes=dict(values),
            designs=len(designs(listed, own[0])),
        )
        for values, own in sharing.items()
    )


def _rules(rejections: Iterable[tuple[str, Rejection]]) -> tuple[RuleFacts, ...]:
    """The rules that fired, in the order in which they judge; each rejection with what stands
    before its design's name.
    """
    first: dict[str, tuple[str, Rejection]] = {}
    counts: dict[str, int] = {}
    for before, each in rejections:
        first.setdefault(each.rule.name, (before, each))
        counts[each.rule.name] = counts.get(each.rule.name, 0) + 1
    found = []
    for rule in RULES:
        if rule.name in first:
            before, each = first[rule.name]
            example = f"{before}{each.design.name}"
            found.append(RuleFacts(rule.name, rule.why, counts[rule.name], example, each.what))
    return tuple(found)


def _layer_report(catalogue: Catalogue, layer: LayerContract, names: Sequence[str]) -> LayerReport:
    spec = catalogue.specs[layer.spec]
    targets = catalogue.chosen(names, spec.targets)
    lacking = [each.name for each in targets if not has_gemms(each)]
    if lacking and names:
        what = f"{', '.join(lacking)} lacks one of a layer's GEMMs, up and down"
        raise BuildError(Finding(layer.name, what, "name another target"))
    return LayerReport(
        kind="layer",
        name=layer.name,
        spec=spec.name,
        axes=layer.axes(),
        values=layer.values(),
        plans=tuple(
            PlanFacts(each.name, _names(each.tokens), _names(each.rows))
            for each in plans(spec, layer)
        ),
        targets=tuple(
            LayerTargetFacts(
                target.name,
                tuple(_plan_band(each) for each in catalogue.plan_bands(layer, target)),
            )
            for target in targets
            if target.name not in lacking
        ),
    )


def _names(contracts: Iterable[Contract]) -> tuple[str, ...]:
    return tuple(each.name for each in contracts)


def _plan_band(ranked: PlanBand) -> PlanBandFacts:
    taken = (TakenFacts(c.plan, tuple(str(each) for each in c.requires)) for c in ranked.choices)
    return PlanBandFacts(ranked.band.low, ranked.band.high, tuple(taken))


def _contract_report(
    catalogue: Catalogue, contract: Contract, asked: Problem | None, names: Sequence[str]
) -> ContractReport:
    owners = catalogue.owners(contract)
    spec, operation = owners[0], contract.operation
    targets = catalogue.chosen(names, [name for each in owners for name in each.targets])
    lacking = [each.name for each in targets if operation not in each.operations]
    if lacking and (names or len(lacking) == len(targets)):
        having = [each.name for each in catalogue.loaded.targets if operation in each.operations]
        what = f"{operation} is not emitted for {', '.join(lacking)}"
        fix = f"use --target {' or '.join(having)}"
        raise BuildError(Finding(f"explain {contract.name}", what, fix))
    sources = catalogue.known.sources(contract)
    reports = []
    for target in targets:
        if target.name not in lacking:
            tables = tuned(contract, target, catalogue.loaded.tunings)
            plan = lower(spec, contract, target, sources, catalogue.measured, tunings=tables)
            tiles = {each.band.block_m for each in plan.bands}
            if isinstance(contract, GemmContract):
                used = catalogue.used_bands(contract, target)
                plan, tiles = plan.within(used), {band.block_m for band in used}
            reports.append(_target_facts(plan, spec, tiles, asked, catalogue.measured))
    return ContractReport(
        kind="contract",
        name=contract.name,
        specs=tuple(each.name for each in owners),
        digest=contract_digest(contract),
        axes=contract.axes(),
        spaces=_spaces(spec, operation, targets),
        ranked_for=tuple(each.sizes for each in sources),
        problem=asked.sizes() if asked else None,
        targets=tuple(reports),
    )


def _target_facts(
    plan: Plan, spec: Spec, tiles: set[int | None], asked: Problem | None, measured: Measured
) -> TargetFacts:
    """`tiles`: the row tiles of bands in which a layer uses the contract."""
    return TargetFacts(
        target=plan.target.name,
        enumerated=plan.enumerated,
        legal=plan.legal,
        rejected=_rules(("", each) for each in plan.rejections),
        proofs=_proofs(plan.kept),
        kept=tuple(
            KeptFacts(
                design=each.design.name,
                requires=tuple(str(condition) for condition in each.requires),
                shared_bytes=each.shared_bytes,
                held_registers=each.registers.held if each.registers else 0,
                beside_registers=each.registers.beside if each.registers else 0,
                registers=each.registers.limit if each.registers else plan.target.registers,
                compiled=measured.of(each.symbol),
            )
            for each in plan.kept
        ),
        bands=tuple(
            BandFacts(
                low=each.band.low,
                high=each.band.high,
                block_m=each.band.block_m,
                used=each.band.block_m in tiles,
                designs=tuple(design.name for design in each.designs),
            )
            for each in plan.bands
        ),
        choice=choice(plan, spec, asked, tiles) if asked else None,
    )


def _proofs(kept: Sequence[Variant]) -> tuple[ProofFacts, ...]:
    sharing: dict[tuple[str, str | None], list[str]] = {}
    for variant in kept:
        if variant.proof is not None:
            key = (str(variant.proof), _cut(variant))
            sharing.setdefault(key, []).append(variant.design.name)
    return tuple(ProofFacts(*key, tuple(names)) for key, names in sharing.items())


def _cut(variant: Variant) -> str | None:
    turns, proof = variant.chunk_turns, variant.proof
    if turns is None or proof is None:
        return None
    assert variant.gemm is not None
    step = variant.walk.unit_k if variant.gemm.group_k is None else variant.walk.turn_k
    return (
        f"fp32 is rounded to int32 every {turns * step} K"
        f" ({turns} turns of {step}, at most {proof.chunk})"
    )
