"""Figures are read off machine code as compilers write it; the excerpts are of real kernels."""

from __future__ import annotations

import struct

import pytest

from generator.aot.binary import amd, code_bytes, nvidia

USAGE = """
 Function down_w8g320:
  REG:126 STACK:8 SHARED:1024 LOCAL:0 CONSTANT[0]:616 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
PTX = """
mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32 { %r1 }, { %r2 };
mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32 { %r1 }, { %r2 };
wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 { %r1 }, %r2;
wgmma.commit_group.sync.aligned;
tcgen05.mma.cta_group::1.kind::i8 [ %r1 + 0 ], %rd1;
@%p1 ld.global.v4.b32 { %r1, %r2, %r3, %r4 }, [ %rd1 + 0 ];
@%p1 ld.global.L1::evict_last.b8 { %rs1 }, [ %rd1 + 0 ];
ld.global.b32 { %r1 }, [ %rd1 + 0 ];
st.global.v4.b32 [ %rd1 + 0 ], { %r1, %r2, %r3, %r4 };
ld.shared.v4.b32 { %r1, %r2, %r3, %r4 }, [ %r5 + 0 ];
cp.async.cg.shared.global [ %r1 + 0 ], [ %rd1 + 0 ], 0x10, %r2;
cp.async.ca.shared.global [ %r1 + 0 ], [ %rd1 + 0 ], 0x8, %r2;
cp.async.commit_group;
tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%r1], 64;
"""
GCN = """
\tbuffer_load_dwordx4 v[2:5], v1, s[4:7], 0 offen
\tbuffer_load_dword v1, s[4:7], 0 offen lds
\tglobal_load_ubyte v1, v0, s[2:3]
\tglobal_load_lds_dwordx4 v[2:3], off
\tv_mfma_i32_32x32x16_i8 v[0:15], v[16:17], v[18:19], v[0:15]
\tbuffer_store_dwordx2 v[2:3], v1, s[4:7], 0 offen
; codeLenInByte = 11500
; NumVgprs: 166
; NumAgprs: 32
    .private_segment_fixed_size: 12
    .sgpr_count:     46
"""


def test_nvidia() -> None:
    figures = nvidia(USAGE, 4096, PTX, shared=30720)
    assert (figures.registers, figures.stack, figures.shared) == (126, 8, 30720)
    assert figures.code == 4096
    assert figures.loads == {"1": 1, "4": 1, "16": 1}
    assert figures.copies == {"8": 1, "16": 1}
    assert figures.matrix == {
        "mma m16n8k32 s32 s8 s8 s32": 2,
        "wgmma m64n128k32 s32 s8 s8": 1,
        "tcgen05 kind::i8": 1,
    }


def test_code_is_what_executable_sections_hold() -> None:
    header = struct.pack("<5s35xQ10xHH2x", b"\x7fELF\x02", 64, 64, 2)
    code = struct.pack("<8xQ16xQ24x", 4 | 2, 1024)
    data = struct.pack("<8xQ16xQ24x", 2, 512)
    assert code_bytes(header + code + data) == 1024
    with pytest.raises(ValueError, match="no 64-bit ELF file"):
        code_bytes(b"MZ" + header[2:])


def test_amd() -> None:
    figures = amd(GCN, shared=30720)
    assert (figures.registers, figures.accumulators, figures.scalars) == (166, 32, 46)
    assert (figures.stack, figures.shared, figures.code) == (12, 30720, 11500)
    assert figures.loads == {"1": 1, "16": 1}
    assert figures.copies == {"4": 1, "16": 1}
    assert figures.matrix == {"mfma i32_32x32x16_i8": 1}


def test_newer_amd_names_of_loads() -> None:
    text = GCN.replace("global_load_ubyte", "global_load_u8").replace(
        "dwordx4 v[2:5]", "b128 v[2:5]"
    )
    assert amd(text, shared=0).loads == {"1": 1, "16": 1}


def test_a_load_of_unknown_width_is_an_error_and_no_guess() -> None:
    with pytest.raises(KeyError):
        amd(GCN.replace("ubyte", "nibble"), shared=0)
