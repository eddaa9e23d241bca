"""Random layers against the oracle: 200 each time, 10000 a night."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generator.runtime.manifest import Manifest
from tests.random_layers import check_random_layer, random_layers

ANY = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example]
)


@settings(ANY, max_examples=200, derandomize=True)
@given(data=st.data())
def test_random_layers(built: Manifest, device: torch.device, data: st.DataObject) -> None:
    check_random_layer(data.draw(random_layers(built)), built, device)


@pytest.mark.nightly
@settings(ANY, max_examples=10_000, print_blob=True)
@given(data=st.data())
def test_many_random_layers(built: Manifest, device: torch.device, data: st.DataObject) -> None:
    check_random_layer(data.draw(random_layers(built)), built, device)
