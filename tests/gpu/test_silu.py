"""silu on the GPU, on all inputs: the up kernel's own helper, run alone."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from generator.runtime import reference
from generator.runtime.manifest import Manifest
from generator.verify.compare import differing_bits

pytestmark = pytest.mark.gpu


@triton.jit
def _apply(silu: tl.constexpr, g_ptr, s_ptr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(s_ptr + i, silu(tl.load(g_ptr + i).to(tl.float32)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_exact_silu_has_the_cpus_bits(
    manifest: Manifest, device: torch.device, dtype: torch.dtype
) -> None:
    exact = [
        entry
        for entry in manifest.entries
        if manifest.contracts[entry.contract].get("exp") == "exact" and entry.target == "portable"
    ]
    g = reference.all_patterns(dtype, device)
    table = reference.exp_table(dtype, torch.device("cpu"))
    want = reference.silu(g.cpu().float(), table)
    got = torch.empty(65536, device=device)
    _apply[(64,)](exact[0].module._silu, g, got, 1024, enable_fp_fusion=False)
    assert differing_bits(got.cpu(), want) == 0
    _apply[(64,)](exact[0].module._silu, g, got, 1024, enable_fp_fusion=True)
    assert differing_bits(got.cpu(), want) == 0
