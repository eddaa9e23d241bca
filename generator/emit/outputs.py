"""The pure function under build and check: a program and the templates -> {path: text}."""

from __future__ import annotations

from pathlib import Path

from generator.emit.manifest import manifest
from generator.emit.render import Renderer
from generator.errors import BuildError, Finding
from generator.lower.program import Program

PACKAGE_INIT = '"""Emitted kernels, one module a variant, by `python -m generator build`."""\n'


def outputs(program: Program, templates: Path) -> dict[str, str]:
    """Every file below generated/. Raises BuildError where two variants share a path or a
    symbol.
    """
    renderer = Renderer(templates)
    # The manifest first: it is how `sync` knows a folder as its own, even after an interruption.
    files = {"manifest.json": manifest(program, templates), "__init__.py": PACKAGE_INIT}
    symbols: set[str] = set()
    for plan in program.plans:
        for variant in plan.kept:
            if variant.path in files or variant.symbol in symbols:
                raise BuildError(
                    Finding(variant.path, "two variants of one name", "name the differing axis")
                )
            symbols.add(variant.symbol)
            files[variant.path] = renderer.module(variant)
    return files
