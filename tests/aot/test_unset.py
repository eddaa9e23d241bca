"""Registers that nothing sets are found in excerpts of real kernels, and registers that something
may set are not.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from generator.aot import binary
from generator.aot.unset import unset
from tests.aot.test_binary import PTX, USAGE

# ptxas 12.8 of `down_w8g320_a8_bf16_v1_sm_90_m16n128k128_w4s1_swap_columns`: UR44 and UR45 are to
# hold UR8's descriptor and what makes it the next one, and nothing has set them.
ERRING = """
        /*0810*/                   USHF.R.U32.HI UR8, URZ, 0x4, UR7 ;
        /*0850*/                   USGXT.U32 UR8, UR8, 0xe ;
        /*0960*/                   USGXT.U32 UR42, UR10, 0xe ;
        /*09e0*/                   UIADD3 UR44, UP0, UR44, 0x2, URZ ;
        /*0a60*/                   UIADD3.X UR45, UR45, -0x7fffffe0, URZ, UP0, !UPT ;
        /*1970*/                   IGMMA.64x16x32.S8.S8 R32, gdesc[UR44], R32 ;
"""
BEFORE = """
        /*0010*/                   S2UR UR7, SR_CgaCtaId ;
        /*0020*/                   UMOV UR10, UR7 ;
        /*0028*/                   UMOV UR8, UR7 ;
        /*0030*/                   UMOV UR46, URZ ;
        /*0040*/                   UMOV UR47, 0x40000040 ;
"""
COPY = """
        /*0900*/                   UMOV UR44, UR8 ;
        /*0910*/              @UP1 UMOV UR45, URZ ;
"""


def test_a_descriptor_that_nothing_set_is_found() -> None:
    assert unset(BEFORE + ERRING) == [44, 45]
    assert unset(BEFORE + COPY + ERRING) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("ULDC.64 UR4, c[0x0][0x208] ;", []),  # two registers
        ("UIADD3.64 UR4, UR6, 0x2, URZ ;", [6]),
        ("UIMAD.WIDE.U32 UR4, UR5, 0x2, URZ ;", [5]),
        ("LDCU.128 UR4, c[0x0][0x380] ;", []),  # four
        ("ULOP3.LUT UP0, UR4, UR5, 0x3, URZ, 0xc0, !UPT ;", [5]),  # a predicate, then the result
        ("@!UP0 UMOV UR4, UR5 ;", [5]),  # that it may be skipped does not count
        ("UISETP.LT.AND UP0, UPT, UR4, UR5, UPT ;", [4, 5]),  # predicates are all it sets
        ("SYNCS.ARRIVE.TRANS64 RZ, [UR4+0x8], RZ ;", [4]),
        ("UTMALDG.2D [UR4], [UR8] ;", [4, 8]),
    ],
)
def test_what_an_instruction_sets_and_reads(code: str, found: list[int]) -> None:
    assert unset(f"        /*0010*/                   {code}\n") == found


def test_a_first_operand_in_registers_leaves_half_of_the_descriptors_unread() -> None:
    tile = "        /*{:04x}*/                   IGMMA.64x16x32.S8.S8 {}, R32 ;\n"
    assert unset(tile.format(16, "R32, gdesc[UR20]")) == [20, 21, 22, 23]
    assert unset(tile.format(16, "R32, R52, gdesc[UR20]")) == [22, 23]


def test_tcgen05_has_an_operand_for_each_descriptor() -> None:
    code = "        /*0010*/                   UTCIMMA gdesc[UR4], gdesc[UR8], tmem[UR9] ;\n"
    assert unset(code) == [4, 5, 8, 9]


LOOP = """
.L_x_1:
        /*0010*/                   UIADD3 UR5, UR4, 0x1, URZ ;
        /*0020*/                   UMOV UR4, UR5 ;
        /*0030*/               @P0 BRA `({}) ;
.L_x_2:
"""


def test_what_a_jump_back_may_bring_counts_as_set() -> None:
    assert unset(LOOP.format(".L_x_1")) == []
    assert unset(LOOP.format(".L_x_2")) == [4]


@pytest.mark.parametrize(
    ("ptx", "read"), [(PTX, 2), (PTX.replace("wgmma", "").replace("tcgen05", ""), 0)]
)
def test_only_kernels_that_find_operands_by_descriptors_are_disassembled(
    ptx: str, read: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(Path(command[0]).name)
        text = USAGE if "-res-usage" in command else BEFORE + ERRING
        return subprocess.CompletedProcess(command, 0, text, "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(binary, "code_bytes", lambda cubin: 4096)
    files = {name: tmp_path / f"kernel.{name}" for name in ("cubin", "ptx")}
    files["cubin"].write_bytes(b"")
    files["ptx"].write_text(ptx, encoding="utf-8")
    assert binary.figures(files, 1024, tmp_path).unset == read
    assert asked == ["cuobjdump", "nvdisasm"][: 1 + (read > 0)]
