"""The files of a bundle that are written for it: pyproject.toml and README.md."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

# The lowest versions are those of pyproject.toml.
DEPENDENCIES = ("torch>=2.10", "triton>=3.6")
EXTRAS = {"interpreter": "numpy>=1.26", "files": "safetensors>=0.4"}


def pyproject(name: str, version: str, package: Iterable[str]) -> str:
    """What `pip wheel` reads; `package` holds the paths inside the package."""
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


def readme(name: str, version: str, manifest: Mapping[str, Any], *, cached: bool) -> str:
    """What the package holds, and how to use it."""
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
`{name}.runtime.packed_file` needs to save packed weights and to load them.

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
