"""Rules that cross fields or files, each a named predicate with its reason.

`load.py` runs them once every file has its shape. A check yields the path of the offending value,
what is wrong with it and the nearest legal value.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from generator.spec.model import Model, ModelLayer, Spec, SpecSet, Target
from generator.spec.yaml_source import YamlPath

Subject = TypeVar("Subject", Spec, Target, Model)


@dataclass(frozen=True)
class Defect:
    """One breach of one check."""

    at: YamlPath
    what: str
    fix: str


@dataclass(frozen=True)
class Check(Generic[Subject]):
    """A rule on one file, which may look at all others."""

    name: str
    why: str
    find: Callable[[Subject, Path, SpecSet], Iterator[Defect]]


def nearest(value: object, legal: Iterable[object]) -> str:
    """The fix for a word or number that must be one of several."""
    options = list(legal)
    numbers = [each for each in options if isinstance(each, int)]
    if isinstance(value, int) and numbers:
        close = min(numbers, key=lambda each: abs(each - value))
        return f"the nearest is {close}; legal: {', '.join(str(each) for each in options)}"
    words = [str(each) for each in options]
    alike = difflib.get_close_matches(str(value), words, n=1, cutoff=0.5)
    if alike:
        return f"did you mean `{alike[0]}`? legal: {', '.join(words)}"
    if len(words) == 1:
        return f"write `{words[0]}`"
    return f"use one of {', '.join(words)}" if words else "nothing is legal here: remove it"


def _power_of_two(value: int) -> bool:
    return value & (value - 1) == 0


def _around(value: int, step: int) -> str:
    below, above = value // step * step, max(step, -(-value // step) * step)
    return f"use {below} or {above}" if below > 0 else f"use {above}"


def _name_is_file(subject: Spec | Target | Model, path: Path, _: SpecSet) -> Iterator[Defect]:
    if subject.name != path.stem:
        yield Defect(
            ("name",),
            f"the name `{subject.name}` differs from the file name `{path.name}`",
            f"write `name: {path.stem}` or rename the file to {subject.name}.yaml",
        )


def _axes(spec: Spec) -> Iterator[tuple[YamlPath, tuple[object, ...]]]:
    yield ("weights", "group_k"), spec.weights.group_k
    yield ("activations", "dtype"), spec.activations.dtype
    yield ("activations", "rounding"), spec.activations.rounding
    yield ("layer", "intermediate"), spec.layer.intermediate
    yield ("layer", "exp"), spec.layer.exp
    yield ("targets",), spec.targets
    yield from _design_axes(spec)


def _design_axes(spec: Spec) -> Iterator[tuple[YamlPath, tuple[object, ...]]]:
    for operation in type(spec.designs).model_fields:
        space = getattr(spec.designs, operation)
        for axis in type(space).model_fields:
            yield ("designs", operation, axis), getattr(space, axis)


def _distinct(spec: Spec, _: Path, __: SpecSet) -> Iterator[Defect]:
    for at, values in _axes(spec):
        for index, value in enumerate(values):
            if value in values[:index]:
                yield Defect((*at, index), f"`{value}` stands twice", "keep it once")


def _groups(spec: Spec, _: Path, __: SpecSet) -> Iterator[Defect]:
    for index, group in enumerate(spec.weights.group_k):
        if isinstance(group, int) and (group % 32 or group < 32):
            yield Defect(
                ("weights", "group_k", index),
                f"group size {group} is no multiple of 32",
                _around(group, 32),
            )


def _groups_within_limit(spec: Spec, _: Path, __: SpecSet) -> Iterator[Defect]:
    for index, group in enumerate(spec.weights.group_k):
        if isinstance(group, int) and group > spec.limits.k:
            yield Defect(
                ("weights", "group_k", index),
                f"group size {group} exceeds limits.k = {spec.limits.k}",
                f"raise limits.k to {group} or drop the group",
            )


def _powers(spec: Spec, _: Path, __: SpecSet) -> Iterator[Defect]:
    for at, values in _design_axes(spec):
        if at[-1] in ("stages", "dot"):
            continue
        for index, value in enumerate(values):
            if isinstance(value, int) and not _power_of_two(value):
                below = 1 << (value.bit_length() - 1)
                yield Defect(
                    (*at, index),
                    f"{at[-1]} {value} is no power of two",
                    f"use {below} or {2 * below}",
                )


def _targets_exist(spec: Spec, _: Path, everything: SpecSet) -> Iterator[Defect]:
    known = [target.name for target in everything.targets]
    for index, name in enumerate(spec.targets):
        if name not in known and name not in everything.broken:
            yield Defect(("targets", index), f"no file targets/{name}.yaml", nearest(name, known))


def _written(capability: tuple[int, int] | str) -> str:
    return capability if isinstance(capability, str) else str(list(capability))


def _capability(target: Target, _: Path, __: SpecSet) -> Iterator[Defect]:
    if (target.backend == "any") != (target.capability == "none"):
        yield Defect(
            ("capability",),
            f"backend `{target.backend}` with capability `{_written(target.capability)}`",
            "write `capability: none` exactly when the backend is `any`",
        )


def _row_tile(target: Target, _: Path, __: SpecSet) -> Iterator[Defect]:
    if (target.keep == "one") != (target.row_tile != "any"):
        yield Defect(
            ("row_tile",),
            f"keep `{target.keep}` with row_tile `{target.row_tile}`",
            "fix a row tile, such as 32, exactly when one design is kept",
        )


def _model_shape(model: Model, _: Path, __: SpecSet) -> Iterator[Defect]:
    if model.experts > model.global_experts:
        yield Defect(
            ("experts",),
            f"{model.experts} local experts of {model.global_experts}",
            f"use at most {model.global_experts}",
        )
    if model.top_k > model.global_experts:
        yield Defect(
            ("top_k",),
            f"top_k {model.top_k} of {model.global_experts} experts",
            f"use at most {model.global_experts}",
        )


def _model_layers(
    model: Model, everything: SpecSet
) -> Iterator[tuple[YamlPath, ModelLayer, Spec | None]]:
    specs = {spec.name: spec for spec in everything.specs}
    for index, layer in enumerate(model.layers):
        yield ("layers", index), layer, specs.get(layer.spec)


def _layer_axes(model: Model, _: Path, everything: SpecSet) -> Iterator[Defect]:
    for at, layer, spec in _model_layers(model, everything):
        if spec is None and layer.spec in everything.broken:
            continue
        if spec is None:
            known = [each.name for each in everything.specs]
            yield Defect((*at, "spec"), f"no spec `{layer.spec}`", nearest(layer.spec, known))
            continue
        axes: dict[str, tuple[object, ...]] = {
            "up": spec.weights.group_k,
            "down": spec.weights.group_k,
            "dtype": spec.activations.dtype,
            "intermediate": spec.layer.intermediate,
            "rounding": spec.activations.rounding,
            "exp": spec.layer.exp,
        }
        for key, legal in axes.items():
            value = getattr(layer, key)
            if value not in legal:
                yield Defect(
                    (*at, key),
                    f"`{value}` is no value of this axis of spec {spec.name}",
                    nearest(value, legal),
                )


def _dividing(k: int, spec: Spec | None) -> str:
    groups = spec.weights.group_k if spec else ()
    fits = [str(each) for each in groups if isinstance(each, int) and k % each == 0]
    return " or ".join([*fits, "`channel`"])


def _layer_divides(model: Model, _: Path, everything: SpecSet) -> Iterator[Defect]:
    for at, layer, spec in _model_layers(model, everything):
        for key, name, k in (
            ("up", "hidden", model.hidden),
            ("down", "intermediate", model.intermediate),
        ):
            group = getattr(layer, key)
            if isinstance(group, int) and k % group:
                yield Defect(
                    (*at, key),
                    f"{name} = {k} is no multiple of the group size {group}",
                    f"use {_dividing(k, spec)}",
                )


def _layer_limits(model: Model, _: Path, everything: SpecSet) -> Iterator[Defect]:
    for _at, _layer, spec in _model_layers(model, everything):
        if spec is None:
            continue
        limits = spec.limits
        for key, what, value, limit in (
            ("experts", "experts", model.experts, limits.experts),
            ("hidden", "hidden", model.hidden, min(limits.k, limits.n)),
            (
                "intermediate",
                "2 * intermediate",
                2 * model.intermediate,
                min(2 * limits.k, limits.n),
            ),
            ("tokens", "tokens * top_k", max(model.tokens) * model.top_k, limits.rows),
        ):
            if value > limit:
                yield Defect(
                    (key,),
                    f"{what} = {value} exceeds the limit {limit} of spec {spec.name}",
                    f"raise the limits in specs/{spec.name}.yaml",
                )


SPEC_CHECKS: tuple[Check[Spec], ...] = (
    Check("name_is_file", "names are looked up as file names", _name_is_file),
    Check("distinct_values", "each value of an axis is one contract or design", _distinct),
    Check("group_multiple", "the least K of an int8 dot is 32", _groups),
    Check("group_within_limit", "proofs hold up to the limits", _groups_within_limit),
    Check("powers_of_two", "Triton tiles and warps are powers of two", _powers),
    Check("targets_exist", "a target is a file", _targets_exist),
)
TARGET_CHECKS: tuple[Check[Target], ...] = (
    Check("name_is_file", "names are looked up as file names", _name_is_file),
    Check("row_tile", "the up and the down kernel of a layer share one tile map", _row_tile),
    Check("capability", "a device is recognised by its capability", _capability),
)
MODEL_CHECKS: tuple[Check[Model], ...] = (
    Check("name_is_file", "names are looked up as file names", _name_is_file),
    Check("model_shape", "ids are drawn without repetition from the global experts", _model_shape),
    Check("layer_axes", "a model uses contracts that its spec describes", _layer_axes),
    Check("layer_divides", "every scale covers a whole group", _layer_divides),
    Check("layer_limits", "proofs hold up to the limits", _layer_limits),
)
