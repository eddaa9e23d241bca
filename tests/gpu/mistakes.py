"""Kernels that are wrong on purpose: sanitizers must report them, lest silence mean nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from generator.packing import K_UNIT
from generator.runtime import launch
from generator.runtime.manifest import Manifest
from generator.runtime.workspace import torch_dtype

THREADS = 128


def step_past(manifest: Manifest, device: torch.device) -> None:
    """An emitted kernel reads the row of an expert that is not there, far from any allocation."""
    name, contract = next(
        (name, each)
        for name, each in manifest.contracts.items()
        if each["operation"] == "quantize" and each["source"] == "sorted"
    )
    x = torch.ones(1, K_UNIT, dtype=torch_dtype(contract["input"]), device=device)
    absent = torch.full((1,), 1 << 20, dtype=torch.int32, device=device)
    scale = torch.empty(1, device=device)
    entry = manifest.by_contract[name][0]
    launch.quantize(entry, x, x.float(), absent, x.to(torch.int8), scale)
    torch.cuda.synchronize()


@triton.jit
def _race_v1_(x_ptr, out_ptr, THREADS: tl.constexpr):
    """Every thread stores a word of its own where shared memory starts; the sum is there to have
    some. The name has what sanitize.py looks for.
    """
    at = tl.arange(0, THREADS)
    x = tl.load(x_ptr + at)
    x += tl.sum(x)
    stored = tl.inline_asm_elementwise(
        """
        {
            .reg .b32 start;
            mov.u32 start, global_smem;
            st.shared.b32 [start], $1;
            mov.b32 $0, $1;
        }
        """,
        "=r,r",
        [x],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )
    tl.store(out_ptr + at, stored)


def race(_: Manifest, device: torch.device) -> None:
    """Threads of a program store to one word of shared memory, without a barrier."""
    x = torch.arange(THREADS, dtype=torch.int32, device=device)
    _race_v1_[(1,)](x, torch.empty_like(x), THREADS)
    torch.cuda.synchronize()


@dataclass(frozen=True)
class Mistake:
    """What to run, the tool that must report it, and a part of its report."""

    run: Callable[[Manifest, torch.device], None]
    tool: str
    report: str


MISTAKES = {
    "step-past": Mistake(step_past, "memcheck", "Invalid __global__ read of size"),
    "race": Mistake(race, "racecheck", "hazard"),
}
