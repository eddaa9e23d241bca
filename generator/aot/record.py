"""Write what compiling came to into a specs folder, and hold it against what is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from generator.emit.sync import replace_file
from generator.errors import BuildError, Finding
from generator.resources import Calibration, Figures, Record, Taken, read, read_calibration
from generator.runtime.manifest import Manifest


def write_record(directory: Path, record: Record) -> Path:
    """Add to a record, or make it; figures of the same variants are replaced. What nothing emits
    any more stays, for it says why.
    """
    path = directory / record.name
    if path.exists():
        record = replace(record, variants={**read(path).variants, **record.variants})
    return _write(path, record.text())


def write_calibration(directory: Path, record: Record, manifest: Manifest) -> Path:
    """Add the GEMMs of a record to the calibration of its target and Triton, or make it."""
    path = directory / "calibration" / record.name
    designs: dict[str, dict[str, Taken]] = {}
    if path.exists():
        known = read_calibration(path).designs
        designs = {contract: dict(rows) for contract, rows in known.items()}
    for symbol, each in record.variants.items():
        entry = manifest.by_symbol[symbol]
        if entry.dot is not None:
            taken = Taken(each.registers + each.accumulators, each.stack, each.shared)
            designs.setdefault(entry.contract, {})[entry.name] = taken
    return _write(path, Calibration(record.target, record.triton, designs).text())


def differing(directory: Path, record: Record) -> Iterator[tuple[str, Figures, Figures]]:
    """Variants that are on record with other figures: symbol, recorded, found."""
    path = directory / record.name
    known = read(path).variants if path.exists() else {}
    for symbol, found in record.variants.items():
        if symbol in known and known[symbol] != found:
            yield symbol, known[symbol], found


def _write(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text.encode())
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        raise BuildError(Finding(str(path), what, "pass --specs DIR")) from error
    return path
