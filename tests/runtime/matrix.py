"""The test matrix, read off the specs: a new group size or axis value brings its own tests."""

from __future__ import annotations

from functools import cache

from generator.data import folder
from generator.lower.layer_contract import LayerContract, all_layers
from generator.spec.load import load


@cache
def layer_names() -> list[str]:
    """Every group size at the first value of all other axes, and every other axis per channel."""
    return list(dict.fromkeys(group_layers() + axis_layers()))


@cache
def axis_layers() -> list[str]:
    """Every value of every other axis, per channel: int8 weights take all combinations. Kernels of
    int4 weights differ from them along K alone, so each of their values comes up once.
    """
    names = []
    for spec in load(folder("specs")).specs:
        seen: set[tuple[str, str]] = set()
        for layer in all_layers(spec):
            values = {(key, str(value)) for key, value in _axes(layer).items()}
            if layer.up_group is None and (spec.weights.format == "int8" or values - seen):
                seen |= values
                names.append(layer.name)
    return names


def _axes(layer: LayerContract) -> dict[str, str]:
    """What the kernels around the dots depend on: the pair of types is one value."""
    return {
        "types": f"{layer.dtype} {layer.intermediate}",
        "rounding": layer.rounding,
        "exp": layer.exp,
    }


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
