"""The designs by which the rules of resources are calibrated: what every other rule accepts.

A compiled design says how many registers and how much shared memory it takes; the rules foretell
it. Behind `build --resources`, whose modules `compile` measures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from generator.lower.bands import ANY
from generator.lower.contract import GemmContract
from generator.lower.enumerate import designs, space
from generator.lower.plan import Plan, RankedBand
from generator.lower.program import Program
from generator.lower.prune import DESIGN_RULES, VARIANT_RULES
from generator.lower.variant import Variant
from generator.spec.model import Spec, Target

RESOURCE_RULES = ("accumulator_registers", "shared_memory")


def candidates(spec: Spec, contract: GemmContract, target: Target) -> Iterator[Variant]:
    """Every design of a GEMM that no rule rejects but those of resources, in their order."""
    others = [rule for rule in VARIANT_RULES if rule.name not in RESOURCE_RULES]
    for design in designs(space(spec, contract.operation)):
        if any(rule.of_design and rule.of_design(design, target) for rule in DESIGN_RULES):
            continue
        variant = Variant(contract, design, target, spec.limits)
        if not any(rule.violation(variant) for rule in others):
            yield variant


def with_candidates(built: Program) -> Program:
    """The program with every candidate of its GEMMs kept, best first by nothing but their order."""
    specs = {spec.name: spec for spec in built.specs}
    owners = {
        contract: specs[layer.contract.spec]
        for layer in built.layers
        for plan in layer.plans
        for contract in plan.contracts
    }
    return replace(built, plans=tuple(_widened(plan, owners) for plan in built.plans))


def _widened(plan: Plan, owners: dict) -> Plan:
    contract = plan.contract
    if not isinstance(contract, GemmContract) or contract not in owners:
        return plan
    kept = tuple(candidates(owners[contract], contract, plan.target))
    return replace(plan, kept=kept, bands=(RankedBand(ANY, tuple(v.design for v in kept)),))
