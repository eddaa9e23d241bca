"""Random layers against the oracle: 200 each time, GROUPWISE_EXAMPLES or 10000 a night."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generator.runtime.manifest import Manifest
from tests.random_layers import EXAMPLES, check_random_layer, random_layers

ANY = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example]
)


def check_one(
    built: Manifest, shipped: Manifest, device: torch.device, data: st.DataObject
) -> None:
    manifest = shipped if data.draw(st.integers(0, 3), label="shipped at 0") == 0 else built
    check_random_layer(data.draw(random_layers(manifest)), manifest, device)


@settings(ANY, max_examples=200, derandomize=True)
@given(data=st.data())
def test_random_layers(
    built: Manifest, shipped: Manifest, device: torch.device, data: st.DataObject
) -> None:
    """Of the test matrix, and of the shipped modules: groups that differ, and fp16 with groups."""
    check_one(built, shipped, device, data)


@pytest.mark.nightly
@settings(ANY, max_examples=EXAMPLES, print_blob=True)
@given(data=st.data())
def test_many_random_layers(
    built: Manifest, shipped: Manifest, device: torch.device, data: st.DataObject
) -> None:
    check_one(built, shipped, device, data)
