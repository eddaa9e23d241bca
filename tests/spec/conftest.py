"""Specs folders in temporary places: copies of the shipped one, and ones made of given texts."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from generator.data import folder
from generator.spec.load import load
from generator.spec.model import SpecSet


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    """A copy of the shipped specs folder."""
    return Path(shutil.copytree(folder("specs"), tmp_path / "specs"))


def load_texts(texts: Mapping[str, str]) -> SpecSet:
    """Load a folder of these files: {path below it: text}."""
    with TemporaryDirectory() as directory:
        for name, text in texts.items():
            path = Path(directory) / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return load(Path(directory))
