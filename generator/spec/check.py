"""What a check is, and what several of them say: a rule that crosses fields or files, named, with
its reason.

`load.py` runs the checks once every file has its shape. One yields the path of the offending
value, what is wrong with it and the nearest legal value.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from generator.spec.model import Model, Spec, SpecSet, Target, Tuning
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


def powers_of_two(at: YamlPath, values: Sequence[object], what: str = "") -> Iterator[Defect]:
    """Defects of a list's numbers that are none; `what` names them."""
    for index, value in enumerate(values):
        if isinstance(value, int):
            yield from power_of_two((*at, index), value, what)


def power_of_two(at: YamlPath, value: int, what: str = "") -> Iterator[Defect]:
    if value & (value - 1):
        below = 1 << (value.bit_length() - 1)
        named = f"{what} {value}".strip()
        yield Defect(at, f"{named} is no power of two", f"use {below} or {2 * below}")


def distinct(at: YamlPath, values: Sequence[object]) -> Iterator[Defect]:
    for index, value in enumerate(values):
        if value in values[:index]:
            yield Defect((*at, index), f"`{value}` stands twice", "keep it once")


def around(value: int, step: int) -> str:
    below, above = value // step * step, max(step, -(-value // step) * step)
    return f"use {below} or {above}" if below > 0 else f"use {above}"


def name_is_file(subject: Spec | Target | Model, path: Path, _: SpecSet) -> Iterator[Defect]:
    if subject.name != path.stem:
        yield Defect(
            ("name",),
            f"the name `{subject.name}` differs from the file name `{path.name}`",
            f"write `name: {path.stem}` or rename the file to {subject.name}.yaml",
        )
