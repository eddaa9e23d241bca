"""Figures are read off machine code as compilers write it; the excerpts are of real kernels."""

from __future__ import annotations

import pytest

from generator.aot.binary import amd, nvidia

DUMP = """
 Function down_w8g320:
  REG:126 STACK:8 SHARED:1024 LOCAL:0 CONSTANT[0]:616 TEXTURE:0 SURFACE:0 SAMPLER:0

        /*0000*/                   LDC R1, c[0x0][0x28] ;        /* 0x00000a00ff017b82 */
                                                                 /* 0x000e620000000800 */
        /*0010*/              @!P0 LDG.E.U8 R7, [R2] ;           /* 0x0000000000077919 */
        /*0020*/                   LDG.E.128 R4, [R2] ;          /* 0x00009000ff047b82 */
        /*0030*/                   LDG.E R4, desc[UR4][R2.64] ;  /* 0x00009000ff047b82 */
        /*0040*/               @P1 LDGSTS.E.BYPASS.128 [R9], desc[UR4][R2.64] ;
        /*0050*/                   LDGSTS.E.BYPASS.LTC128B.64 [R9], desc[UR4][R2.64] ;
        /*0060*/                   STG.E.128 [R2], R4 ;
        /*1070*/                   EXIT ;                        /* 0x000000000000794d */
"""
PTX = """
mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32 { %r1 }, { %r2 };
mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32 { %r1 }, { %r2 };
wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 { %r1 }, %r2;
wgmma.commit_group.sync.aligned;
tcgen05.mma.cta_group::1.kind::i8 [ %r1 + 0 ], %rd1;
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
    figures = nvidia(DUMP, PTX, shared=30720)
    assert (figures.registers, figures.stack, figures.shared) == (126, 8, 30720)
    assert figures.code == 0x1070 + 16
    assert figures.loads == {"1": 1, "4": 1, "16": 1}
    assert figures.copies == {"8": 1, "16": 1}
    assert figures.matrix == {
        "mma m16n8k32 s32 s8 s8 s32": 2,
        "wgmma m64n128k32 s32 s8 s8": 1,
        "tcgen05 kind::i8": 1,
    }


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
