"""The test matrix, read off the specs: a new group size or axis value brings its own tests."""

from __future__ import annotations

from functools import cache

from generator.data import folder
from generator.lower.contract import all_layers
from generator.spec.load import load


@cache
def layer_names() -> list[str]:
    """Every group size at the first value of all other axes, and every other axis per channel."""
    channels = [
        layer.name
        for spec in load(folder("specs")).specs
        for layer in all_layers(spec)
        if layer.up_group is None
    ]
    return list(dict.fromkeys(group_layers() + channels))


@cache
def channel_layers() -> list[str]:
    """Per-channel layers whose exp is exact and whose intermediate is fp32: nothing hides a bit."""
    return [
        layer.name
        for spec in load(folder("specs")).specs
        for layer in all_layers(spec)
        if layer.up_group is None
        and (layer.intermediate, layer.rounding, layer.exp) == ("fp32", "half_even", "exact")
    ]


@cache
def group_layers() -> list[str]:
    """One layer per group size, all other axes at their first value."""
    names = []
    for spec in load(folder("specs")).specs:
        groups: dict[int | None, str] = {}
        for layer in all_layers(spec):
            groups.setdefault(layer.up_group, layer.name)
        names += groups.values()
    return names
