"""The manifest under test, and the device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from generator.runtime.manifest import Manifest, load
from tests.gpu.cases import covering_layers, edge_layers, real_shapes


def _manifest(config: pytest.Config) -> Manifest:
    chosen = config.getoption("--generated")
    return load(Path(chosen) if chosen else None)


@pytest.fixture(scope="session")
def manifest(pytestconfig: pytest.Config) -> Manifest:
    return _manifest(pytestconfig)


@pytest.fixture(scope="session")
def device() -> torch.device:
    assert torch.cuda.is_available(), "the GPU suite needs a GPU; leave out `-m gpu`"
    return torch.device("cuda")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "real" in metafunc.fixturenames:
        cases = real_shapes(_manifest(metafunc.config))
        metafunc.parametrize("real", cases, ids=[each.name for each in cases])
    if "covering" in metafunc.fixturenames:
        metafunc.parametrize("covering", covering_layers(_manifest(metafunc.config)))
    if "edge_layer" in metafunc.fixturenames:
        metafunc.parametrize("edge_layer", edge_layers(_manifest(metafunc.config)))
