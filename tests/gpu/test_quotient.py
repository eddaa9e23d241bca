"""Beside the middle of two codes, one step divides as a division does: every significand of a
scale, on the GPU. tests/runtime/test_quotient.py says why that is enough.
"""

from __future__ import annotations

import pytest
import torch

from tests.ties import differing

pytestmark = pytest.mark.gpu


def test_every_quotient_beside_a_tie_is_correctly_rounded(device: torch.device) -> None:
    assert differing(device, every=True) == 0
