"""The kernel behind the memory ceiling reads all that it is divided by."""

from __future__ import annotations

import torch

from generator.tune.ceilings import READ_BYTES, ceilings
from generator.tune.read_kernel import elements_of_a_program, read
from tests.tune.clocks import ToldTimer
from tests.tune.small import CPU


def test_every_element_is_read_once() -> None:
    size = elements_of_a_program()
    x = torch.randint(-(2**30), 2**30, (2 * size,), dtype=torch.int32)
    sums = torch.zeros(2, dtype=torch.int32)
    read[(2,)](x, sums)
    assert torch.equal(sums, x.view(2, size).sum(dim=1).to(torch.int32))
    assert READ_BYTES // 4 % size == 0  # no element is left over


def test_without_a_gpu_there_are_no_ceilings() -> None:
    assert ceilings(CPU, ToldTimer(), repeat=1) is None
