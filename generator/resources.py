"""What compiled kernels take of a device, and the files that record it. A leaf: standard library
only.

A record is `specs/resources/<target>-triton<version>.json`, a calibration the file of that name in
`specs/resources/calibration/`: `python -m generator compile --record` and `--calibrate` write them,
lowering reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    unset: int  # registers that are read though nothing set them, as far as it is looked for

    @property
    def faulty(self) -> bool:
        """Whether it must not ship, whatever its target holds."""
        return self.stack > 0 or self.unset > 0

    def __str__(self) -> str:
        beside = f" + {self.accumulators}" if self.accumulators else ""
        unset = f", {self.unset} read and never set" if self.unset else ""
        return (
            f"{self.registers}{beside} registers, {self.stack} bytes of stack,"
            f" {self.shared} of shared memory, {self.code} of code{unset}"
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
    data = _load(path, "record")
    try:
        variants = {symbol: figures(each) for symbol, each in data["variants"].items()}
        record = Record(str(data["target"]), str(data["triton"]), variants)
    except (KeyError, TypeError, AttributeError) as error:
        raise BuildError(_damaged(path, error, "record")) from error
    _refuse_name(path, record.name)
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


@dataclass(frozen=True, slots=True)
class Taken:
    """What a design took, as far as rules foretell it."""

    registers: int  # 32-bit registers of one thread, accumulation registers among them
    stack: int  # bytes of one thread
    shared: int  # bytes of one program


@dataclass(frozen=True, slots=True)
class Calibration:
    """What one Triton made of designs for one target, kept or not: by these the rules of resources
    are fitted and judged.
    """

    target: str
    triton: str
    designs: Mapping[str, Mapping[str, Taken]]  # by contract, then by `<target>/<design>`

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.target}-triton{self.triton}.json"

    def by_symbol(self) -> dict[str, Taken]:
        """The same, by the symbols of variants."""
        return {
            f"{contract}_{name.replace('/', '_')}": taken
            for contract, designs in self.designs.items()
            for name, taken in designs.items()
        }

    def text(self) -> str:
        """JSON with one line a contract."""
        head = {"schema": SCHEMA, "target": self.target, "triton": self.triton}
        lines = ",\n".join(
            f"    {json.dumps(contract)}: {json.dumps(_rows(self.designs[contract]))}"
            for contract in sorted(self.designs)
        )
        return f'{json.dumps(head)[:-1]}, "designs": {{\n{lines}\n}}}}\n'


def _rows(designs: Mapping[str, Taken]) -> dict[str, list[int]]:
    return {
        name: [each.registers, each.stack, each.shared] for name, each in sorted(designs.items())
    }


def _taken(row: Sequence[Any]) -> Taken:
    taken = Taken(*row)
    for field in fields(Taken):
        value = getattr(taken, field.name)
        if not isinstance(value, int):
            raise TypeError(f"{field.name} is {value!r}")
    return taken


def read_calibration(path: Path) -> Calibration:
    """One calibration. Raises BuildError where it is damaged, or a newer generator wrote it."""
    data = _load(path, "calibrate")
    try:
        designs = {
            contract: {name: _taken(row) for name, row in rows.items()}
            for contract, rows in data["designs"].items()
        }
        calibration = Calibration(str(data["target"]), str(data["triton"]), designs)
    except (KeyError, TypeError, AttributeError) as error:
        raise BuildError(_damaged(path, error, "calibrate")) from error
    _refuse_name(path, calibration.name)
    return calibration


def _load(path: Path, option: str) -> Mapping[str, Any]:
    try:
        data: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        schema = data["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BuildError(_damaged(path, error, option)) from error
    if schema != SCHEMA:
        what = f"schema {schema} is not the one that is read, {SCHEMA}"
        raise BuildError(Finding(str(path), what, _again(option)))
    return data


def _damaged(path: Path, error: Exception, option: str) -> Finding:
    return Finding(str(path), f"is damaged: {type(error).__name__}: {error}", _again(option))


def _again(option: str) -> str:
    return f"remove it and run `python -m generator compile --{option}` again"


def _refuse_name(path: Path, name: str) -> None:
    if path.name != name:
        raise BuildError(Finding(str(path), "holds another target or Triton", f"name it {name}"))
