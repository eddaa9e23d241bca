"""Compare files with a folder, or write them there: whole, atomically, stale ones removed, and
nothing lost that the same verb did not write.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from generator.errors import BuildError, Finding
from generator.files import replace_file

MARK = "python -m generator build"  # stands in the docstring of every emitted file
DIFF_LINES = 40  # of one file; enough to see what kind of change it is


@dataclass(frozen=True, slots=True)
class Owner:
    """A verb that writes whole folders, and how it knows again what it wrote."""

    verb: str
    mark: str  # the file by which it knows a folder
    made: Callable[[Path], bool]  # whether a folder is its own
    foreign: Callable[[Path, Sequence[str]], list[str]]  # stale files of it that are not


def _has_manifest(directory: Path) -> bool:
    """Whether a build wrote it: other tools write a manifest.json too."""
    try:
        data = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and {"schema", "entries", "selection"} <= data.keys()


def _emitted(path: Path) -> bool:
    """Emitted modules, and what a killed build left behind."""
    if re.fullmatch(r"\..+\.(py|json)\.\w+", path.name):
        return True
    return path.suffix == ".py" and MARK in path.read_text(encoding="utf-8", errors="replace")


BUILD = Owner(
    verb="build",
    mark="manifest",
    made=_has_manifest,
    foreign=lambda directory, stale: [path for path in stale if not _emitted(directory / path)],
)


@dataclass(frozen=True, slots=True)
class Difference:
    """What a folder lacks, holds besides, or holds in another state."""

    missing: tuple[str, ...]
    stale: tuple[str, ...]
    changed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.stale or self.changed)


def compare(directory: Path, files: Mapping[str, str | bytes]) -> Difference:
    """How a folder differs from given files; bytecode caches do not count."""
    present = {
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return Difference(
        missing=tuple(path for path in files if path not in present),
        stale=tuple(sorted(present - files.keys())),
        changed=tuple(
            path
            for path, content in files.items()
            if path in present and (directory / path).read_bytes() != _bytes(content)
        ),
    )


def diff(directory: Path, files: Mapping[str, str], difference: Difference) -> str:
    """A unified diff of the changed files, shortened, and a line for each other one."""
    lines = [f"missing: {path}" for path in difference.missing]
    lines += [f"stale:   {path}" for path in difference.stale]
    for path in difference.changed:
        old = (directory / path).read_text(encoding="utf-8", errors="replace").splitlines()
        new = files[path].splitlines()
        hunk = list(difflib.unified_diff(old, new, f"{path} (on disk)", path, lineterm="", n=1))
        lines += hunk[:DIFF_LINES]
        if len(hunk) > DIFF_LINES:
            lines.append(f"... {len(hunk) - DIFF_LINES} more lines of {path}")
    return "\n".join(lines)


def write(directory: Path, files: Mapping[str, str | bytes], owner: Owner = BUILD) -> Difference:
    """Make a folder equal to the given files; returns what changed.

    Raises BuildError where the folder holds files that the owner did not write, so that a wrong
    --out loses nothing, and where the file system refuses.
    """
    try:
        if directory.exists():
            _refuse_foreign(directory, owner)
        directory.mkdir(parents=True, exist_ok=True)
        difference = compare(directory, files)
        _refuse_kept(directory, difference.stale, owner)
        # Stale files first, the others in their order: the owner may know all by the first of them.
        for path in difference.stale:
            (directory / path).unlink()
        wanted = {*difference.missing, *difference.changed}
        for path in (each for each in files if each in wanted):
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_file(target, _bytes(files[path]))
        _remove_empty(directory)
    except OSError as error:
        where, what = str(error.filename or directory), error.strerror or str(error)
        raise BuildError(
            Finding(where, f"cannot be written: {what}", "pass another --out DIR")
        ) from error
    return difference


def _refuse_foreign(directory: Path, owner: Owner) -> None:
    if not directory.is_dir():
        raise BuildError(Finding(str(directory), "is no folder", "pass another --out DIR"))
    if any(directory.iterdir()) and not owner.made(directory):
        raise BuildError(
            Finding(
                str(directory),
                f"holds files but no {owner.mark} of ours, so no {owner.verb} made it",
                f"pass an empty folder, or one that {owner.verb} wrote, as --out DIR",
            )
        )


def _refuse_kept(directory: Path, stale: tuple[str, ...], owner: Owner) -> None:
    """Only what the owner wrote is removed."""
    kept = owner.foreign(directory, stale)
    if kept:
        what = f"was written by no {owner.verb}"
        raise BuildError(
            [Finding(str(directory / path), what, "move it elsewhere") for path in kept]
        )


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _remove_empty(directory: Path) -> None:
    """Folders that only a stale module's bytecode kept alive go with it."""
    folders = sorted((p for p in directory.rglob("*") if p.is_dir()), reverse=True)
    for folder in folders:
        if folder.name == "__pycache__":
            modules = {path.stem for path in folder.parent.glob("*.py")}
            for cached in folder.iterdir():
                if cached.name.split(".")[0] not in modules:
                    cached.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()
