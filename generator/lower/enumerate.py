"""Every design of an operation's space: the product of the axes that the spec lists, in its order,
and for GEMMs of those that the target lists.

Which programs of a GEMM follow one another no rule and no cost asks for, so it is no axis of the
space: the target's first order stands for all, what is timed comes in each of them, and what is
kept untimed in the usual one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

from generator.lower.design import Design
from generator.lower.warps import LINES, MULTIPLYING, WEIGHT_ROWS
from generator.spec.model import Frozen, GemmSpace, Spec, Target, UpSpace

TALL = 128  # rows of a tile from which programs go in blocks


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
    if not isinstance(listed, GemmSpace):
        return _product(tuple(axes(listed, target).items()), None)
    alike = _product(tuple(axes(listed, target).items()), target.orders[0])
    return alike + specialized(listed, target)


@cache
def _product(
    values: tuple[tuple[str, tuple[Any, ...]], ...], order: str | None
) -> tuple[Design, ...]:
    """Targets of the same axes share it."""
    names = [axis for axis, _ in values]
    every = product(*(own for _, own in values))
    return tuple(Design(**dict(zip(names, each, strict=True)), order=order) for each in every)


def in_usual_order(design: Design, target: Target) -> Design:
    """A GEMM's design with the order that is the fastest of most row tiles, of those that a target
    lists: short ones go along columns, tall ones in blocks, and those that go row tile after row
    tile took up to twice as long (one H100, 2026-11-26, 60 batches).
    """
    wanted = "columns" if (design.block_m or 0) < TALL else "blocks"
    return replace(design, order=wanted) if wanted in target.orders else design


@cache
def specialized(listed: GemmSpace, target: Target) -> tuple[Design, ...]:
    """Those whose warps have roles: rows and stages as the target has them, the rest is fixed."""
    space = target.specialized
    if space == "none" or "int8" not in listed.dot:
        return ()
    gated = isinstance(listed, UpSpace)
    unpacks = [each for each in listed.unpack if each in ("none", "ptx")]
    return tuple(
        Design(
            warps=MULTIPLYING,
            stages=stages,
            block_m=block_m,
            block_n=WEIGHT_ROWS // 2 if gated else WEIGHT_ROWS,
            block_k=line,
            dot="int8",
            unpack=unpack,
            tail=tail,
            offsets="int64",
            operands="weights_first",
            order=target.orders[0],
            gates="joined" if gated else None,
            roles=roles,
        )
        for roles, block_m, stages, unpack, line, tail in product(
            space.roles, space.block_m, space.stages, unpacks, LINES, listed.tail
        )
    )


def in_every_order(design: Design, target: Target) -> Iterator[Design]:
    """A GEMM's design with each order of programs that a target lists."""
    for order in target.orders:
        yield replace(design, order=order)
