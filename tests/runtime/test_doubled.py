"""A turn of two tiles in a row, of as many groups as they have, has the bits of one after the
other.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from generator.data import folder
from generator.emit.outputs import outputs
from generator.emit.sync import write
from generator.lower.program import Selection, program
from generator.runtime.manifest import load
from generator.runtime.workspace import torch_dtype
from generator.spec.load import load as load_specs
from generator.verify.compare import differing_bits
from tests.runtime.gemms import operands, run_codes

N = 128


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


@pytest.mark.parametrize(
    ("bits", "group", "block_k", "counts"),
    [
        (8, 32, 64, "2 * group_pairs"),
        (8, 64, 128, "2 * group_pairs"),
        (8, 128, 256, "2 * group_pairs"),
        (4, 64, 128, "4 * group_fours"),
        (4, 128, 256, "4 * group_fours"),
        (4, 256, 256, "2 * group_pairs"),
        (4, None, 256, "1"),
    ],
)
def test_two_tiles_a_turn_have_the_bits_of_one(
    tmp_path: Path, device: torch.device, bits: int, group: int | None, block_k: int, counts: str
) -> None:
    name = f"down_w{bits}g{group or 'n'}_a8_bf16_v1"
    loaded = load_specs(specs_of(bits, block_k, tmp_path / "specs"))
    selection = Selection(contracts=(name,), targets=("sm_90",), rivals=4)
    write(tmp_path / "out", outputs(program(loaded, selection), folder("templates")))
    layer = load().layer(f"layer_w{bits}g128_a8_swiglu_bf16_v1")
    given = operands(layer, group, 1024, N, device, rows=18)
    dtype = torch_dtype(layer.dtype)
    entries = [
        each
        for each in load(tmp_path / "out").by_contract[name]
        if each.block_k == block_k and not each.needs_gpu
    ]
    assert {entry.operands for entry in entries} == {"rows_first", "weights_first"}
    for entry in entries:
        assert f"[experts, {counts}, N]" in entry.path.read_text(encoding="utf-8")
        assert differing_bits(run_codes(entry, given, N, dtype), given.sums.to(dtype)) == 0
