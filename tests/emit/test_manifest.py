"""What a manifest says of targets and layers is what the specs say, so that the runtime's half can
compile, choose and judge without them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from generator.data import folder
from generator.emit.manifest import SCHEMA, manifest
from generator.lower.program import Program, Selection, program
from generator.runtime import manifest as read
from generator.spec.load import load

SHIPPED = load(folder("specs"))
TARGETS = {target.name: target for target in SHIPPED.targets}


@pytest.fixture(scope="module")
def built() -> Program:
    """One layer for one device, with all that it needs elsewhere."""
    return program(
        SHIPPED,
        Selection(contracts=("layer_w8g128_a8_swiglu_bf16_v1",), targets=("portable", "sm_90")),
    )


@pytest.fixture(scope="module")
def text(built: Program) -> str:
    return manifest(built, folder("templates"))


@pytest.fixture
def data(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


def test_the_writer_and_the_reader_mean_the_same_schema(data: dict[str, Any]) -> None:
    assert data["schema"] == SCHEMA == read.SCHEMA


def test_every_target_is_described_built_or_not(data: dict[str, Any]) -> None:
    assert list(data["targets"]) == list(TARGETS)
    for name, target in TARGETS.items():
        facts = data["targets"][name]
        assert facts["registers"] == target.registers
        assert facts["shared_memory"] == target.shared_memory
        assert facts["matrix"] == [
            {"name": unit.name, "block_m": unit.block_m} for unit in target.matrix
        ]
        assert facts["dots"] == list(target.dots)


def test_compilers_have_the_warps_of_their_own_back_end(data: dict[str, Any]) -> None:
    """Not those of the device that they stand in for."""
    warps = {}
    for name, target in TARGETS.items():
        compiler = data["targets"][name]["compiler"]
        if target.compiler == "none":
            assert compiler is None
            continue
        assert (compiler["backend"], compiler["arch"]) == (
            target.compiler.backend,
            target.compiler.arch,
        )
        warps[name] = compiler["warp_size"]
    assert {name for name, size in warps.items() if size == 64} == {"gfx942"}
    assert set(warps.values()) == {32, 64}
    assert TARGETS["ilu"].warp_size == 64 and warps["ilu"] == 32


def test_layers_name_their_spec(built: Program, data: dict[str, Any]) -> None:
    for layer in built.layers:
        axes = data["layers"][layer.contract.name]["axes"]
        assert axes == layer.contract.axes()
        assert axes["spec"] == layer.contract.spec == "w8a8"


def test_what_is_written_is_read_back(built: Program, text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    there = read.load(tmp_path)
    for name, target in TARGETS.items():
        assert there.targets[name].registers == target.registers
        assert there.targets[name].matrix == tuple((u.name, u.block_m) for u in target.matrix)
        compiler = there.targets[name].compiler
        assert (compiler is None) == (target.compiler == "none")
    kept = [variant for plan in built.plans for variant in plan.kept]
    assert list(there.by_symbol) == [variant.symbol for variant in kept]
    assert {layer.spec for layer in there.layers.values()} == {"w8a8"}


def test_records_change_no_manifest_but_by_what_is_kept(text: str) -> None:
    """It is a function of what is emitted: figures of compilers stay in the specs folder."""
    assert '"stack"' not in text and "triton3" not in text
