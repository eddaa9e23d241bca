"""Compiled kernels that came along, put where Triton looks for them, so that serving compiles none.

Triton finds a kernel by a key of its own library, the module's text and the options, wherever the
cache lies. Only a group, which lists the files of one kernel, names them by absolute path.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import triton

from ..errors import BuildError, Finding
from ..files import replace_file

GROUP = "__grp__"  # how Triton's names of groups begin
FILL = "fill the cache again, then `python -m generator bundle --cache DIR`"


def install(source: Path | str | None = None, destination: Path | str | None = None) -> int:
    """Copy what is missing of a filled Triton cache; returns how many of its folders were added to.
    Groups that name files where none are, as in a cache that was moved, count as missing.

    `source` is by default what the package brought, `destination` the cache of this process.
    Processes may do so at once, and while others compile. Raises BuildError where there is nothing
    to copy, or it is damaged, or the destination cannot be written.
    """
    filled = Path(source or Path(__file__).resolve().parents[1] / "cache")
    active = Path(destination or triton.knobs.cache.dir).absolute()
    folders = sorted(each for each in filled.iterdir() if each.is_dir()) if filled.is_dir() else []
    if not folders:
        raise BuildError(Finding(str(filled), "holds no compiled kernels", FILL))
    try:
        return sum(_add(folder, active / folder.name) for folder in folders)
    except OSError as error:
        where, what = str(error.filename or active), error.strerror or str(error)
        fix = "let TRITON_CACHE_DIR name a folder that can be written"
        raise BuildError(Finding(where, f"cannot be copied: {what}", fix)) from error


def _add(folder: Path, target: Path) -> bool:
    """Groups last, as Triton writes them: a kernel whose group is there is whole. What a killed
    process left unfinished is completed, and its temporary folders stay where they are.
    """
    whole = (each for each in folder.iterdir() if each.is_file())
    files = sorted(whole, key=lambda each: (each.name.startswith(GROUP), each.name))
    missing = [each for each in files if not _there(target / each.name)]
    target.mkdir(parents=True, exist_ok=True)
    for each in missing:
        moves = each.name.startswith(GROUP)
        replace_file(target / each.name, _group(each, target) if moves else each.read_bytes())
    return bool(missing)


def _there(path: Path) -> bool:
    """Whether Triton would find a file, and what it lists where it is a group."""
    if not path.exists() or not path.name.startswith(GROUP):
        return path.exists()
    try:
        return all(map(os.path.isfile, json.loads(path.read_bytes())["child_paths"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def _group(path: Path, target: Path) -> bytes:
    """A group whose files lie in another folder."""
    try:
        names = list(json.loads(path.read_bytes())["child_paths"])
    except (ValueError, KeyError, TypeError) as error:
        what = f"is damaged: {type(error).__name__}: {error}"
        raise BuildError(Finding(str(path), what, FILL)) from error
    lost = [name for name in names if not (path.parent / name).is_file()]
    if lost:
        raise BuildError(Finding(str(path), f"is damaged: {', '.join(lost)} is missing", FILL))
    return json.dumps({"child_paths": {name: str(target / name) for name in names}}).encode()
