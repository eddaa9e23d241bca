"""Triton's CPU interpreter: switched on where there is no GPU, and its arithmetic made exact.

Triton reads TRITON_INTERPRET when it is first imported, so `prepare` runs before anything imports
triton. The interpreter of Triton 3.6 to 3.8 rounds `tl.fma` twice, and all versions up to 3.9
truncate fp32 -> bf16 and flush bf16 subnormals; `install` replaces both by exact versions. `probe`
checks that they took.
"""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import numpy as np
import torch

from generator.errors import Finding, LaunchError

FLAG = "TRITON_INTERPRET"


def active() -> bool:
    """Whether emitted kernels run under the interpreter, by the words that Triton takes for yes."""
    return os.environ.get(FLAG, "").lower() in ("1", "true", "yes", "on", "y")


def prepare() -> None:
    """Choose GPU or interpreter for this process. Raises LaunchError where triton was imported too
    early.
    """
    if FLAG not in os.environ and not torch.cuda.is_available():
        if "triton" in sys.modules:
            raise LaunchError(
                Finding(
                    "generator.runtime",
                    "there is no GPU, and triton was imported before its interpreter was chosen",
                    f"export {FLAG}=1, or import generator.runtime first",
                )
            )
        os.environ[FLAG] = "1"
    if active():
        install()


def quiet() -> AbstractContextManager[object]:
    """NaN, Inf and overflow are values here, as on a GPU; numpy need not report them."""
    return np.errstate(all="ignore")


def fma_fp32(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """fp32 a * b + c with one rounding, by rounding the float64 sum to odd.

    Source: Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", IEEE TC 57(4), 2008.
    The product of two fp32 values is exact in float64; the error of the sum (Knuth's TwoSum) says
    which way its last bit must go.
    """
    product, addend = np.asarray(a, np.float64) * b, np.asarray(c, np.float64)
    product, addend = np.broadcast_arrays(product, addend)
    total = product + addend
    part = total - product
    error = (product - (total - part)) + (addend - part)
    bits = total.view(np.int64)
    to_odd = (error != 0) & ((bits & 1) == 0) & np.isfinite(total)
    bits = np.where(to_odd, np.where((error > 0) == (total > 0), bits + 1, bits - 1), bits)
    return bits.view(np.float64).astype(np.float32)


def fp32_to_bf16(bits: np.ndarray) -> np.ndarray:
    """fp32 bit patterns to bf16 bit patterns, to nearest even, subnormals kept, NaN canonical."""
    wide = bits.astype(np.uint64)
    rounded = ((wide + 0x7FFF + ((wide >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where((bits & 0x7FFFFFFF) > 0x7F800000, np.uint16(0x7FC0), rounded)


def bf16_to_fp32(bits: np.ndarray) -> np.ndarray:
    """bf16 bit patterns to fp32 bit patterns: exact."""
    return bits.astype(np.uint32) << np.uint32(16)


@cache
def install() -> None:
    """Replace the interpreter's inexact operations, once."""
    import triton.language as tl
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    original_fma, original_convert = builder.create_fma, interpreter._convert_float

    def create_fma(self: Any, x: Any, y: Any, z: Any) -> Any:
        if z.data.dtype != np.float32:
            return original_fma(self, x, y, z)
        with quiet():
            return interpreter.TensorHandle(fma_fp32(x.data, y.data, z.data), z.dtype.scalar)

    def convert(value: np.ndarray, source: Any, target: Any, rounding: Any) -> Any:
        if source == tl.float32 and target == tl.bfloat16:
            return fp32_to_bf16(value.view(np.uint32))
        if source == tl.bfloat16 and target == tl.float32:
            return bf16_to_fp32(value.view(np.uint16))
        return original_convert(value, source, target, rounding)

    builder.create_fma = create_fma
    interpreter._convert_float = convert
