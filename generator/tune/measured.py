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
    contract: str  # of the operation
    n: int  # columns of its output, stored
    k: int  # length of a row, stored
    experts: int  # local ones
    rows: int  # routed: tokens * top_k
    routing: str
    design: str
    block_m: int  # its row tile
    us: float  # median
    iqr: float  # between its quartiles, microseconds
    looks: int  # replays


def read(path: Path) -> list[Measurement]:
    """None where there is no file yet. Raises LaunchError for a line that is none of ours, and
    where the file cannot be read.
    """
    if not path.exists():
        return []
    found = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LaunchError(Finding(str(path), f"cannot be read: {error}", "name a file")) from error
    for number, line in enumerate(lines, 1):
        try:
            found.append(Measurement(**json.loads(line)))
        except (TypeError, ValueError) as error:
            what = f"line {number} is no measurement: {error}"
            raise LaunchError(Finding(str(path), what, "name another file")) from error
    return found


def append(path: Path, measurements: Iterable[Measurement]) -> None:
    """All of a batch in one write, for a batch that is in the file is not timed again."""
    lines = "".join(json.dumps(asdict(each)) + "\n" for each in measurements)
    with path.open("a", encoding="utf-8") as file:
        file.write(lines)
