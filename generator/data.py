"""Where the data folders `specs` and `templates` are: beside the package in a checkout, inside it
in a wheel.
"""

from __future__ import annotations

from pathlib import Path

from generator.errors import BuildError, Finding

_PACKAGE = Path(__file__).parent


def modules() -> Path:
    """The folder of the shipped modules, whose default the runtime loads."""
    return _PACKAGE.parent / "generated"


def folder(name: str) -> Path:
    """The folder `specs` or `templates`. Raises BuildError where the installation lacks it."""
    for parent in (_PACKAGE.parent, _PACKAGE):
        if (parent / name).is_dir():
            return parent / name
    raise BuildError(
        Finding(f"{_PACKAGE}", f"the data folder `{name}` is missing", "reinstall groupwise")
    )
