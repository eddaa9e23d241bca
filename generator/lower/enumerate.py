"""Every design of an operation's space: the product of the axes that the spec lists, in its order,
and for GEMMs of those that the target lists.
"""

from __future__ import annotations

from collections.abc import Iterator
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
        values |= {"operands": target.operands, "order": target.orders}
    return values


@cache
def designs(listed: Frozen, target: Target) -> tuple[Design, ...]:
    """The product of all axes, first axis slowest."""
    return tuple(_product(axes(listed, target)))


def _product(values: dict[str, tuple[Any, ...]]) -> Iterator[Design]:
    for each in product(*values.values()):
        yield Design(**dict(zip(values, each, strict=True)))
