"""A turn of two tiles in a row, of as many groups as they have, has the bits of one after the
other.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from generator.conditions import Multiple
from generator.data import folder
from generator.emit.outputs import outputs
from generator.emit.sync import write
from generator.lower.program import Selection, program
from generator.runtime import reference
from generator.runtime.entry import Entry
from generator.runtime.manifest import load
from generator.spec.load import load as load_specs
from generator.verify.compare import differing_bits
from tests.runtime.gemms import Operands, operands, run_codes

N = 256  # columns of the weights; up has a gate row for each of its own
# Bits of a weight, K of a scale (None: all), tile, K of a turn, and the scales of a row.
TURNS = [
    (8, 32, 64, 64, "2 * group_pairs"),
    (8, 64, 128, 128, "2 * group_pairs"),
    (8, 128, 256, 256, "2 * group_pairs"),
    (4, 32, 64, 128, "4 * group_fours"),
    (4, 64, 128, 256, "4 * group_fours"),
    (4, 128, 256, 512, "4 * group_fours"),
    (4, 256, 256, 512, "2 * group_pairs"),
    (4, None, 256, 512, "1"),
]


def specs_of(bits: int, block_k: int, root: Path) -> Path:
    """The shipped specs with tiles of a length and half of it, and nibbles that the interpreter
    takes apart.
    """
    shutil.copytree(folder("specs"), root)
    for shipped in ("models", "tuning"):
        shutil.rmtree(root / shipped)
    path = root / f"w{bits}a8.yaml"
    text = path.read_text(encoding="utf-8").replace("[value, shift, ptx]", "[value, shift]")
    text, lists = re.subn(r"block_k: \[1, .*\]", f"block_k: [{block_k // 2}, {block_k}]", text)
    assert lists == 2
    path.write_text(text, encoding="utf-8")
    return root


def doubled(name: str, bits: int, block_k: int, root: Path) -> list[Entry]:
    """The designs of a contract that take such tiles."""
    selection = Selection(contracts=(name,), targets=("sm_90",), rivals=4)
    loaded = load_specs(specs_of(bits, block_k, root / "specs"))
    write(root / "out", outputs(program(loaded, selection), folder("templates")))
    found = [each for each in load(root / "out").by_contract[name] if each.block_k == block_k]
    return [each for each in found if not each.needs_gpu]


def of(bits: int, group: int | None, k: int, device: torch.device) -> Operands:
    layer = load().layer(f"layer_w{bits}g128_a8_swiglu_bf16_v1")
    return operands(layer, group, k, N, device, rows=18)


@pytest.mark.parametrize("bits", [8, 4])
def test_gates_are_those_of_one_tile_a_turn(
    tmp_path: Path, device: torch.device, bits: int
) -> None:
    """Apart and joined, whose scales lie two rows of columns apart."""
    entries = doubled(f"up_w{bits}g128_a8_swiglu_bf16_v1", bits, 256, tmp_path)
    assert {entry.gates for entry in entries} == {"apart", "joined"}
    given = of(bits, 128, 3 * 512, device)
    table = reference.exp_table(torch.bfloat16, device)
    want = reference.swiglu(given.sums, torch.bfloat16, torch.bfloat16, table)
    for entry in entries:
        assert differing_bits(run_codes(entry, given, N // 2, torch.bfloat16), want) == 0


@pytest.mark.parametrize(("bits", "group", "block_k", "turn", "scales"), TURNS)
def test_two_tiles_a_turn_have_the_bits_of_one(
    tmp_path: Path,
    device: torch.device,
    bits: int,
    group: int | None,
    block_k: int,
    turn: int,
    scales: str,
) -> None:
    """Of one turn, where scales that come a turn ahead are its own, and of three."""
    name = f"down_w{bits}g{group or 'n'}_a8_bf16_v1"
    entries = doubled(name, bits, block_k, tmp_path)
    assert {entry.operands for entry in entries} == {"rows_first", "weights_first"}
    for k in (turn, 3 * turn):
        given = of(bits, group, k, device)
        want = given.sums.to(torch.bfloat16)
        for entry in entries:
            assert Multiple("K", turn) in entry.requires
            assert f"[experts, {scales}, N]" in entry.path.read_text(encoding="utf-8")
            assert differing_bits(run_codes(entry, given, N, torch.bfloat16), want) == 0
