"""Weights as a dot's first operand, and other orders of programs, give the same bits."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from generator.data import folder
from generator.emit.outputs import outputs
from generator.emit.sync import write
from generator.lower.program import Selection, program
from generator.runtime import reference
from generator.runtime.entry import Entry
from generator.runtime.manifest import Layer, Manifest, load
from generator.runtime.workspace import torch_dtype
from generator.spec.load import load as load_specs
from generator.verify.compare import differing_bits
from tests.runtime.gemms import operands, run_codes
from tests.shapes import ragged

LAYERS = [
    f"layer_{each}_a8_swiglu_bf16_v1"
    for each in ("w8gn", "w8g32", "w8g128", "w8g320", "w4g32", "w4g128", "w4g320", "w4gn")
]
ORDERS = ("tiles", "columns", "blocks")
N = 128
TILES = 20  # more than two blocks of row tiles, the last one short


@pytest.fixture(scope="module")
def swapped(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Manifest]:
    """Portable modules whose weights come first, by the order of their programs."""
    found = {}
    for order in ORDERS:
        root: Path = tmp_path_factory.mktemp(order)
        shutil.copytree(folder("specs"), root / "specs")
        portable = root / "specs" / "targets" / "portable.yaml"
        text = portable.read_text(encoding="utf-8")
        for key, value in (
            ("operands: [rows_first]", "operands: [weights_first]"),
            ("gates: [apart]", "gates: [joined]" if order == "blocks" else "gates: [apart]"),
            ("orders: [tiles]", f"orders: [{order}]"),
            ("row_tiles: [32]", "row_tiles: [16]"),
        ):
            assert text.count(key) == 1
            text = text.replace(key, value)
        portable.write_text(text, encoding="utf-8")
        selection = Selection(contracts=tuple(LAYERS), targets=("portable",))
        built = program(load_specs(root / "specs"), selection)
        write(root / "generated", outputs(built, folder("templates")))
        found[order] = load(root / "generated")
    return found


def entry_of(manifest: Manifest, layer: Layer, operation: str, plan: str) -> Entry:
    name = next(
        each for each in layer.plan(plan).rows if manifest.contracts[each]["operation"] == operation
    )
    [entry] = manifest.by_contract[name]
    return entry


def test_designs_are_what_was_asked_for(swapped: Mapping[str, Manifest]) -> None:
    for order, manifest in swapped.items():
        for name in LAYERS:
            for operation in ("up", "down"):
                entry = entry_of(manifest, manifest.layer(name), operation, "separate")
                assert "_swap" in entry.design
                assert order == "tiles" or entry.design.endswith(f"_{order}")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", LAYERS)
def test_down(swapped: Mapping[str, Manifest], device: torch.device, name: str, order: str) -> None:
    manifest = swapped[order]
    layer = manifest.layer(name)
    entry = entry_of(manifest, layer, "down", "separate")
    rows = TILES * entry.rows_per_program - 3 if name == LAYERS[0] else 37
    k = ragged(layer.down_group, 1)
    given = operands(layer, layer.down_group, k, N, device, rows=rows, seed=k)
    got = run_codes(entry, given, N, torch_dtype(layer.dtype))
    assert differing_bits(got, given.sums.to(got.dtype)) == 0


@pytest.mark.parametrize("name", LAYERS)
def test_up(swapped: Mapping[str, Manifest], device: torch.device, name: str) -> None:
    manifest = swapped["blocks"]
    layer = manifest.layer(name)
    entry = entry_of(manifest, layer, "up", "separate")
    k = ragged(layer.up_group, 1)
    given = operands(layer, layer.up_group, k, 2 * N, device, seed=k)
    dtype, intermediate = torch_dtype(layer.dtype), torch_dtype(layer.intermediate)
    table = reference.exp_table(dtype, device)
    want = reference.swiglu(given.sums, dtype, intermediate, table)
    assert differing_bits(run_codes(entry, given, N, want.dtype), want) == 0
