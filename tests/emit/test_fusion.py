"""Contraction is never left to the compiler: with fusion on and off the PTX holds the same float
operations. Compiled for sm_90 without a GPU, in processes that do not interpret.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from generator.emit.outputs import outputs
from generator.lower.program import Selection, program
from generator.spec.load import load
from tests.emit.compiling import ptx_of

ROOT = Path(__file__).parents[2]
ARITHMETIC = r"(?:fma|add|sub|mul|div|ex2|rcp)\.[\w.]*f(?:16|32|64)\w*"
FLUSHING = r"\w[\w.]*\.ftz[\w.]*"
FLOAT_OPERATION = re.compile(rf"\s({ARITHMETIC}|{FLUSHING})\s")
# Without fusion add, sub and mul carry `.rn`, which tells ptxas, too, to leave them alone.
PINNED = re.compile(r"^(add|sub|mul)\.rn\.")

# Float operations of a module as it ships, all IEEE: none approximate, none flushing subnormals.
QUOTIENT = {"fma.rn.f32", "add.rn.f32", "mul.rn.f32", "div.rn.f32"}
SILU = {"fma.rn.f32", "add.rn.f32", "mul.rn.f32"}
MODULES = {
    ("up_w8gn_a8_swiglu_bf16_v1", "sm_90"): SILU,
    ("up_w8g128_a8_swiglu_bf16_v1", "sm_90"): SILU,
    ("up_w4g128_a8_swiglu_bf16_amax_v1", "portable"): SILU,
    ("down_w8g128_a8_bf16_v1", "sm_90"): {"fma.rn.f32", "mul.rn.f32"},
    ("down_w4g320_a8_bf16_v1", "ilu"): {"fma.rn.f32", "mul.rn.f32"},
    ("down_w8g128_a8_bf16_requantbf16_v1", "portable"): QUOTIENT,
    ("quantize_a8_bf16_v1", "portable"): QUOTIENT,
    ("dispatch_a8_bf16_v1", "portable"): QUOTIENT,
    ("combine_bf16_v1", "portable"): {"fma.rn.f32"},
}

FUSIBLE = """\
import triton
import triton.language as tl


@triton.jit
def fusible(
    x_ptr,  # fp32 [1]
    y_ptr,  # fp32 [1]
):
    x = tl.load(x_ptr)
    tl.store(y_ptr, x * x + 1.5)


OPTIONS = {"num_warps": 1, "num_stages": 1, "enable_fp_fusion": False}
"""


def float_operations(path: Path, symbol: str) -> tuple[Counter[str], Counter[str]]:
    """Float operations of a kernel, compiled with fusion and without, by their PTX names."""
    fused, plain = ptx_of(path, symbol, (True, False))
    return Counter(FLOAT_OPERATION.findall(fused)), Counter(FLOAT_OPERATION.findall(plain))


def unpinned(operations: Counter[str]) -> Counter[str]:
    return Counter(PINNED.sub(r"\1.", name) for name in operations.elements())


@pytest.mark.parametrize(("contract", "target"), MODULES)
def test_fusion_changes_no_float_operation(tmp_path: Path, contract: str, target: str) -> None:
    selection = Selection(contracts=(contract,), targets=(target,))
    lowered = program(load(ROOT / "specs"), selection)
    variant = lowered.plans[0].kept[0]
    path = tmp_path / "kernel.py"
    path.write_text(outputs(lowered, ROOT / "templates")[variant.path], encoding="utf-8")
    fused, plain = float_operations(path, variant.symbol)
    assert unpinned(fused) == unpinned(plain)
    names = {name.replace("sub.rn", "add.rn") for name in plain}
    assert names == MODULES[contract, target]


# What the warps with roles of a module do, with every walk: of one scale, of groups, of nibbles.
SPECIALIZED = {
    ("up_w8gn_a8_swiglu_bf16_v1", "specialized"): SILU,
    ("up_w8gn_a8_swiglu_bf16_v1", "pingpong"): SILU,
    ("up_w4g128_a8_swiglu_bf16_v1", "specialized"): SILU,
    ("down_w8g128_a8_bf16_v1", "specialized"): {"fma.rn.f32", "mul.rn.f32"},
}


@pytest.mark.parametrize(("contract", "roles"), SPECIALIZED)
def test_fusion_changes_no_float_operation_of_warps_with_roles(contract: str, roles: str) -> None:
    [path, *_] = sorted((ROOT / "generated").glob(f"*/{contract}/sm_90/*_{roles}*.py"))
    fused, plain = float_operations(path, f"{contract}_sm_90_{path.stem}")
    assert unpinned(fused) == unpinned(plain)
    assert {name.replace("sub.rn", "add.rn") for name in plain} == SPECIALIZED[contract, roles]


def test_count_sees_a_contraction(tmp_path: Path) -> None:
    path = tmp_path / "kernel.py"
    path.write_text(FUSIBLE, encoding="utf-8")
    fused, plain = float_operations(path, "fusible")
    assert fused["fma.rn.f32"] == 1 and plain["fma.rn.f32"] == 0
