"""Every design of an operation's space, in the order the spec lists its axes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any

from generator.lower.variant import Design
from generator.spec.model import Frozen, Spec


def space(spec: Spec, operation: str) -> Frozen:
    """The axes that a spec lists for an operation."""
    listed: Frozen = getattr(spec.designs, operation)
    return listed


def axes(listed: Frozen) -> dict[str, tuple[Any, ...]]:
    """The values of each axis of a space, by name."""
    return {axis: getattr(listed, axis) for axis in type(listed).model_fields}


@cache
def designs(listed: Frozen) -> tuple[Design, ...]:
    """The product of all axes, first axis slowest."""
    return tuple(_product(axes(listed)))


def _product(values: dict[str, tuple[Any, ...]]) -> Iterator[Design]:
    for each in product(*values.values()):
        yield Design(**dict(zip(values, each, strict=True)))
