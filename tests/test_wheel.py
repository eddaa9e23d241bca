"""A wheel holds the generator, its specs and templates, and the shipped modules; installed, it
builds the same bytes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "generator": "generator",
    "generated": "generated",
    "specs": "generator/specs",
    "templates": "generator/templates",
}
SUFFIXES = {".py", ".yaml", ".jinja", ".json"}


def python(*arguments: str, cwd: Path, path: str = "") -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no build folder appears here."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in FOLDERS:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=ignore)
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, folder / "source")
    offline = ("--no-deps", "--no-build-isolation", "--no-index")
    python("-m", "pip", "wheel", *offline, "--wheel-dir", ".", "./source", cwd=folder)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def site(wheel: Path) -> Path:
    """The wheel, installed."""
    target = wheel.parent / "site"
    offline = ("--no-deps", "--no-index", "--no-compile", "--target", str(target))
    python("-m", "pip", "install", *offline, str(wheel), cwd=wheel.parent)
    return target


def test_wheel_holds_every_file_that_a_checkout_holds(wheel: Path) -> None:
    expected = {
        f"{inside}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, inside in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in SUFFIXES
    }
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if ".dist-info/" not in name} == expected


def test_installed_generator_builds_the_same_bytes(site: Path, tmp_path: Path) -> None:
    say = "import generator; print(generator.__file__)"
    assert Path(python("-c", say, cwd=tmp_path, path=str(site)).strip()).is_relative_to(site)
    specs = ("--specs", str(ROOT / "specs"))
    command = ("-m", "generator", "build", *specs, "--out", "generated")
    python(*command, cwd=tmp_path, path=str(site))
    fresh = python("-m", "generator", "check", "--out", str(tmp_path / "generated"), cwd=ROOT)
    assert "is fresh" in fresh


def test_installed_generator_finds_its_own_specs_and_modules(site: Path, tmp_path: Path) -> None:
    fresh = python("-m", "generator", "check", cwd=tmp_path, path=str(site))
    assert fresh.startswith(f"{site / 'generated'} is fresh: ")
