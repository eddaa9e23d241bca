"""What a tuner measured, line by line in a file, so that a run that was cut off goes on. The first
line says on what.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import TypeVar

from generator.errors import Finding, LaunchError
from generator.tune.environment import Environment

Kind = TypeVar("Kind")
LAYER = "layer"  # stands for an operation where a whole layer was timed by a row tile


@dataclass(frozen=True, slots=True)
class Measurement:
    """One module on one batch of a model's layer: microseconds a launch, its weights not in the L2
    cache. Or the whole layer by the best modules of a row tile: its contract, N of the down and K
    of the up kernel, and as design `m` and the tile.
    """

    model: str
    layer: str
    operation: str
    contract: str
    n: int  # columns of its output, stored
    k: int  # length of a row, stored
    experts: int  # local ones
    rows: int  # routed: tokens * top_k
    routing: str
    design: str
    block_m: int  # its row tile
    us: float  # median; infinite where its result is not the oracle's, and it is not timed
    iqr: float  # between its quartiles, microseconds
    looks: int  # replays

    @property
    def is_right(self) -> bool:
        return isfinite(self.us)


def wrong(measurements: Iterable[Measurement]) -> set[tuple[str, str]]:
    """Contract and design of every module whose result was not the oracle's on some batch."""
    return {(each.contract, each.design) for each in measurements if not each.is_right}


@dataclass(frozen=True, slots=True)
class Conditions:
    """What times depend on beside their modules: those of one file all have the same."""

    device: str
    driver: str
    triton: str
    torch: str

    @classmethod
    def of(cls, on: Environment) -> Conditions:
        return cls(device=on.device, driver=on.driver, triton=on.triton, torch=on.torch)

    def __str__(self) -> str:
        return f"{self.device}, driver {self.driver}, Triton {self.triton}, torch {self.torch}"


def read(path: Path, conditions: Conditions) -> list[Measurement]:
    """Nothing where there is no file yet. Raises LaunchError for a file of other conditions, for a
    line that is none of ours, and where the file cannot be read.
    """
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LaunchError(Finding(str(path), f"cannot be read: {error}", "name a file")) from error
    if not lines:
        return []
    found = _line(path, 1, lines[0], Conditions, "does not say on what was measured")
    if found != conditions:
        what = f"was measured on {found}; this is {conditions}"
        fix = "name another file, and time them anew"
        raise LaunchError(Finding(str(path), what, fix))
    return [
        _line(path, number, line, Measurement, "is no measurement")
        for number, line in enumerate(lines[1:], 2)
    ]


def _line(path: Path, number: int, line: str, kind: type[Kind], otherwise: str) -> Kind:
    try:
        return kind(**json.loads(line))
    except (TypeError, ValueError) as error:
        what = f"line {number} {otherwise}: {error}"
        raise LaunchError(Finding(str(path), what, "name another file")) from error


def append(path: Path, conditions: Conditions, measurements: Iterable[Measurement]) -> None:
    """All of a batch in one write, for a batch that is in the file is not timed again; a new file
    begins with the conditions.
    """
    with path.open("a", encoding="utf-8") as file:
        rows = [asdict(each) for each in measurements]
        if file.tell() == 0:
            rows.insert(0, asdict(conditions))
        file.write("".join(json.dumps(each) + "\n" for each in rows))
