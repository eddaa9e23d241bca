"""Every design of an operation's space: the product of the axes that the spec lists, in its order,
and for GEMMs of those that the target lists.

Which programs of a GEMM follow one another no rule and no cost asks for, so it is no axis of the
space: the target's first order stands for all, and what is timed comes in each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

from generator.lower.variant import Design
from generator.spec.model import Frozen, GemmSpace, Spec, Target, UpSpace


def space(spec: Spec, operation: str) -> Frozen:
    """The axes that a spec lists for an operation."""
    listed: Frozen = getattr(spec.designs, operation)
    return listed


def axes(listed: Frozen, target: Target) -> dict[str, tuple[Any, ...]]:
    """The values of each axis of a space on a target, by name."""
    values = {axis: getattr(listed, axis) for axis in type(listed).model_fields}
    if isinstance(listed, UpSpace):
        values |= {"gates": target.gates}
    if isinstance(listed, GemmSpace):
        values |= {"operands": target.operands}
    return values


def designs(listed: Frozen, target: Target) -> tuple[Design, ...]:
    """The product of all axes, first axis slowest."""
    order = target.orders[0] if isinstance(listed, GemmSpace) else None
    return _product(tuple(axes(listed, target).items()), order)


@cache
def _product(
    values: tuple[tuple[str, tuple[Any, ...]], ...], order: str | None
) -> tuple[Design, ...]:
    """Targets of the same axes share it."""
    names = [axis for axis, _ in values]
    every = product(*(own for _, own in values))
    return tuple(Design(**dict(zip(names, each, strict=True)), order=order) for each in every)


def in_every_order(design: Design, target: Target) -> Iterator[Design]:
    """A GEMM's design with each order of programs that a target lists."""
    for order in target.orders:
        yield replace(design, order=order)
