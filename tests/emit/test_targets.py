"""Every target is a file and no code: its modules compile for it on a machine that has none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from generator.data import folder
from generator.emit.outputs import outputs
from generator.lower.program import Selection, program
from generator.spec.load import load
from generator.spec.model import Target
from tests.emit.compiling import Request, compiled

SHIPPED = load(folder("specs"))
TARGETS = [each for each in SHIPPED.targets if each.compiler != "none"]
CONTRACTS = ("up_w4g128_a8_swiglu_bf16_v1", "down_w8gn_a8_bf16_v1")
# Of a target that has a stand-in, whose GEMMs nobody else compiles: both plans and either format.
STAND_IN_CONTRACTS = (
    "up_w4g128_a8_swiglu_bf16*_v1",
    "down_w4g128_a8_bf16*_v1",
    "up_w8gn_a8_swiglu_bf16*_v1",
    "down_w8gn_a8_bf16*_v1",
)
# What multiplies matrices of integers, or of fp16, in the assembly of a target.
MATRIX = {
    ("cuda", "int8"): r"wgmma\.\S*s32\.s8\.s8|mma\.sync\S*s32\.s8\.s8|tcgen05\.mma\S*kind::i8",
    ("cuda", "fp16_exact"): r"mma\.sync\S*f32\.f16\.f16",
    ("hip", "int8"): r"v_mfma_i32_\w*i8",
}
BYTE_LOADS = re.compile(r"ld\.global\.\w*[bsu]8\b")


def stands_in(target: Target) -> bool:
    """Whether the compiler is that of another device."""
    arch = target.compiler.arch
    return isinstance(arch, int) and target.capability != (arch // 10, arch % 10)


def test_a_shipped_target_has_a_stand_in() -> None:
    assert "ilu" in [each.name for each in TARGETS if stands_in(each)]


@pytest.mark.parametrize("target", TARGETS, ids=lambda each: each.name)
def test_modules_compile_to_matrix_instructions(tmp_path: Path, target: Target) -> None:
    contracts = STAND_IN_CONTRACTS if stands_in(target) else CONTRACTS
    lowered = program(SHIPPED, Selection(contracts=contracts, targets=(target.name,)))
    files = outputs(lowered, folder("templates"))
    requests = []
    for variant in (
        v for each in lowered.plans for v in each.kept[: None if stands_in(target) else 1]
    ):
        path = tmp_path / f"{variant.symbol}.py"
        path.write_text(files[variant.path], encoding="utf-8")
        compiler = target.compiler
        lanes = 64 if compiler.backend == "hip" else 32
        requests.append(Request(str(path), variant.symbol, compiler.backend, compiler.arch, lanes))
    assert len(requests) >= len(contracts)
    for made in compiled(requests):
        text = made.get("ptx") or made["amdgcn"]
        assert re.search(MATRIX[target.compiler.backend, target.fastest_dot], text)
        if stands_in(target):
            continue  # its registers and loads say nothing of the device itself
        assert not BYTE_LOADS.search(text)
        assert not re.search(r"\b(STL|LDL)\b", made.get("sass", ""))
        assert re.findall(r"\.vgpr_spill_count:\s+(\d+)", text) in ([], ["0"])


def test_inline_ptx_unpacks_four_bytes_in_three_instructions(tmp_path: Path) -> None:
    """The seed's two copies of the weights are replaced by a shift and two ands in registers."""
    asked = Selection(contracts=("down_w4g128_a8_bf16_v1",), targets=("sm_90",))
    lowered = program(SHIPPED, asked)
    [variant] = [v for plan in lowered.plans for v in plan.kept][:1]
    path = tmp_path / "kernel.py"
    path.write_text(outputs(lowered, folder("templates"))[variant.path], encoding="utf-8")
    [made] = compiled([Request(str(path), variant.symbol, "cuda", 90, 32)])
    masks = len(re.findall(r"and\.b32 \S+, \S+, 0xF0F0F0F0", made["ptx"]))
    shifts = len(re.findall(r"shl\.b32 \S+, \S+, 4", made["ptx"]))
    assert masks > 0 and masks == 2 * shifts
