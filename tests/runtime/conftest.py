"""Modules to test: the shipped ones, and contracts beyond them built into a temporary folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from generator.data import folder
from generator.emit.outputs import outputs
from generator.emit.sync import write
from generator.lower.program import Selection, program
from generator.runtime import interpreter
from generator.runtime.manifest import Manifest, load
from generator.spec.load import load as load_specs
from tests.runtime.matrix import layer_names


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cpu" if interpreter.active() else "cuda")


@pytest.fixture(scope="session")
def shipped() -> Manifest:
    return load()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Portable modules of every layer in the test matrix."""
    out: Path = tmp_path_factory.mktemp("built") / "generated"
    selection = Selection(contracts=tuple(layer_names()), targets=("portable",))
    write(out, outputs(program(load_specs(folder("specs")), selection), folder("templates")))
    return load(out)
