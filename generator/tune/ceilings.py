"""What the device reaches at best, measured beside the layers that are held against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from generator.tune.read_kernel import WARPS, elements_of_a_program, read
from generator.tune.timing import Call, Sample, Timer, graph_samples
from generator.tune.work import INT8_CEILING_TOPS

READ_BYTES = 1 << 32  # 4 GiB: 70 times the L2 cache of an H200
PRODUCT = 8192  # M, N and K of the int8 product


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What floors are computed of, and what cuBLAS reaches."""

    read_tb_per_s: float  # HBM, measured here
    read_us: Sample
    int8_tops: float  # the stated constant, not measured here
    int_mm_tops: float  # `torch._int_mm`, measured here
    int_mm_us: Sample


def ceilings(device: torch.device, timer: Timer, repeat: int) -> Ceilings | None:
    """None without a GPU. Takes 4 GiB and under a second."""
    if device.type != "cuda":
        return None
    reading = _sample(_reading(device), timer, repeat)
    multiplying = _sample(_multiplying(device), timer, repeat)
    return Ceilings(
        READ_BYTES / reading.median / 1e6,
        reading,
        INT8_CEILING_TOPS,
        2 * PRODUCT**3 / multiplying.median / 1e6,
        multiplying,
    )


def _reading(device: torch.device) -> list[Call]:
    programs = READ_BYTES // 4 // elements_of_a_program()
    x = torch.empty(READ_BYTES // 4, dtype=torch.int32, device=device).random_()
    sums = torch.empty(programs, dtype=torch.int32, device=device)
    return [lambda: read[(programs,)](x, sums, num_warps=WARPS)]


def _multiplying(device: torch.device) -> list[Call]:
    """Four products, so that the ends of a replay do not show."""
    shape = (PRODUCT, PRODUCT)
    a, b = (torch.randint(-128, 128, shape, dtype=torch.int8, device=device) for _ in range(2))
    by_columns = b.t()  # the layout that int8 tensor cores take without a copy
    return [lambda: torch._int_mm(a, by_columns)] * 4


def _sample(calls: Sequence[Call], timer: Timer, repeat: int) -> Sample:
    [sample] = graph_samples([timer.capture(calls)], repeat)
    assert sample is not None  # a GPU has graphs
    return sample
