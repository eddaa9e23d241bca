"""Every design of an operation's space, in the order the spec lists its axes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from generator.lower.variant import Design
from generator.spec.model import Spec


def designs(spec: Spec, operation: str) -> Iterator[Design]:
    """The product of all axes, first axis slowest."""
    space = getattr(spec.designs, operation)
    axes = list(type(space).model_fields)
    for values in product(*(getattr(space, axis) for axis in axes)):
        yield Design(**dict(zip(axes, values, strict=True)))
