"""The sanitizers see this project's kernels: a known mistake must be reported."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from generator.runtime.manifest import Manifest
from tests.gpu import sanitize

pytestmark = pytest.mark.gpu


@pytest.mark.skipif(shutil.which(sanitize.PROGRAM) is None, reason="needs the CUDA toolkit")
@pytest.mark.parametrize(
    ("tool", "mistake", "told"),
    [
        ("memcheck", "step-past", "Invalid __global__ read of size"),
        ("racecheck", "race", "hazard"),
    ],
)
def test_a_mistake_is_reported(manifest: Manifest, tool: str, mistake: str, told: str) -> None:
    done = subprocess.run(
        sanitize.command(tool, manifest, "--mistake", mistake),
        env=sanitize.environment(),
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert told in done.stdout, done.stdout
    errors = sanitize.verdict(tool, done.stdout, done.returncode).errors
    assert errors and done.returncode != 0, done.stdout
