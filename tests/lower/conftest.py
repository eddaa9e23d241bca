"""The shipped specs lowered once, and variants made to measure on a target of fixed figures."""

from __future__ import annotations

import pytest

from generator.data import folder
from generator.lower.contract import (
    Contract,
    LayerContract,
    LayerPlan,
    all_layers,
    layer_contract,
    model_layers,
    plans,
)
from generator.lower.program import Program, Selection, program
from generator.lower.variant import Design, Variant
from generator.spec.load import load
from generator.spec.model import Limits, ModelLayer

SHIPPED = load(folder("specs"))
SPECS = {spec.name: spec for spec in SHIPPED.specs}
SPEC = SPECS["w8a8"]
TARGETS = {target.name: target for target in SHIPPED.targets}
LIMITS = Limits(rows=2**20, k=2**14, n=2**16, experts=1024)
TARGET = TARGETS["portable"].model_copy(
    update={
        "name": "lab",
        "dots": ("int8",),
        "accept_multiples": "none",
        "keep": "per_band",
        "row_tile": "any",
        "shared_memory": 65536,
        "registers": 255,
        "operand_registers": 150,
        "shared_operands": "none",
    }
)


@pytest.fixture(scope="session")
def built() -> Program:
    """What `python -m generator build` lowers."""
    return program(SHIPPED, Selection())


def layer(up: int | str = "channel", down: int | str = "channel") -> LayerContract:
    """A layer of the shipped spec at the first value of every other axis."""
    return layer_contract(
        SPEC,
        ModelLayer(
            spec=SPEC.name,
            up=up,
            down=down,
            dtype=SPEC.activations.dtype[0],
            intermediate=SPEC.layer.intermediate[0],
            rounding=SPEC.activations.rounding[0],
            exp=SPEC.layer.exp[0],
        ),
    )


def contract(operation: str, group: int | str = "channel") -> Contract:
    """The contract of one operation in a layer whose GEMMs share a group."""
    (plan,) = plans(SPEC, layer(group, group))
    return next(each for each in plan.contracts if each.operation == operation)


def shipped_layers() -> list[LayerContract]:
    """Every layer contract that the shipped specs and models describe."""
    every = [*model_layers(SHIPPED.specs, SHIPPED.models)]
    every += [each for spec in SHIPPED.specs for each in all_layers(spec)]
    return list(dict.fromkeys(every))


def layer_plans(each: LayerContract) -> tuple[LayerPlan, ...]:
    """The plans of a shipped layer contract."""
    return plans(SPECS[each.spec], each)


def shipped_contracts() -> list[Contract]:
    """The contracts of all those layers, each once."""
    found = [
        contract
        for each in shipped_layers()
        for plan in layer_plans(each)
        for contract in plan.contracts
    ]
    return list(dict.fromkeys(found))


def gemm(
    operation: str = "down",
    group: int | str = "channel",
    *,
    m: int = 16,
    n: int = 64,
    k: int = 64,
    warps: int = 4,
    stages: int = 2,
    limits: dict[str, int] | None = None,
    **target: object,
) -> Variant:
    """A GEMM variant on the lab target, with some limits or target figures changed."""
    return Variant(
        contract(operation, group),
        Design(warps, stages, block_m=m, block_n=n, block_k=k, dot="int8"),
        TARGET.model_copy(update=target),
        LIMITS.model_copy(update=limits or {}),
    )
