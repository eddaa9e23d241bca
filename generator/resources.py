"""What compiled kernels take of a device, and the files that record it. A leaf: standard library
only.

A record is `specs/resources/<target>-triton<version>.json`: `python -m generator compile --record`
writes it, lowering reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from generator.errors import BuildError, Finding

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Figures:
    """Resources of one program and one thread. Counts are of instructions in the code, not of
    executions.
    """

    registers: int  # 32-bit vector registers of one thread
    accumulators: int  # accumulation registers beside them; 0 on NVIDIA
    scalars: int  # scalar registers of one wave; 0 on NVIDIA
    stack: int  # bytes of one thread's stack: what registers do not hold
    shared: int  # bytes of one program
    code: int  # bytes of instructions
    matrix: Mapping[str, int]  # matrix instructions by family, tile and operand types
    loads: Mapping[str, int]  # loads of device memory into registers, by bytes of one lane
    copies: Mapping[str, int]  # asynchronous copies into shared memory, by bytes of one lane

    def __str__(self) -> str:
        beside = f" + {self.accumulators}" if self.accumulators else ""
        return (
            f"{self.registers}{beside} registers, {self.stack} bytes of stack,"
            f" {self.shared} of shared memory, {self.code} of code"
        )


@dataclass(frozen=True, slots=True)
class Record:
    """What one Triton made of variants for one target."""

    target: str
    triton: str
    variants: Mapping[str, Figures]  # by symbol

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.target}-triton{self.triton}.json"

    @property
    def by(self) -> str:
        return f"for {self.target} by Triton {self.triton}"

    def text(self) -> str:
        """JSON with one line a variant, so that a diff reads."""
        head = {"schema": SCHEMA, "target": self.target, "triton": self.triton}
        lines = ",\n".join(
            f"    {json.dumps(symbol)}: {json.dumps(asdict(self.variants[symbol]))}"
            for symbol in sorted(self.variants)
        )
        return f'{json.dumps(head)[:-1]}, "variants": {{\n{lines}\n}}}}\n'


def read(path: Path) -> Record:
    """One record. Raises BuildError where it is damaged, or a newer generator wrote it."""
    fix = "run `python -m generator compile --record` again"
    try:
        data: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            what = f"schema {data['schema']} is not the one that is read, {SCHEMA}"
            raise BuildError(Finding(str(path), what, fix))
        variants = {symbol: figures(each) for symbol, each in data["variants"].items()}
        record = Record(str(data["target"]), str(data["triton"]), variants)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"is damaged: {type(error).__name__}: {error}"
        raise BuildError(Finding(str(path), what, fix)) from error
    if record.name != path.name:
        raise BuildError(Finding(str(path), f"holds {record.by}", f"name it {record.name}"))
    return record


def read_folder(directory: Path) -> tuple[Record, ...]:
    """Every record of a folder, by file name; none where there is no such folder."""
    return tuple(read(path) for path in sorted(directory.glob("*.json")))


def figures(data: Mapping[str, Any]) -> Figures:
    """Read back what `asdict` made. Raises TypeError for a field too many, missing or of another
    type.
    """
    read_back = Figures(**data)
    for field in fields(Figures):
        value = getattr(read_back, field.name)
        if not isinstance(value, dict if field.name in ("matrix", "loads", "copies") else int):
            raise TypeError(f"{field.name} is {value!r}")
    return read_back
