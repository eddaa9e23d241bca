"""generated/ is what the specs, the templates and the generator say now."""

from __future__ import annotations

import shutil
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
    [line] = said.out.splitlines()  # more would tell what no tuning file covers
    assert line.startswith(f"{ROOT / 'generated'} is fresh: ")


def test_tuning_that_no_call_reaches_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    specs = shutil.copytree(ROOT / "specs", tmp_path / "specs")
    path = specs / "tuning/h100.yaml"
    text = path.read_text(encoding="utf-8")
    assert "experts: 160" in text
    path.write_text(text.replace("experts: 160", "experts: 161"), encoding="utf-8")
    code = main(["check", "--specs", str(specs)])
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    lines = said.err.splitlines()
    assert len(lines) == text.count("experts: 160")
    assert all("experts=161: no shipped model brings this shape" in line for line in lines)


def test_shipped_modules_are_few() -> None:
    modules = list((ROOT / "generated").glob("*/*/*/*.py"))
    assert 0 < len(modules) < MOST_MODULES


def test_build_does_not_import_torch_or_triton(tmp_path: Path) -> None:
    code = (
        "import sys; from generator.cli import main;"
        f"main(['build', '--out', {str(tmp_path)!r}]);"
        "sys.exit(', '.join({'torch', 'triton'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == ""
    assert (tmp_path / "manifest.json").is_file()
