"""The shipped specs lowered once, and variants made to measure on a target of fixed figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from generator.data import folder
from generator.lower.contract import Contract
from generator.lower.design import Design
from generator.lower.layer_contract import (
    LayerContract,
    LayerPlan,
    all_layers,
    layer_contract,
    model_layers,
    plans,
)
from generator.lower.measured import Measured
from generator.lower.program import Program, Selection, program
from generator.lower.variant import Variant
from generator.resources import Calibration, Figures, Record, Taken
from generator.spec.load import load
from generator.spec.model import Limits, MatrixUnit, ModelLayer, Target

SHIPPED = load(folder("specs"))
MEASURED = Measured(SHIPPED.resources, SHIPPED.calibrations)
SPECS = {spec.name: spec for spec in SHIPPED.specs}
SPEC = SPECS["w8a8"]
TARGETS = {target.name: target for target in SHIPPED.targets}
LIMITS = Limits(rows=2**20, k=2**14, n=2**16, experts=1024)
TARGET = TARGETS["portable"].model_copy(
    update={
        "name": "lab",
        "dots": ("int8",),
        "unpacks": ("none", "value", "shift", "ptx"),
        "accept_multiples": "none",
        "row_tiles": (16, 32, 64, 128),
        "shared_memory": 65536,
        "registers": 255,
        "matrix": (MatrixUnit(name="mma", block_m=1),),
    }
)
WGMMA = (*TARGET.matrix, MatrixUnit(name="wgmma", block_m=64))
MFMA = (MatrixUnit(name="mfma", block_m=1),)


@pytest.fixture(scope="session")
def built() -> Program:
    """What `python -m generator build` lowers."""
    return program(SHIPPED, Selection())


@pytest.fixture(scope="session")
def everywhere() -> Program:
    """The layers that a build lowers, on every shipped target."""
    return program(SHIPPED, Selection(targets=tuple(TARGETS)))


def layer(
    up: int | str = "channel", down: int | str = "channel", *, spec: str = "w8a8"
) -> LayerContract:
    """A layer of a shipped spec at the first value of every other axis."""
    language = SPECS[spec]
    return layer_contract(
        language,
        ModelLayer(
            spec=spec,
            up=up,
            down=down,
            dtype=language.activations.dtype[0],
            intermediate=language.layer.intermediate[0],
            rounding=language.activations.rounding[0],
            exp=language.layer.exp[0],
        ),
    )


def contract(
    operation: str,
    group: int | str = "channel",
    *,
    spec: str = "w8a8",
    plan: str = "separate",
) -> Contract:
    """The contract of one operation, in one plan of a layer whose GEMMs share a group."""
    chosen = layer_plan(layer(group, group, spec=spec), plan)
    return next(each for each in chosen.contracts if each.operation == operation)


def layer_plan(each: LayerContract, name: str) -> LayerPlan:
    """One plan of a shipped layer contract."""
    return next(plan for plan in layer_plans(each) if plan.name == name)


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
    spec: str = "w8a8",
    plan: str = "separate",
    m: int = 16,
    n: int = 64,
    k: int = 64,
    warps: int = 4,
    stages: int = 2,
    dot: str = "int8",
    unpack: str | None = None,
    tail: str = "none",
    offsets: str = "int32",
    operands: str = "rows_first",
    gates: str | None = None,
    roles: str | None = None,
    limits: dict[str, int] | None = None,
    **target: object,
) -> Variant:
    """A GEMM variant on the lab target, with some limits or target figures changed. Nibbles are
    unpacked by shifts where nothing else is said.
    """
    usual = "shift" if spec == "w4a8" else "none"
    return Variant(
        contract(operation, group, spec=spec, plan=plan),
        Design(
            warps,
            stages,
            block_m=m,
            block_n=n,
            block_k=k,
            dot=dot,
            unpack=unpack or usual,
            tail=tail,
            offsets=offsets,
            operands=operands,
            gates=gates,
            roles=roles,
        ),
        changed(TARGET, **target),
        LIMITS.model_copy(update=limits or {}),
    )


def figures(*, stack: int = 0, **others: Any) -> Figures:
    """What a compiled variant takes."""
    usual: dict[str, Any] = {
        "registers": 128,
        "accumulators": 0,
        "scalars": 0,
        "shared": 16384,
        "code": 4096,
        "matrix": {"mma m16n8k32 s32 s8 s8 s32": 4},
        "loads": {"16": 2},
        "copies": {"16": 8},
        "unset": 0,
    }
    return Figures(stack=stack, **(usual | others))


def recorded(stacks: Mapping[Variant, int], *, figure: str = "stack") -> Measured:
    """One record of variants with these bytes of stack, or so much of another figure."""
    variants = {each.symbol: figures(**{figure: value}) for each, value in stacks.items()}
    return Measured(records=(Record("sm_0", "3.9.0", variants),))


def calibrated(stacks: Mapping[Variant, int]) -> Measured:
    """One calibration by variants with these bytes of stack."""
    designs: dict[str, dict[str, Taken]] = {}
    for each, stack in stacks.items():
        own = designs.setdefault(each.contract.name, {})
        own[f"{each.target.name}/{each.design.name}"] = Taken(128, stack, 16384)
    return Measured(calibrations=(Calibration("sm_1", "3.6.0", designs),))


def changed(target: Target, **figures: object) -> Target:
    """A target with other figures; no other names, which would be set in silence."""
    assert set(figures) <= set(Target.model_fields)
    return target.model_copy(update=figures)
