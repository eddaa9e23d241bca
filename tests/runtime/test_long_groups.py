"""Groups longer than fp32 sums exactly: each is cut at the proven chunk, whatever its tiles."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from generator.data import folder
from generator.emit.outputs import outputs
from generator.emit.sync import write
from generator.lower.program import Selection, program
from generator.runtime.manifest import Manifest, load
from generator.runtime.workspace import torch_dtype
from generator.spec.load import load as load_specs
from generator.verify.compare import differing_bits
from tests.runtime.gemms import operands, run_codes

# Planes of 576, 640 and 544 elements: whole tiles of 64 and of 128, and a remainder after them;
# then blocks of 256 within a group.
GROUPS = (1152, 1280, 1088, 2048)
N = 64
TARGETS = ("portable", "ilu")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Down kernels of these groups by int8 dots, and by fp16 dots whose nibbles are kept times 16
    as well as those that are not.
    """
    root: Path = tmp_path_factory.mktemp("long")
    shutil.copytree(folder("specs"), root / "specs")
    shutil.rmtree(root / "specs" / "models")
    for name in ("w8a8", "w4a8"):
        path = root / "specs" / f"{name}.yaml"
        text = path.read_text(encoding="utf-8")
        old = "group_k: [32, 64, 128, 192, 256, 320, 512, channel]"
        assert text.count(old) == 1
        path.write_text(text.replace(old, f"group_k: {list(GROUPS)}"), encoding="utf-8")
    ilu = root / "specs" / "targets" / "ilu.yaml"
    text = ilu.read_text(encoding="utf-8")
    assert text.count("unpacks: [none, value, shift]") == 1
    ilu.write_text(
        text.replace("unpacks: [none, value, shift]", "unpacks: [none, shift]"), encoding="utf-8"
    )
    layers = tuple(f"layer_w{bits}g{g}_a8_swiglu_bf16_v1" for bits in (8, 4) for g in GROUPS)
    selection = Selection(contracts=layers, targets=TARGETS)
    write(
        root / "generated",
        outputs(program(load_specs(root / "specs"), selection), folder("templates")),
    )
    return load(root / "generated")


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("group", GROUPS)
def test_chunks_have_the_bits_of_int32_sums(
    built: Manifest, device: torch.device, bits: int, group: int
) -> None:
    layer = built.layer(f"layer_w{bits}g{group}_a8_swiglu_bf16_v1")
    name = f"down_w{bits}g{group}_a8_bf16_v1"
    given = operands(layer, group, 2 * group + 64, N, device, rows=18)
    dtype = torch_dtype(layer.dtype)
    want = given.sums.to(dtype)
    entries = built.by_contract[name]
    assert {entry.target for entry in entries} == set(TARGETS)
    assert any("chunk" in (entry.proof or "") for entry in entries)
    for entry in entries:
        assert differing_bits(run_codes(entry, given, N, dtype), want) == 0, entry.symbol
