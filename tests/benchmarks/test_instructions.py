"""The loop that multiplies most, and what its warps issue beside its matrix instructions."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import instructions
from benchmarks.instructions import line, loops
from generator.errors import BuildError

# As nvdisasm writes: a loop in a loop, a wait that jumps back in it, and a loop of less work.
CODE = """
.L_x_0:
        /*0000*/                   MOV R1, R2 ;
.L_x_1:
        /*0010*/                   IGMMA.64x128x32.S8.S8 R24, gdesc[UR4], R24, gsb0 ;
.L_x_2:
        /*0020*/                   SYNCS.PHASECHK.TRANS64 P0, [R3], R4 ;
        /*0030*/              @!P0 BRA `(.L_x_2) ;
        /*0040*/                   IGMMA.64x128x32.S8.S8 R24, gdesc[UR8], R24 ;
        /*0050*/                   I2FP.F32.S32 R5, R24 ;
        /*0060*/                   I2FP.F32.S32 R6, R25 ;
        /*0070*/               @P1 BRA `(.L_x_1) ;
        /*0080*/                   FFMA R7, R5, R6, R7 ;
        /*0090*/               @P2 BRA `(.L_x_0) ;
.L_x_3:
        /*00a0*/                   IGMMA.64x64x32.S8.S8 R24, gdesc[UR4], R24 ;
        /*00b0*/               @P2 BRA `(.L_x_3) ;
        /*00c0*/                   BRA `(.L_x_4) ;
.L_x_4:
        /*00d0*/                   EXIT ;
"""


def test_loops_that_multiply_and_hold_no_other() -> None:
    found = list(loops(CODE))
    assert [len(each.names) for each in found] == [7, 2]
    assert [dict(each.matrix) for each in found] == [
        {"IGMMA.64x128x32": 2},
        {"IGMMA.64x64x32": 1},
    ]
    # 64 * 128 * 32 products of 4096 a cycle.
    assert [each.cycles for each in found] == [128.0, 32.0]
    assert dict(found[0].others) == {"SYNCS": 1, "BRA": 2, "I2FP": 2}


def test_a_line_tells_the_one_that_multiplies_most() -> None:
    cells = [cell.strip() for cell in line("up", CODE).split("|")[1:-1]]
    assert cells == ["up", "2 IGMMA.64x128x32", "128", "5", "0.04", "2 BRA, 2 I2FP, 1 SYNCS"]


def test_a_kernel_that_does_not_multiply_is_refused() -> None:
    with pytest.raises(BuildError, match="count: has no loop"):
        line("count", CODE.replace("IGMMA", "LDG"))


def test_a_kernel_that_the_cache_lacks_is_an_error_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["instructions", str(tmp_path), "up"])
    with pytest.raises(SystemExit):
        instructions.main()
    said = capsys.readouterr()
    assert "holds 0 kernels of the name up; fill an empty one by" in said.err and not said.out
