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

from generator.packing import K_UNIT, packs
from generator.spec.model import Model, ModelLayer, Spec, SpecSet, Target, Tuning
from generator.spec.yaml_source import YamlPath

Subject = TypeVar("Subject", Spec, Target, Model, Tuning)


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
    yield ("layer", "plans"), spec.layer.plans
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
        at: YamlPath = ("weights", "group_k", index)
        if isinstance(group, int) and (group % 32 or group < 32):
            yield Defect(at, f"group size {group} is no multiple of 32", _around(group, 32))
        elif isinstance(group, int) and spec.weights.packing == "planes" and not packs(group):
            yield Defect(
                at, f"group size {group} is neither 32 nor a multiple of 64", _around(group, 64)
            )


def _packing(spec: Spec, _: Path, __: SpecSet) -> Iterator[Defect]:
    wanted = "planes" if spec.weights.format == "int4" else "none"
    if spec.weights.packing != wanted:
        yield Defect(
            ("weights", "packing"),
            f"packing `{spec.weights.packing}` of {spec.weights.format} weights",
            f"write `{wanted}`",
        )
    for operation in ("up", "down"):
        space = getattr(spec.designs, operation)
        for index, unpack in enumerate(space.unpack):
            if (unpack == "none") != (wanted == "none"):
                legal = "none" if wanted == "none" else "value, shift or ptx"
                yield Defect(
                    ("designs", operation, "unpack", index),
                    f"unpack `{unpack}` of {spec.weights.format} weights",
                    f"write {legal}",
                )


