"""The designs by which the rules of resources are calibrated: what every other rule accepts.

A compiled design says how many registers and how much shared memory it takes; the rules foretell
it. Behind `build --candidates`, whose modules `compile --calibrate` measures.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace

from generator.lower.bands import ANY
from generator.lower.contract import Contract, GemmContract
from generator.lower.enumerate import designs, space
from generator.lower.plan import Plan
from generator.lower.program import Program
from generator.lower.prune import DESIGN_RULES, VARIANT_RULES
from generator.lower.rank import RankedBand
from generator.lower.tuned import UNTUNED
from generator.lower.variant import Variant
from generator.spec.model import Spec, Target

FORETELLING_RULES = ("accumulator_registers", "shared_memory")


def candidates(spec: Spec, contract: GemmContract, target: Target) -> Iterator[Variant]:
    """Every design of a GEMM that no rule rejects but those that foretell, in their order."""
    others = [rule for rule in VARIANT_RULES if rule.name not in FORETELLING_RULES]
    for design in designs(space(spec, contract.operation), target):
        if any(rule.of_design and rule.of_design(design, target) for rule in DESIGN_RULES):
            continue
        variant = Variant(contract, design, target, spec.limits)
        if not any(rule.violation(variant) for rule in others):
            yield variant


def with_candidates(built: Program, most: int) -> Program:
    """The program with up to `most` candidates of each of its GEMMs in place of the kept designs,
    drawn alike every time. They are in no order of preference.
    """
    specs = {spec.name: spec for spec in built.specs}
    owners = {
        contract: specs[layer.contract.spec]
        for layer in built.layers
        for plan in layer.plans
        for contract in plan.contracts
    }
    return replace(built, plans=tuple(_drawn(plan, owners, most) for plan in built.plans))


def _drawn(plan: Plan, owners: Mapping[Contract, Spec], most: int) -> Plan:
    contract = plan.contract
    if not isinstance(contract, GemmContract) or contract not in owners:
        return plan
    every = list(candidates(owners[contract], contract, plan.target))
    # Seeded by name, so that a draw of more holds a draw of fewer.
    random.Random(f"{contract.name} {plan.target.name}").shuffle(every)
    kept = tuple(every[:most])
    bands = (RankedBand(ANY, tuple(variant.design for variant in kept)),)
    return replace(plan, kept=kept, bands=bands, tuned=UNTUNED)
