"""fp32 fma and bf16 conversions in numpy, correctly rounded: what Triton's interpreter lacks.

Imported only where the interpreter runs, so that a GPU server needs no numpy.
"""

from __future__ import annotations

import numpy as np


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
