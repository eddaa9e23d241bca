"""The GPU keeps the arithmetic's promises."""

from __future__ import annotations

import pytest
import torch

from generator.runtime.probe import probe

pytestmark = pytest.mark.gpu


def test_every_promise_holds(device: torch.device) -> None:
    assert device.type == "cuda"
    assert not [str(each) for each in probe() if not each.holds]
