"""Each gate stops what it is for, names it, and lets the rest through."""

from __future__ import annotations

from dataclasses import replace

import pytest

from generator.aot.gates import broken
from generator.resources import Figures
from generator.runtime.entry import Entry
from generator.runtime.manifest import Manifest, load

MANIFEST: Manifest = load()
GEMM = next(e for e in MANIFEST.entries if e.target == "sm_90" and e.block_m == 128)
ROWS = next(e for e in MANIFEST.entries if e.contract.startswith("quantize"))
FINE = Figures(
    registers=128,
    accumulators=0,
    scalars=0,
    stack=0,
    shared=49152,
    code=4096,
    matrix={"wgmma m64n128k32 s32 s8 s8": 8},
    loads={"2": 1, "4": 9},
    copies={"16": 24},
    unset=0,
)


def what(entry: Entry, figures: Figures, target: str = "sm_90", triton: str = "3.9.0") -> list[str]:
    return [each.what for each in broken(entry, MANIFEST.targets[target], figures, triton)]


def test_a_variant_within_its_target_passes() -> None:
    assert what(GEMM, FINE) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stack": 8}, "8 bytes of registers spill"),
        ({"unset": 2}, "2 registers are read that nothing has set: the assembler erred"),
        ({"registers": 256}, "256 registers > 255 a thread"),
        ({"registers": 200, "accumulators": 56}, "256 registers > 255 a thread"),
        ({"shared": 232449}, "232449 bytes of shared memory > 232448 a program"),
        ({"loads": {"1": 240}}, "240 loads of a single byte"),
        ({"copies": {"1": 2}}, "2 loads of a single byte"),
        ({"matrix": {}}, "int8 dots are to be wgmma; there is none at all"),
        (
            {"matrix": {"mma m16n8k32 s32 s8 s8 s32": 4, "wgmma m64n128k32 s32 s8 s8": 8}},
            "int8 dots are to be wgmma; there is"
            " mma m16n8k32 s32 s8 s8 s32, wgmma m64n128k32 s32 s8 s8",
        ),
        (
            {"matrix": {"wgmma m64n128k16 f32 f16 f16": 8}},
            "int8 dots are to be wgmma; there is wgmma m64n128k16 f32 f16 f16",
        ),
    ],
)
def test_each_gate_says_what_it_stops(change: dict[str, object], said: str) -> None:
    assert what(GEMM, replace(FINE, **change)) == [said]


def test_every_broken_gate_names_what_should_have_seen_to_it() -> None:
    worst = replace(
        FINE, stack=8, unset=2, registers=300, shared=1 << 20, loads={"1": 1}, matrix={}
    )
    named = [each.rule for each in broken(GEMM, MANIFEST.targets["sm_90"], worst, "3.9.0")]
    assert len(named) == 6 and all(named)


def test_limits_are_those_of_the_target_that_is_compiled_for() -> None:
    portable = next(e for e in MANIFEST.entries if e.target == "portable" and e.dot)
    figures = replace(FINE, shared=100_000, matrix={"mfma i32_32x32x16_i8": 8})
    [said] = what(portable, figures, "gfx942")
    assert said == "100000 bytes of shared memory > 65536 a program"


def test_row_wise_kernels_multiply_no_matrices_and_may_load_bytes() -> None:
    assert what(ROWS, replace(FINE, matrix={}, loads={"1": 4})) == []


def test_an_older_compiler_may_know_an_older_instruction_alone() -> None:
    old, new = "mma m16n8k32 s32 s8 s8 s32", "tcgen05 kind::i8"
    for family, triton, passes in (
        (old, "3.6.0", True),
        (new, "3.7.1", True),
        (new, "3.9.0", True),
        (old, "3.9.0", False),
        ("imma s8", "3.6.0", False),
    ):
        said = what(GEMM, replace(FINE, matrix={family: 4}), "sm_100", triton)
        assert (said == []) is passes, (family, triton)
