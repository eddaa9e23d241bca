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
from typing import Any

from generator.emit.sync import Owner
from generator.errors import BuildError, Finding

LEAVES = ("conditions.py", "errors.py", "formats.py", "packing.py")

# Packages and torch namespaces that a bundle would hide or meet.
TAKEN = {"aten", "generator", "generated", "groupwise", "prim"}
TAKEN |= {"numpy", "safetensors", "torch", "triton"}

# The lowest versions are those of pyproject.toml.
DEPENDENCIES = ("torch>=2.10", "triton>=3.6")
EXTRAS = {"interpreter": "numpy>=1.26", "files": "safetensors>=0.4"}

INVENTORY = "bundle.json"  # what a bundle wrote, hence what the next one may remove
KEY = re.compile(r"[A-Z2-7]{52}")  # a folder of Triton's cache: a sha256 in base32


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
        "pyproject.toml": _pyproject(name, version, package),
        "README.md": _readme(name, version, manifest, cached=bool(cache)),
        **{f"{name}/{path}": package[path] for path in sorted(package)},
    }
    # The inventory first: it is how a bundle knows a folder as its own after an interruption.
    return {INVENTORY: _inventory(version, files), **files}


def library() -> dict[str, str]:
    """The runtime and its leaves, which are copied as they are."""
    package = Path(__file__).parents[1]
    paths = [*(package / "runtime").rglob("*.py"), *(package / name for name in LEAVES)]
    return {p.relative_to(package).as_posix(): p.read_text(encoding="utf-8") for p in paths}


def compiled(directory: Path) -> dict[str, bytes]:
    """The files of a Triton cache. Raises BuildError where it holds no kernel."""
    try:
        paths = [
            path
            for path in sorted(directory.glob("*/*"))
            if KEY.fullmatch(path.parent.name) and path.is_file()
        ]
        files = {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise BuildError(Finding(str(error.filename), what, "pass another --cache DIR")) from error
    if not any(path.name.startswith("__grp__") for path in paths):
        what = "holds no kernel that Triton compiled"
        fix = "pass what TRITON_CACHE_DIR named in a process that ran the layers"
        raise BuildError(Finding(str(directory), what, fix))
    return files


def _refuse_name(name: str) -> None:
    """It names a distribution, a package that stands beside others, and a namespace of torch."""
    if not re.fullmatch(r"[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9])?", name) or keyword.iskeyword(name):
        what = "is no name for a package"
    elif name in TAKEN | sys.stdlib_module_names:
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


def _pyproject(name: str, version: str, package: Iterable[str]) -> str:
    packages = sorted(
        ".".join([name, *path.split("/")[:-1]])
        for path in package
        if path.rpartition("/")[2] == "__init__.py"
    )
    extras = "".join(f'{extra} = ["{needs}"]\n' for extra, needs in EXTRAS.items())
    return f"""\
# Written by `python -m generator bundle`; bundle again rather than edit.

[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "{version}"
description = "Quantized mixture-of-experts layers: emitted kernels and their runtime"
readme = "README.md"
license = "Apache-2.0"
requires-python = ">=3.10"
dependencies = {json.dumps(DEPENDENCIES)}

[project.optional-dependencies]
{extras}
[tool.setuptools]
packages = {json.dumps(packages)}

[tool.setuptools.package-data]
"{name}" = ["cache/*/*"]
"{name}.generated" = ["**/*.py", "manifest.json"]
"""


def _readme(name: str, version: str, manifest: Mapping[str, Any], *, cached: bool) -> str:
    built = list(dict.fromkeys(entry["target"] for entry in manifest["entries"]))
    layers = "".join(
        f"| `{layer}` | {', '.join(target for target in built if target in data['selection'])} |\n"
        for layer, data in manifest["layers"].items()
    )
    return f"""\
# {name}

Quantized mixture-of-experts layers for serving, written by `python -m generator bundle` of
Groupwise {version}: {len(manifest["entries"])} emitted kernels in `{name}/generated/`, and in
`{name}/runtime/` what packs weights, routes tokens, picks kernels and launches them. To change
anything, bundle again.

| layer | targets |
| --- | --- |
{layers}
A device that is none of the targets, and a shape that its own target does not take, run the
modules of `portable`.

## Use

```python
from {name}.runtime.module import QuantMoE

moe = QuantMoE(
    "{next(iter(manifest["layers"]))}",
    experts=128,
    top_k=8,
    hidden=2048,
    intermediate=768,
    device="cuda",
)
moe.load_state_dict(state)  # strict; see QuantExperts for names and shapes
y = moe(hidden)  # [tokens, hidden]
```

It needs {" and ".join(DEPENDENCIES)}. `{name}[interpreter]` adds numpy, which Triton's CPU
interpreter needs where there is no GPU; `{name}[files]` adds safetensors, which
`{name}.runtime.pack` needs to save packed weights and to load them.

Build a wheel, from outside, so that it does not land among these files:

    pip wheel --no-deps DIR

## Compiled kernels

{_cached(name) if cached else _uncached()}"""


def _cached(name: str) -> str:
    return f"""\
`{name}/cache/` holds kernels that Triton has compiled. Before the first layer,

```python
from {name}.runtime.cache import install

install()
```

copies those that are missing into Triton's cache (`TRITON_CACHE_DIR`), and serving compiles none
of them. Triton looks a kernel up by a key that holds the hash of Triton's own library: the cache
serves the very wheel of Triton that filled it, and any other compiles anew.
"""


def _uncached() -> str:
    return """\
This bundle holds none, so Triton compiles each at its first launch. `python -m generator bundle
--cache DIR` takes along what a Triton cache holds.
"""
