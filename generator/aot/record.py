"""Write what compiling came to into a specs folder, and hold it against what is there."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import replace
from pathlib import Path

from generator.errors import BuildError, Finding
from generator.files import replace_file
from generator.resources import Calibration, Record, Taken, read, read_calibration
from generator.runtime.manifest import Manifest


def write_record(directory: Path, record: Record, emitted: Container[str] | None = None) -> Path:
    """Add to a record, or make it; figures of the same variants are replaced. Where `emitted` names
    all that there is, the rest goes, but for what is faulty: that says why it is not emitted.
    """
    path = directory / record.name
    if path.exists():
        known = {
            symbol: each
            for symbol, each in read(path).variants.items()
            if emitted is None or each.faulty or symbol in emitted
        }
        record = replace(record, variants={**known, **record.variants})
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


def behind(directory: Path, record: Record, *, whole: bool) -> Iterator[str]:
    """What a folder has on record otherwise, of the same target and Triton; with `whole` also what
    it lacks.
    """
    known = read(directory / record.name).variants
    for symbol, found in record.variants.items():
        if symbol in known and known[symbol] != found:
            yield f"{record.name}: {symbol} is recorded with {known[symbol]}; it takes {found}"
    lacking = record.variants.keys() - known.keys()
    if lacking and whole:
        yield f"{record.name} lacks {len(lacking)} variants, such as {min(lacking)}"


def summary(record: Record) -> str:
    """The most that any variant takes."""
    figures = record.variants.values()
    return (
        f"{record.target}, Triton {record.triton}: {len(figures)} variants, at most"
        f" {max(each.registers + each.accumulators for each in figures)} registers,"
        f" {max(each.shared for each in figures)} bytes of shared memory,"
        f" {max(each.stack for each in figures)} of stack"
    )


def _write(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text.encode())
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        raise BuildError(Finding(str(path), what, "pass --specs DIR")) from error
    return path
