"""Every GEMM contract of the matrix alone, over whole groups and a short one, by every plan."""

from __future__ import annotations

import pytest
import torch

from generator.runtime import launch, reference
from generator.runtime.device import current
from generator.runtime.entry import Entry
from generator.runtime.manifest import Layer, Manifest
from generator.runtime.workspace import torch_dtype
from generator.verify.compare import differing_bits
from tests.runtime.gemms import EXPERTS, Operands, operands, run_codes
from tests.runtime.matrix import group_layers
from tests.shapes import ragged

N = 64
WHOLE = (1, 2, 3)  # groups before the short one: int4 planes hold two groups of less than 256


def entry_of(manifest: Manifest, layer: Layer, plan: str, operation: str) -> Entry:
    """The portable module of one stage of a plan."""
    name = next(
        each for each in layer.plan(plan).rows if manifest.contracts[each]["operation"] == operation
    )
    return next(each for each in manifest.by_contract[name] if each.target == "portable")


def lengths(group_k: int | None) -> list[int]:
    """K that leave a tail behind one, two and three groups, and K of one K_UNIT."""
    most = 3 if (group_k or 256) < 256 else 1
    return list(dict.fromkeys([64, *(ragged(group_k, whole) for whole in WHOLE[:most])]))


def gated(given: Operands, layer: Layer) -> torch.Tensor:
    dtype, intermediate = torch_dtype(layer.dtype), torch_dtype(layer.intermediate)
    table = reference.exp_table(dtype, given.codes.device)
    return reference.swiglu(given.sums, dtype, intermediate, table)


def smooth(k: int, device: torch.device) -> torch.Tensor:
    random = torch.Generator(device).manual_seed(5)
    return torch.rand(EXPERTS, k, device=device, generator=random) + 0.5


@pytest.mark.parametrize("name", group_layers())
def test_down_of_codes(built: Manifest, device: torch.device, name: str) -> None:
    layer = built.layer(name)
    entry = entry_of(built, layer, "separate", "down")
    for k in lengths(layer.down_group):
        given = operands(layer, layer.down_group, k, N, device, seed=k)
        got = run_codes(entry, given, N, torch_dtype(layer.dtype))
        assert differing_bits(got, given.sums.to(got.dtype)) == 0, k


@pytest.mark.parametrize("name", group_layers())
def test_down_of_an_activation(built: Manifest, device: torch.device, name: str) -> None:
    """Quantized on its way in: the bits of the separate kernels, rows that are not finite too."""
    layer = built.layer(name)
    entry = entry_of(built, layer, "folded", "down")
    for k in lengths(layer.down_group):
        given = operands(layer, layer.down_group, k, N, device, seed=k)
        random = torch.Generator(device).manual_seed(k)
        a = torch.randn(given.codes.shape, device=device, generator=random)
        a[3], a[4, 1], a[5, k - 1], a[6] = 0.0, float("nan"), float("inf"), 3e38
        a = a.to(torch_dtype(layer.intermediate))
        inv_smooth, experts = smooth(k, device), given.row_expert
        amax = reference.amax_bits(a, inv_smooth, experts)
        got = torch.full((a.shape[0], N), 77.0, dtype=torch_dtype(layer.dtype), device=device)
        tiles = given.tiles(entry.rows_per_program) | {"row_amax": amax}
        with current(device):
            launch.gemm_of_activation(
                entry, a, inv_smooth, given.stored, given.weight_scale, tiles, got
            )
        codes, scale = reference.quantize(a, inv_smooth, experts, layer.rounding)
        y = reference.gemm(
            codes, scale, given.weight, given.weight_scale, experts, layer.down_group
        )
        assert differing_bits(got, y.to(got.dtype)) == 0, k
        assert torch.isnan(got[[4, 5, 6]]).all() and not torch.isnan(got[:4]).any()


@pytest.mark.parametrize("name", group_layers())
def test_up_of_both_plans(built: Manifest, device: torch.device, name: str) -> None:
    layer = built.layer(name)
    separate, folded = (entry_of(built, layer, plan, "up") for plan in ("separate", "folded"))
    for k in lengths(layer.up_group)[-1:]:
        given = operands(layer, layer.up_group, k, 2 * N, device, seed=k)
        want = gated(given, layer)
        assert torch.isfinite(want).all() and len(want.unique()) > 1000
        assert differing_bits(run_codes(separate, given, N, want.dtype), want) == 0
        inv_smooth = smooth(N, device)
        got = torch.full_like(want, 77.0)
        amax = torch.zeros(want.shape[0], dtype=torch.int32, device=device)
        tiles = given.tiles(folded.rows_per_program) | {"row_amax": amax}
        with current(device):
            launch.gemm(
                folded,
                given.codes,
                given.scale,
                given.stored,
                given.weight_scale,
                tiles,
                got,
                inv_smooth=inv_smooth,
            )
        assert differing_bits(got, want) == 0
        assert torch.equal(amax, reference.amax_bits(want, inv_smooth, given.row_expert))
