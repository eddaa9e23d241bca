"""The layers, contracts and variants of a build: filtered, sorted, as text or plain data. Behind
`python -m generator list`.

Nothing is decided or printed here; `dataclasses.asdict` of what stands here is its JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from generator.errors import BuildError, Finding
from generator.lower.measured import Compiled, Measured
from generator.lower.program import Program
from generator.lower.variant import Variant
from generator.spec.model import OperationName

KINDS = ("layers", "contracts", "variants")


@dataclass(frozen=True, slots=True)
class ListedLayer:
    """A layer of a build."""

    name: str
    spec: str
    plans: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ListedContract:
    """A contract of a build."""

    name: str
    operation: str
    targets: tuple[str, ...]
    variants: int
    shared_bytes: int  # the most that one of its variants takes, and registers likewise
    registers: int


@dataclass(frozen=True, slots=True)
class ListedVariant:
    """An emitted module."""

    name: str  # of its contract
    operation: str
    target: str
    design: str
    path: str
    shared_bytes: int
    registers: int  # of one thread, as foretold
    requires: tuple[str, ...]
    compiled: tuple[Compiled, ...]  # what compilers made of it, as far as it is on record


@dataclass(frozen=True, slots=True)
class Listing:
    """What was asked for; a kind that was not is empty."""

    layers: tuple[ListedLayer, ...]
    contracts: tuple[ListedContract, ...]
    variants: tuple[ListedVariant, ...]


SORTS = ("name", "target", "operation", "shared", "registers")


def listing(
    built: Program,
    *,
    operations: Sequence[str] = (),
    kind: str | None = None,
    sort: str | None = None,
) -> Listing:
    """The listed things of a build, in its own order where `sort` is None.

    Without a kind: layers and variants, or variants alone where operations are named, for a layer
    has all of them. Raises BuildError for operations that there are not, or not in the build.
    """
    _refuse_unknown(built, operations, kind)
    kinds = (kind,) if kind else ("variants",) if operations else ("layers", "variants")
    variants = [
        _variant(variant, built.measured)
        for plan in built.plans
        for variant in plan.kept
        if not operations or plan.contract.operation in operations
    ]
    layers = [
        ListedLayer(each.contract.name, each.contract.spec, tuple(p.name for p in each.plans))
        for each in built.layers
    ]
    contracts = list(_contracts(variants))
    if sort:
        layers.sort(key=lambda each: each.name)
        contracts.sort(key=lambda each: (_key(each, sort), each.name))
        variants.sort(key=lambda each: (_key(each, sort), each.name, each.target, each.design))
    return Listing(
        tuple(layers) if "layers" in kinds else (),
        tuple(contracts) if "contracts" in kinds else (),
        tuple(variants) if "variants" in kinds else (),
    )


def _refuse_unknown(built: Program, operations: Sequence[str], kind: str | None) -> None:
    every = get_args(OperationName)
    there = {plan.contract.operation for plan in built.plans}
    targets = ", ".join(target.name for target in built.targets)
    findings = []
    for name in operations:
        if name not in every:
            fix = f"use one of {', '.join(every)}"
            findings.append(Finding(f"--operation {name}", "no such operation", fix))
        elif name not in there:
            what = f"none of what is selected for {targets}"
            fix = f"these have {', '.join(each for each in every if each in there)}"
            findings.append(Finding(f"--operation {name}", what, fix))
    if operations and kind == "layers":
        what = "a layer has all operations"
        findings.append(Finding("--kind layers --operation", what, "leave one of them out"))
    if findings:
        raise BuildError(findings)


def _variant(variant: Variant, measured: Measured) -> ListedVariant:
    return ListedVariant(
        name=variant.contract.name,
        operation=variant.contract.operation,
        target=variant.target.name,
        design=variant.design.name,
        path=variant.path,
        shared_bytes=variant.shared_bytes,
        registers=variant.registers.needed if variant.registers else 0,
        requires=tuple(str(each) for each in variant.requires),
        compiled=measured.of(variant.symbol),
    )


def _contracts(variants: Sequence[ListedVariant]) -> Iterator[ListedContract]:
    own: dict[str, list[ListedVariant]] = {}
    for each in variants:
        own.setdefault(each.name, []).append(each)
    for name, emitted in own.items():
        yield ListedContract(
            name=name,
            operation=emitted[0].operation,
            targets=tuple(dict.fromkeys(each.target for each in emitted)),
            variants=len(emitted),
            shared_bytes=max(each.shared_bytes for each in emitted),
            registers=max(each.registers for each in emitted),
        )


def _key(each: ListedContract | ListedVariant, sort: str) -> str | int | tuple[str, ...]:
    if sort == "target":
        return each.target if isinstance(each, ListedVariant) else each.targets
    key: str | int = getattr(each, {"shared": "shared_bytes"}.get(sort, sort))
    return key


def listed_lines(listed: Listing, sort: str | None = None) -> Iterator[str]:
    """One line for each, with the number that a sort by figures compares."""
    for layer in listed.layers:
        yield layer.name
    for contract in listed.contracts:
        targets = ", ".join(contract.targets)
        yield (
            f"{contract.name:40} {contract.operation:10} {contract.variants:3} variants"
            f" {_figure(contract, sort)}{targets}"
        )
    for variant in listed.variants:
        requires = ", ".join(variant.requires)
        yield (
            f"{variant.name:40} {variant.target:9} {variant.design:22}"
            f" {_figure(variant, sort)}{_compiled(variant)}{requires}"
        )


def _compiled(variant: ListedVariant) -> str:
    """The most that any compiler on record made a variant take."""
    if not variant.compiled:
        return "not compiled; "
    figures = [each.figures for each in variant.compiled]
    registers = max(each.registers + each.accumulators for each in figures)
    shared, stack = max(each.shared for each in figures), max(each.stack for each in figures)
    spilled = f", {stack} of stack" if stack else ""
    return f"{registers} registers, {shared} bytes shared{spilled}; "


def _figure(each: ListedContract | ListedVariant, sort: str | None) -> str:
    unit = {"shared": "bytes shared", "registers": "registers"}.get(sort or "")
    return f"{_key(each, sort or ''):6} {unit} " if unit else ""
