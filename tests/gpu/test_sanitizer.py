"""The sanitizer sees this project's kernels: a known error must be reported."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from generator.runtime.manifest import Manifest
from tests.gpu import sanitize

pytestmark = pytest.mark.gpu


@pytest.mark.skipif(shutil.which(sanitize.PROGRAM) is None, reason="needs the CUDA toolkit")
def test_a_step_past_an_allocation_is_reported(manifest: Manifest) -> None:
    done = subprocess.run(
        sanitize.command("memcheck", manifest, "--step-past"),
        env=sanitize.environment(),
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert "Invalid __global__ read of size" in done.stdout, done.stdout
    assert done.returncode != 0
