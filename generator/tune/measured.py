"""What a tuner measured, line by line in a file, so that a run that was cut off goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from generator.errors import Finding, LaunchError


@dataclass(frozen=True, slots=True)
class Measurement:
    """One module on one batch of a model's layer: microseconds a launch, its weights not in the L2
    cache.
    """

    model: str
    layer: str
    operation: str
    contract: str
    n: int
    k: int
    experts: int
    rows: int
    routing: str
    design: str
    block_m: int
    us: float  # median
    iqr: float
    looks: int  # replays


def read(path: Path) -> list[Measurement]:
    """Raises LaunchError for a line that is none of ours."""
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found.append(Measurement(**json.loads(line)))
        except (TypeError, ValueError) as error:
            what = f"line {number} is no measurement: {error}"
            raise LaunchError(Finding(str(path), what, "name another file")) from error
    return found


def append(path: Path, measurements: Iterable[Measurement]) -> None:
    with path.open("a", encoding="utf-8") as file:
        for each in measurements:
            file.write(json.dumps(asdict(each)) + "\n")
