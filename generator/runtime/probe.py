"""Does the device (or the interpreter) at hand keep the arithmetic's promises? One finding a line.

The kernels here are the smallest that use each promised operation the way emitted modules do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from . import reference
from .device import current, here

LARGEST_TILE = (128, 128, 512)  # M, N, K of the largest tile that specs search
STEP_K = 128  # K of one dot; the tile's sum runs through the accumulator
CASES = 1 << 16  # random operands of each elementwise operation


@dataclass(frozen=True, slots=True)
class Result:
    """One promise and whether it holds here."""

    promise: str
    holds: bool
    detail: str
    fix: str  # what to use where it does not

    def __str__(self) -> str:
        end = self.detail if self.holds else f"{self.detail}; {self.fix}"
        return f"{'ok    ' if self.holds else 'BROKEN'}  {self.promise}: {end}"


@triton.jit
def _dot(
    a_ptr,  # int8 or fp16 [M, K]
    b_ptr,  # of the same type [N, K]
    c_ptr,  # int32 or fp32 [M, N]
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    STEP: tl.constexpr,
):
    m, n, k = tl.arange(0, M)[:, None], tl.arange(0, N)[:, None], tl.arange(0, STEP)[None, :]
    c = tl.zeros((M, N), dtype=c_ptr.dtype.element_ty)
    for _ in range(K // STEP):
        a = tl.load(a_ptr + m * K + k)
        b = tl.load(b_ptr + n * K + k)
        c = tl.dot(a, tl.trans(b), c, out_dtype=c_ptr.dtype.element_ty)
        k += STEP
    tl.store(c_ptr + m * N + tl.arange(0, N)[None, :], c)


@triton.jit
def _elementwise(
    a_ptr,  # fp32
    b_ptr,  # fp32
    c_ptr,  # fp32
    fma_ptr,  # fp32
    quotient_ptr,  # fp32
    bf16_ptr,  # bf16
    fp16_ptr,  # fp16
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    a, b, c = tl.load(a_ptr + i), tl.load(b_ptr + i), tl.load(c_ptr + i)
    tl.store(fma_ptr + i, tl.fma(a, b, c))
    tl.store(quotient_ptr + i, tl.div_rn(a, b))
    tl.store(bf16_ptr + i, a.to(tl.bfloat16))
    tl.store(fp16_ptr + i, a.to(tl.float16))


@triton.jit
def _amax(
    x_ptr,  # fp32 [N]
    amax_ptr,  # int32 [1]
    N: tl.constexpr,
):
    x = tl.load(x_ptr + tl.arange(0, N))
    tl.atomic_max(amax_ptr, tl.max(tl.abs(x).to(tl.int32, bitcast=True), axis=0))


def probe() -> Iterator[Result]:
    """All promises, on the GPU if there is one, else under the interpreter."""
    device = here()
    with current(device):
        yield _int8_dot(device)
        yield from _fp16_dot(device)
        yield from _arithmetic(device)
        yield _atomic_max(device)


def _product(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    m, n, k = a.shape[0], b.shape[0], a.shape[1]
    c = torch.empty(m, n, dtype=dtype, device=a.device)
    _dot[(1,)](a, b, c, m, n, k, min(k, STEP_K), num_warps=8)
    return c


def _int8_dot(device: torch.device) -> Result:
    m, n, k = LARGEST_TILE
    random = torch.Generator(device).manual_seed(0)
    a = torch.randint(-128, 128, (m, k), dtype=torch.int8, device=device, generator=random)
    b = torch.randint(-128, 128, (n, k), dtype=torch.int8, device=device, generator=random)
    a[0], b[0], b[1] = -128, -128, 127
    want = (a.double() @ b.double().T).to(torch.int32)
    wrong = int((_product(a, b, torch.int32) != want).sum())
    return Result(
        f"int8 dot is exact at {m} x {n} x {k}",
        wrong == 0,
        f"{wrong} of {want.numel()} sums differ",
        "use the dot strategy fp16_exact for this target",
    )


def _fp16_dot(device: torch.device) -> Iterator[Result]:
    """The fp16 dot must accumulate in fp32; each pattern shows another way not to."""

    def run(pattern: Callable[[torch.Tensor], torch.Tensor], k: int) -> tuple[bool, str]:
        index = torch.arange(k, device=device, dtype=torch.float32)
        row = pattern(index)
        a, b = row.half().repeat(16, 1), row.abs().half().repeat(16, 1)
        want = (a.double() @ b.double().T)[0, 0].item()
        got = _product(a, b, torch.float32)[0, 0].item()
        return got == want, f"{got:g}, exact {want:g}"

    def a_big_and_a_small(i: torch.Tensor) -> torch.Tensor:
        return torch.where(i == 0, 64.0, torch.where(i == 1, 1.0, 0.0))

    fix = "use the dot strategy rank1 for this target"
    patterns: list[tuple[str, Callable[[torch.Tensor], torch.Tensor], int]] = [
        ("fp16 dot keeps 64 * 64 + 1 = 4097", a_big_and_a_small, 32),
        ("fp16 dot passes 65504", lambda i: torch.full_like(i, 127.0), 32),
        ("fp16 dot of 127 at K = 256 is exact", lambda i: torch.full_like(i, 127.0), 256),
        ("fp16 dot of -128 at K = 256 is exact", lambda i: torch.full_like(i, -128.0), 256),
        ("fp16 dot of alternating signs is exact", lambda i: 127.0 - 255.0 * (i % 2), 256),
    ]
    for promise, pattern, k in patterns:
        holds, detail = run(pattern, k)
        yield Result(promise, holds, detail, fix)


def _arithmetic(device: torch.device) -> Iterator[Result]:
    random = torch.Generator(device).manual_seed(1)

    def patterns() -> torch.Tensor:
        """fp32 values of random bit patterns: NaN, Inf and subnormals included."""
        bits = torch.randint(-(2**31), 2**31, (CASES,), device=device, generator=random)
        return bits.to(torch.int32).view(torch.float32)

    a, b, c = patterns(), patterns(), patterns()
    near = CASES // 2  # half of the cases are of one magnitude, where an fma's rounding shows
    for each in (a, b, c):
        each[near:] = torch.randn(CASES - near, device=device, generator=random)
    out = [torch.empty_like(a) for _ in range(2)]
    out += [torch.empty_like(a, dtype=each) for each in (torch.bfloat16, torch.float16)]
    block = 1024
    _elementwise[(CASES // block,)](a, b, c, *out, block, enable_fp_fusion=False)
    fix = "integer contracts do not hold here; report the device and the Triton version"
    wants = (
        ("fma rounds once", reference.fma(a, b, c)),
        ("division rounds to nearest", a / b),
        ("fp32 to bf16 rounds to nearest even", a.to(torch.bfloat16)),
        ("fp32 to fp16 rounds to nearest even", a.to(torch.float16)),
    )
    for (promise, want), got in zip(wants, out, strict=True):
        same = (got == want) & (torch.signbit(got) == torch.signbit(want))
        wrong = int((~(same | (torch.isnan(got) & torch.isnan(want)))).sum())
        yield Result(promise, wrong == 0, f"{wrong} of {CASES} results differ", fix)


def _atomic_max(device: torch.device) -> Result:
    x = torch.tensor([1.0, float("inf"), float("nan"), -2.0], device=device)
    amax = torch.zeros(1, dtype=torch.int32, device=device)
    _amax[(1,)](x, amax, 4)
    value = amax.view(torch.float32).item()
    return Result(
        "int atomic max of bit patterns keeps NaN",
        value != value,
        f"the maximum of 1, Inf, NaN and -2 is {value}",
        "do not fold the requantization into the up kernel on this target",
    )
