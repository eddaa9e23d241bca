"""Which layers, shapes and batches to run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from fnmatch import fnmatch
from math import lcm

from generator.conditions import Multiple
from generator.errors import Finding, LaunchError
from generator.packing import K_UNIT, block_length
from generator.runtime.manifest import Layer, Manifest, Model

DEFAULT_MODEL = "seed-small"


@dataclass(frozen=True, slots=True)
class Shape:
    """A layer's sizes and one batch."""

    experts: int
    global_experts: int  # ids are drawn from these; the local ones come first
    top_k: int
    hidden: int
    intermediate: int
    tokens: int

    def __str__(self) -> str:
        return (
            f"E={self.experts}/{self.global_experts} k={self.top_k} H={self.hidden}"
            f" I={self.intermediate} T={self.tokens}"
        )


@dataclass(frozen=True, slots=True)
class Case:
    """One layer contract at one shape."""

    layer: Layer
    shape: Shape


def cases(
    manifest: Manifest, *, shape: str | None, contract: str | None, everything: bool, small: bool
) -> Iterator[Case]:
    """The cases that the command line names.

    `small` (the interpreter) keeps to the seed's smaller layer and, with `everything`, gives all
    other layers the least shape that every variant accepts. Raises LaunchError for a shape or a
    pattern that names nothing.
    """
    if contract and not any(fnmatch(name, contract) for name in manifest.layers):
        fix = f"use a pattern of {', '.join(manifest.layers)}"
        raise LaunchError(Finding("--contract", f"`{contract}` names no layer contract", fix))

    def wanted(name: str) -> bool:
        return contract is None or fnmatch(name, contract)

    if shape is not None:
        for layer, sizes in _named(manifest, shape):
            if wanted(layer.name):
                yield Case(layer, sizes)
        return
    done = set()
    for model in manifest.models.values():
        if small and model.name != DEFAULT_MODEL:
            continue
        names = [name for name in model.layers if wanted(name)]
        for name in names if everything or contract or not small else names[:1]:
            for tokens in sorted({min(model.tokens), max(model.tokens)}):
                done.add(name)
                yield Case(manifest.layers[name], _of_model(model, tokens))
    for layer in manifest.layers.values():
        left_over = layer.name not in done and wanted(layer.name)
        if left_over and (everything or contract or not manifest.models):
            yield Case(layer, least_shape(layer, manifest))


def _of_model(model: Model, tokens: int) -> Shape:
    return Shape(
        experts=model.experts,
        global_experts=model.global_experts,
        top_k=model.top_k,
        hidden=model.hidden,
        intermediate=model.intermediate,
        tokens=tokens,
    )


def _named(manifest: Manifest, text: str) -> Iterator[tuple[Layer, Shape]]:
    """A model's name with its layers, or sizes for every layer contract."""
    if text in manifest.models:
        model = manifest.models[text]
        for tokens in model.tokens:
            for name in model.layers:
                yield manifest.layers[name], _of_model(model, tokens)
        return
    sizes = _sizes(manifest, text)
    for layer in manifest.layers.values():
        yield layer, sizes


def _sizes(manifest: Manifest, text: str) -> Shape:
    keys = [field.name for field in fields(Shape)]
    given = dict(part.partition("=")[::2] for part in text.split(","))
    given.setdefault("global_experts", given.get("experts", ""))
    if set(given) != set(keys) or not all(value.isdecimal() for value in given.values()):
        models = ", ".join(manifest.models) or "none in this manifest"
        fix = f"name a model ({models}) or write {','.join(f'{key}=N' for key in keys)}"
        raise LaunchError(Finding("--shape", f"`{text}` is no shape", fix))
    shape = Shape(**{key: int(value) for key, value in given.items()})
    low = [key for key in keys if getattr(shape, key) < 1]
    findings = [Finding("--shape", f"{key} = 0", "use 1 or more") for key in low]
    if not shape.experts <= shape.global_experts or not shape.top_k <= shape.global_experts:
        what = (
            f"{shape.experts} local experts, top_k {shape.top_k} of {shape.global_experts} experts"
        )
        findings.append(Finding("--shape", what, "keep both at most global_experts"))
    if findings:
        raise LaunchError(findings)
    return shape


def turn_of(layer: Layer, group: int | None) -> int:
    """K elements of the longest turn: a group, or a block of nibbles where that is longer."""
    if layer.weights == "int4":
        return lcm(block_length(group), group or 1)
    return group or 1


def least_shape(layer: Layer, manifest: Manifest) -> Shape:
    """The smallest H and I that every variant of the layer accepts and that take whole turns of
    every loop over K, with idle and remote experts.
    """
    hidden, intermediate = (
        K_UNIT if group is None and layer.weights == "int8" else lcm(K_UNIT, turn_of(layer, group))
        for group in (layer.up_group, layer.down_group)
    )
    for plan in layer.plans:
        for name in dict.fromkeys(plan.tokens + plan.rows):
            operation = manifest.contracts[name]["operation"]
            for entry in manifest.by_contract[name]:
                for each in entry.requires:
                    if not isinstance(each, Multiple):
                        continue
                    of_hidden = (each.of == "K") == (operation in ("up", "quantize"))
                    if of_hidden or operation == "combine":
                        hidden = lcm(hidden, each.by)
                    else:
                        intermediate = lcm(intermediate, each.by)
    return Shape(3, 5, 2, hidden, intermediate, 20)