def _wide_scales(spec: Spec, _: Path, __: SpecSet) -> Iterator[Defect]:
    if spec.weights.packing == "planes" and spec.weights.scale == "fp32":
        yield Defect(
            ("weights", "scale"),
            "fp32 scales of nibbles that may be kept times 16",
            "use bf16 or fp16, whose 16th part is exact in fp32",
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
        if at[-1] == "stages":
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


def _gemms(target: Target, _: Path, __: SpecSet) -> Iterator[Defect]:
    named = [each for each in ("up", "down") if each in target.operations]
    if len(named) == 1:
        other = "down" if named == ["up"] else "up"
        what = f"`{named[0]}` without `{other}`"
        yield Defect(("operations",), what, f"add `{other}`, or drop `{named[0]}`")


def _dot_rates(target: Target, _: Path, __: SpecSet) -> Iterator[Defect]:
    for dot in target.dots:
        if not target.cost.dot_ops_per_us.of(dot):
            yield Defect(
                ("cost", "dot_ops_per_us", dot),
                f"dots names {dot}, and its rate is none",
                f"state the rate of {dot}, or drop it from dots",
            )


def _ptx(target: Target, _: Path, __: SpecSet) -> Iterator[Defect]:
    if "ptx" in target.unpacks and target.backend != "cuda":
        at: YamlPath = ("unpacks", target.unpacks.index("ptx"))
        yield Defect(
            at, f"`ptx` on backend `{target.backend}`", "drop it; `shift` is for any back end"
        )


def _row_tiles(target: Target, _: Path, __: SpecSet) -> Iterator[Defect]:
    for index, tile in enumerate(target.row_tiles):
        if not _power_of_two(tile):
            below = 1 << (tile.bit_length() - 1)
            yield Defect(
                ("row_tiles", index), f"{tile} is no power of two", f"use {below} or {2 * below}"
            )
        if tile in target.row_tiles[:index]:
            yield Defect(("row_tiles", index), f"`{tile}` stands twice", "keep it once")


def _target_axes(target: Target, _: Path, __: SpecSet) -> Iterator[Defect]:
    for axis in ("operands", "gates", "orders"):
        values = getattr(target, axis)
        for index, value in enumerate(values):
            if value in values[:index]:
                yield Defect((axis, index), f"`{value}` stands twice", "keep it once")


def _matrix(target: Target, _: Path, __: SpecSet) -> Iterator[Defect]:
    units, least = target.matrix, min(target.row_tiles)
    if units[0].block_m > least:
        yield Defect(
            ("matrix", 0, "block_m"),
            f"{units[0].block_m} leaves row tiles of {least} without a matrix instruction",
            f"use {least} or less",
        )
    for index, unit in enumerate(units):
        if unit.name in (each.name for each in units[:index]):
            yield Defect(("matrix", index, "name"), f"`{unit.name}` stands twice", "keep it once")
        if index and unit.block_m < units[index - 1].block_m:
            yield Defect(
                ("matrix", index, "block_m"),
                f"{unit.block_m} stands after {units[index - 1].block_m}",
                "list them by ascending block_m",
            )


def _matrix_backend(target: Target, _: Path, __: SpecSet) -> Iterator[Defect]:
    for index, unit in enumerate(target.matrix):
        backend = "hip" if unit.name == "mfma" else "cuda"
        if target.backend not in (backend, "any"):
            yield Defect(
                ("matrix", index, "name"),
                f"`{unit.name}` on backend `{target.backend}`",
                f"name one of `{target.backend}`, or write `backend: {backend}`",
            )


def _warp_size(target: Target, _: Path, __: SpecSet) -> Iterator[Defect]:
    size = target.warp_size
    if not _power_of_two(size):
        below = 1 << (size.bit_length() - 1)
        yield Defect(("warp_size",), f"{size} is no power of two", f"use {below} or {2 * below}")


def _promise(target: Target, _: Path, __: SpecSet) -> Iterator[Defect]:
    promise = target.accept_multiples
    if promise == "none":
        return
    for key, value in (("n", promise.n), ("k", promise.k)):
        if value % K_UNIT:
            what = f"{key} = {value} is no multiple of {K_UNIT}"
            yield Defect(("accept_multiples", key), what, _around(value, K_UNIT))


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


def _tuned_target(tuning: Tuning, _: Path, everything: SpecSet) -> Iterator[Defect]:
    known = [target.name for target in everything.targets]
    if tuning.target not in known and tuning.target not in everything.broken:
        fix = nearest(tuning.target, known)
        yield Defect(("target",), f"no file targets/{tuning.target}.yaml", fix)
    same = [each.device for each in everything.tunings if each.target == tuning.target]
    if len(same) > 1:
        what = f"{' and '.join(same)} are both {tuning.target}"
        yield Defect(("target",), what, "keep one of the files")


def _tuned_shapes(tuning: Tuning, _: Path, __: SpecSet) -> Iterator[Defect]:
    seen: set[tuple[str, int, int, int]] = set()
    for index, shape in enumerate(tuning.shapes):
        key = (shape.contract, shape.n, shape.k, shape.experts)
        if key in seen:
            what = f"{shape.contract} at N={shape.n} K={shape.k} E={shape.experts} stands twice"
            yield Defect(("shapes", index, "contract"), what, "remove one")
        seen.add(key)
        rows = [each.rows for each in shape.buckets]
        if rows != sorted(set(rows)):
            what = f"rows {', '.join(str(each) for each in rows)} do not ascend"
            yield Defect(("shapes", index, "buckets"), what, "sort them, each once")


SPEC_CHECKS: tuple[Check[Spec], ...] = (
    Check("name_is_file", "names are looked up as file names", _name_is_file),
    Check("distinct_values", "each value of an axis is one contract or design", _distinct),
    Check("group_multiple", "the least K of an int8 dot is 32", _groups),
    Check("packing", "int4 stands two to a byte, int8 does not", _packing),
    Check("wide_scales", "1/16 is folded into the scale, which must lose no bit", _wide_scales),
    Check("group_within_limit", "proofs hold up to the limits", _groups_within_limit),
    Check("powers_of_two", "Triton tiles and warps are powers of two", _powers),
    Check("targets_exist", "a target is a file", _targets_exist),
)
TARGET_CHECKS: tuple[Check[Target], ...] = (
    Check("name_is_file", "names are looked up as file names", _name_is_file),
    Check("gemms", "the up and the down kernel of a layer share one tile map", _gemms),
    Check("dot_rates", "the cost model orders designs by them", _dot_rates),
    Check("ptx", "inline PTX is NVIDIA's assembly", _ptx),
    Check("row_tiles", "each row tile is one band of rows per expert", _row_tiles),
    Check("axes", "each value of a target's axis is one design", _target_axes),
    Check("matrix", "a dot compiles to the last one that its rows are enough for", _matrix),
    Check("matrix_backend", "mfma is AMD's, the others are NVIDIA's", _matrix_backend),
    Check("warp_size", "lanes of a warp are numbered in bits", _warp_size),
    Check("promise", "weights are padded to this unit at pack", _promise),
    Check("capability", "a device is recognised by its capability", _capability),
)
TUNING_CHECKS: tuple[Check[Tuning], ...] = (
    Check("tuned_target", "a target's table is one device's", _tuned_target),
    Check("tuned_shapes", "selection looks the nearest rows up", _tuned_shapes),
)
MODEL_CHECKS: tuple[Check[Model], ...] = (
    Check("name_is_file", "names are looked up as file names", _name_is_file),
    Check("model_shape", "ids are drawn without repetition from the global experts", _model_shape),
    Check("layer_axes", "a model uses contracts that its spec describes", _layer_axes),
    Check("layer_limits", "proofs hold up to the limits", _layer_limits),
)
