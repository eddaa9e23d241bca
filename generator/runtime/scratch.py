"""Scratch memory of kernels that copy by TMA: 128 bytes a program for each of their tensor maps,
which the kernel writes before it uses them.

Triton asks an allocator for it at every launch, and has none by default.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import TypeVar

import torch
import triton

Result = TypeVar("Result")


def _allocate(size: int, alignment: int, stream: int | None) -> torch.Tensor:
    """Bytes on the current device, for the current stream; torch aligns all it allocates, and
    CUDA graphs keep it.
    """
    return torch.empty(size, dtype=torch.uint8, device="cuda")


def with_scratch(start: Callable[[], Result]) -> Result:
    """Launch what needs scratch memory, from torch's allocator. What callers have set as Triton's
    allocator is theirs again after.
    """
    context = copy_context()
    context.run(triton.set_allocator, _allocate)
    return context.run(start)
