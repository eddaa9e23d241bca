"""Every module of the manifest against the oracle, on the GPU."""

from __future__ import annotations

import pytest
import torch

from generator.runtime.device import runs
from generator.runtime.manifest import Manifest
from generator.verify.stages import Checked, check_stages, check_variants
from tests.gpu.cases import (
    Real,
    calls,
    covering_shape,
    plan_names,
    tail_shapes,
    uncovered_contracts,
)

pytestmark = pytest.mark.gpu


def assert_equal(checked: Checked, manifest: Manifest) -> set[tuple[str, str]]:
    """Compare stages and variants; which stage ran which."""
    results = [*check_stages(checked), *check_variants(checked, manifest)]
    assert not [each for each in results if each.different]
    return {(each.stage, each.variant) for each in results}


def bits(out: torch.Tensor) -> torch.Tensor:
    return out.view(torch.int16).clone()


def test_real_shapes(real: Real, manifest: Manifest, device: torch.device) -> None:
    """The variants that selection takes, and every other one that accepts the shape. Both plans
    from tokens; sorted rows have route and quantize kernels of their own, and nothing else.
    """
    layer, outputs = manifest.layer(real.layer), []
    for plans, starts in ((plan_names(layer), ("tokens",)), ((None,), ("rows",))):
        for checked in calls(layer, real.shape, manifest, device, plans=plans, starts=starts):
            assert_equal(checked, manifest)
            if checked.ids is not None:
                outputs.append(bits(checked.run.out))
    assert len(outputs) == len(layer.plans)
    assert all(torch.equal(each, outputs[0]) for each in outputs)


def test_every_variant(covering: str, manifest: Manifest, device: torch.device) -> None:
    layer = manifest.layer(covering)
    shape = covering_shape(covering, manifest)
    for checked in calls(layer, shape, manifest, device, plans=plan_names(layer)):
        assert_equal(checked, manifest)


@pytest.mark.parametrize("operation", ["up", "down"])
def test_every_variant_that_takes_a_tail(
    covering: str, operation: str, manifest: Manifest, device: torch.device
) -> None:
    """K that no group divides: all that accept it, and nothing that could is left out."""
    layer = manifest.layer(covering)
    shape = tail_shapes(covering, manifest)[operation]
    ran: set[tuple[str, str]] = set()
    wanted: set[tuple[str, str]] = set()
    for checked in calls(layer, shape, manifest, device, plans=plan_names(layer)):
        ran |= assert_equal(checked, manifest)
        contract = checked.run.choice[operation].entry.contract
        wanted |= {
            (operation, entry.name)
            for entry in manifest.by_contract[contract]
            if "_tail" in entry.design and runs(entry, manifest.targets[entry.target], device)
        }
    assert wanted <= ran
    group = layer.up_group if operation == "up" else layer.down_group
    assert wanted or group is None or group <= 64


def test_every_contract_is_run(manifest: Manifest) -> None:
    assert not uncovered_contracts(manifest)
