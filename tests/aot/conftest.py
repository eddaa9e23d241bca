"""Modules of one small layer, emitted once."""

from __future__ import annotations

import pytest

from generator.data import folder
from generator.emit.outputs import outputs
from generator.lower.program import Selection, program
from generator.spec.load import load

LAYER = "layer_w8gn_a8_swiglu_bf16_v1"


@pytest.fixture(scope="session")
def emitted() -> dict[str, str]:
    selection = Selection(contracts=(LAYER,), targets=("portable",))
    return outputs(program(load(folder("specs")), selection), folder("templates"))
