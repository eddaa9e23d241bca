"""Random layers of the manifest against the oracle, on the GPU.

`-m gpu` runs them, `-m "gpu and not nightly"` leaves them out; GROUPWISE_EXAMPLES says how many.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generator.runtime.manifest import Manifest
from tests.random_layers import EXAMPLES, check_random_layer, random_layers

pytestmark = [pytest.mark.gpu, pytest.mark.nightly]

MOST_TOKENS = 400  # up to three row tiles of the largest for one expert


@settings(
    deadline=None,
    max_examples=EXAMPLES,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example],
)
@given(data=st.data())
def test_random_layers(manifest: Manifest, device: torch.device, data: st.DataObject) -> None:
    check_random_layer(data.draw(random_layers(manifest, MOST_TOKENS)), manifest, device)
