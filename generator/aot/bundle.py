"""A package of only what serving needs: emitted modules, the runtime, and the leaves it imports.

Sees text and bytes alone: the command line emits the modules before, and writes the folder after.
"""

from __future__ import annotations

import json
import keyword
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from generator.aot.bundle_text import pyproject, readme
from generator.emit.sync import Owner
from generator.errors import BuildError, Finding

LEAVES = ("conditions.py", "errors.py", "files.py", "formats.py", "packing.py")

# Packages and torch namespaces that a bundle would hide or meet.
TAKEN = {"aten", "generator", "generated", "groupwise", "prim"}
TAKEN |= {"numpy", "safetensors", "torch", "triton"}

INVENTORY = "bundle.json"  # what a bundle wrote, hence what the next one may remove
KEY = re.compile(r"[A-Z2-7]{52}")  # a folder of Triton's cache: a sha256 in base32
GROUP = "__grp__"  # how Triton begins the name of a file that lists a kernel's files
NAME_LENGTH = 150  # to which Triton shortens the names of kernels


def bundle(
    modules: Mapping[str, str],
    library: Mapping[str, str],
    *,
    name: str,
    version: str,
    cache: Mapping[str, bytes] | None = None,
) -> dict[str, str | bytes]:
    """Every file of a package `name` around emitted modules; `cache` is a filled Triton cache.

    Raises BuildError for a name that no package can have, and where no layer is whole.
    """
    _refuse_name(name)
    manifest = json.loads(modules["manifest.json"])
    if not manifest["layers"]:
        what = "holds no whole layer, which is what a bundle serves"
        fix = "name a layer of `python -m generator list --all --kind layers` as --contract"
        raise BuildError(Finding("the selection", what, fix))
    package: dict[str, str | bytes] = {
        "__init__.py": f'"""Quantized mixture-of-experts layers, by Groupwise {version}."""\n',
        **library,
        **{f"generated/{path}": text for path, text in modules.items()},
        **{f"cache/{path}": content for path, content in (cache or {}).items()},
    }
    files: dict[str, str | bytes] = {
        "pyproject.toml": pyproject(name, version, package),
        "README.md": readme(name, version, manifest, cached=bool(cache)),
        **{f"{name}/{path}": package[path] for path in sorted(package)},
    }
    # The inventory first: it is how a bundle knows a folder as its own after an interruption.
    return {INVENTORY: _inventory(version, files), **files}


def library() -> dict[str, str]:
    """The runtime and its leaves, which are copied as they are."""
    package = Path(__file__).parents[1]
    paths = [*(package / "runtime").rglob("*.py"), *(package / name for name in LEAVES)]
    return {p.relative_to(package).as_posix(): p.read_text(encoding="utf-8") for p in paths}


def compiled(directory: Path, modules: Mapping[str, str]) -> dict[str, bytes]:
    """The kernels of emitted modules in a Triton cache. Raises BuildError where it holds none of
    them. What else lies there stays: others' kernels, and what was built for one host alone.
    """
    entries = json.loads(modules["manifest.json"])["entries"]
    groups = {_group(each["symbol"]) for each in entries}
    try:
        keys = {
            path.parent
            for path in directory.glob(f"*/{GROUP}*.json")
            if KEY.fullmatch(path.parent.name) and path.name in groups
        }
        paths = [path for key in sorted(keys) for path in sorted(key.iterdir()) if path.is_file()]
        files = {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise BuildError(Finding(str(error.filename), what, "pass another --cache DIR")) from error
    if not files:
        what = "holds no kernel that Triton compiled of these modules"
        fix = "fill it by `python -m generator prefill --cache DIR`"
        raise BuildError(Finding(str(directory), what, fix))
    return files


def held(symbols: Iterable[str], cache: Iterable[str]) -> int:
    """Of how many kernels a cache of these files holds one or more."""
    groups = {path.rpartition("/")[2] for path in cache}
    return sum(_group(symbol) in groups for symbol in symbols)


def _group(symbol: str) -> str:
    """The file in which Triton lists the others of one kernel."""
    return f"{GROUP}{symbol[:NAME_LENGTH]}.json"


def _refuse_name(name: str) -> None:
    """It names a distribution, a package that stands beside others, and a namespace of torch."""
    if not re.fullmatch(r"[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9])?", name) or keyword.iskeyword(name):
        what = "is no name for a package"
    elif name.lower() in {each.lower() for each in TAKEN | sys.stdlib_module_names}:
        what = "is taken"
    else:
        return
    fix = "use a word of letters, digits and inner underscores, such as groupwise_moe"
    raise BuildError(Finding(f"--name {name}", what, fix))


def _inventory(version: str, files: Iterable[str]) -> str:
    data = {"groupwise_bundle": version, "files": sorted(files)}
    return json.dumps(data, indent=0) + "\n"


def _listed(directory: Path) -> set[str] | None:
    """What a bundle wrote into a folder; None where none did."""
    try:
        data = json.loads((directory / INVENTORY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(data, dict) and data.keys() == {"groupwise_bundle", "files"}
    return {INVENTORY, *data["files"]} if ours else None


def _foreign(directory: Path, stale: Sequence[str]) -> list[str]:
    """Not what building a wheel left, which setuptools would pack again beside the new files."""
    listed = _listed(directory) or set()
    return [
        path
        for path in stale
        if not (path.startswith("build/lib/") or path.partition("/")[0].endswith(".egg-info"))
        and listed.isdisjoint((path, _finished(path)))
    ]


def _finished(path: str) -> str:
    """The file that a killed bundle was writing when it left `path`."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{name[1:].rpartition('.')[0]}"


BUNDLE = Owner(
    verb="bundle",
    mark=INVENTORY,
    made=lambda directory: _listed(directory) is not None,
    foreign=_foreign,
)
