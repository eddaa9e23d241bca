"""Shapes that reach every part of a walk along K. GPU machines read it too, so: no spec."""

from __future__ import annotations

from generator.packing import K_UNIT, padded
from generator.runtime.manifest import Layer
from generator.verify.cases import Shape


def ragged(group_k: int | None, whole: int) -> int:
    """`whole` groups and a short one, an odd number of K_UNITs long where the group leaves room.

    Without groups: `whole` blocks of 256, and what is left of one.
    """
    group = group_k or 256
    units = (group // (2 * K_UNIT)) | 1
    return padded(whole * group + (units * K_UNIT if units * K_UNIT < group else 0))


def tail_shape(layer: Layer, *, tokens: int = 7) -> Shape:
    """H and I that no group divides, with idle and remote experts.

    Three groups below 256 are a pair in two planes, one alone, and then the short one.
    """
    hidden, intermediate = (
        ragged(group, most if (group or 256) < 256 else 1)
        for group, most in ((layer.up_group, 3), (layer.down_group, 2))
    )
    return Shape(3, 5, 2, hidden, intermediate, tokens)
