"""Processes that cannot import some libraries, as where they are not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BLOCKER = """\
import sys


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)


sys.meta_path.insert(0, Blocker())
"""


def without(folder: Path, *blocked: str, path: Path) -> dict[str, str]:
    """The environment of a process that finds modules at `path` and cannot import `blocked`."""
    (folder / "sitecustomize.py").write_text(BLOCKER.format(names=set(blocked)), encoding="utf-8")
    return os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{path}"}


def python(
    *arguments: str, environment: dict[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
