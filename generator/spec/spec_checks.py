"""Rules on one file specs/<name>.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from generator.packing import packs
from generator.spec.check import (
    Check,
    Defect,
    around,
    distinct,
    name_is_file,
    nearest,
    powers_of_two,
)
from generator.spec.model import Spec, SpecSet
from generator.spec.yaml_source import YamlPath


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
        yield from distinct(at, values)


def _groups(spec: Spec, _: Path, __: SpecSet) -> Iterator[Defect]:
    for index, group in enumerate(spec.weights.group_k):
        at: YamlPath = ("weights", "group_k", index)
        if isinstance(group, int) and (group % 32 or group < 32):
            yield Defect(at, f"group size {group} is no multiple of 32", around(group, 32))
        elif isinstance(group, int) and spec.weights.packing == "planes" and not packs(group):
            yield Defect(
                at, f"group size {group} is neither 32 nor a multiple of 64", around(group, 64)
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
        yield from powers_of_two(at, values, str(at[-1]))


def _targets_exist(spec: Spec, _: Path, everything: SpecSet) -> Iterator[Defect]:
    known = [target.name for target in everything.targets]
    for index, name in enumerate(spec.targets):
        if name not in known and name not in everything.broken:
            yield Defect(("targets", index), f"no file targets/{name}.yaml", nearest(name, known))


SPEC_CHECKS: tuple[Check[Spec], ...] = (
    Check("name_is_file", "names are looked up as file names", name_is_file),
    Check("distinct_values", "each value of an axis is one contract or design", _distinct),
    Check("group_multiple", "the least K of an int8 dot is 32", _groups),
    Check("packing", "int4 stands two to a byte, int8 does not", _packing),
    Check("wide_scales", "1/16 is folded into the scale, which must lose no bit", _wide_scales),
    Check("group_within_limit", "proofs hold up to the limits", _groups_within_limit),
    Check("powers_of_two", "Triton tiles and warps are powers of two", _powers),
    Check("targets_exist", "a target is a file", _targets_exist),
)
