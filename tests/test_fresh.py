"""generated/ is what the specs, the templates and the generator say now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from generator.cli import main

ROOT = Path(__file__).parents[1]
MOST_MODULES = 150  # committed text that a person can still review


def test_generated_modules_are_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["check", "--specs", str(ROOT / "specs")])
    said = capsys.readouterr()
    assert code == 0, said.out + said.err
    assert f"{ROOT / 'generated'} is fresh" in said.out


def test_shipped_modules_are_few() -> None:
    modules = list((ROOT / "generated").glob("*/*/*/*.py"))
    assert 0 < len(modules) < MOST_MODULES


def test_build_does_not_import_torch_or_triton(tmp_path: Path) -> None:
    build = ["build", "--contract", "layer_w8g128_a8_swiglu_bf16_v1", "--out", str(tmp_path)]
    code = (
        f"import sys; from generator.cli import main; main({build});"
        "sys.exit(', '.join({'torch', 'triton'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == ""
    assert (tmp_path / "manifest.json").is_file()
