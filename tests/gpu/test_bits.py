"""Every module of the manifest against the oracle, on the GPU."""

from __future__ import annotations

import pytest
import torch

from generator.runtime.layer import run_rows, run_tokens
from generator.runtime.manifest import Manifest
from generator.runtime.pack import pack
from generator.verify.cases import Shape
from generator.verify.inputs import seed_state, sorted_rows, tokens
from generator.verify.stages import Checked, check_stages, check_variants
from tests.gpu.cases import Real, covering_shape, uncovered_contracts

pytestmark = pytest.mark.gpu


def calls(name: str, shape: Shape, manifest: Manifest, device: torch.device) -> list[Checked]:
    layer = manifest.layer(name)
    packed = pack(seed_state(layer, shape, device, seed=7), layer)
    batch = tokens(layer, shape, device, seed=7)
    run = run_tokens(packed, batch.hidden, batch.ids, batch.weights, manifest)
    first = Checked(packed, layer, run, batch.hidden, ids=batch.ids, weights=batch.weights)
    rows, counts = sorted_rows(batch, shape.experts)
    run = run_rows(packed, rows, counts, manifest)
    return [first, Checked(packed, layer, run, rows, counts=counts)]


def test_real_shapes(real: Real, manifest: Manifest, device: torch.device) -> None:
    """The variants that selection takes, and every other one that accepts the shape."""
    for checked in calls(real.layer, real.shape, manifest, device):
        results = [*check_stages(checked), *check_variants(checked, manifest)]
        assert not [each for each in results if each.different]


def test_every_variant(covering: str, manifest: Manifest, device: torch.device) -> None:
    for checked in calls(covering, covering_shape(covering, manifest), manifest, device):
        results = [*check_stages(checked), *check_variants(checked, manifest)]
        assert not [each for each in results if each.different]


def test_every_contract_is_run(manifest: Manifest) -> None:
    assert not uncovered_contracts(manifest)
