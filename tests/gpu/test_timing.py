"""Graphs of calls on a GPU."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from generator.tune.timing import timer_for

pytestmark = pytest.mark.gpu


def test_a_replay_reads_what_only_its_calls_hold(device: torch.device) -> None:
    out = torch.zeros(1 << 20, dtype=torch.int32, device=device)
    replay = timer_for(device).capture([partial(out.copy_, torch.full_like(out, 7))])
    assert replay is not None
    _others = [torch.zeros_like(out) for _ in range(4)]  # where freed storage would be
    replay.sample()
    assert bool((out == 7).all())
