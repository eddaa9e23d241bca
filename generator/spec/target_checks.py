"""Rules on one file specs/targets/<name>.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from generator.packing import K_UNIT
from generator.spec.check import (
    Check,
    Defect,
    around,
    distinct,
    name_is_file,
    power_of_two,
    powers_of_two,
)
from generator.spec.model import SpecSet, Target
from generator.spec.yaml_source import YamlPath


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
    yield from powers_of_two(("row_tiles",), target.row_tiles)
    yield from distinct(("row_tiles",), target.row_tiles)


def _target_axes(target: Target, _: Path, __: SpecSet) -> Iterator[Defect]:
    for axis in ("operands", "gates", "orders"):
        yield from distinct((axis,), getattr(target, axis))


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
    yield from power_of_two(("warp_size",), target.warp_size)


def _promise(target: Target, _: Path, __: SpecSet) -> Iterator[Defect]:
    promise = target.accept_multiples
    if promise == "none":
        return
    for key, value in (("n", promise.n), ("k", promise.k)):
        if value % K_UNIT:
            what = f"{key} = {value} is no multiple of {K_UNIT}"
            yield Defect(("accept_multiples", key), what, around(value, K_UNIT))


TARGET_CHECKS: tuple[Check[Target], ...] = (
    Check("name_is_file", "names are looked up as file names", name_is_file),
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
