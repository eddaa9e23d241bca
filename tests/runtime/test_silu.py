"""The emitted up kernel on every bit pattern that a gate of 16 bits can have."""

from __future__ import annotations

import pytest
import torch

from generator.formats import FORMATS
from generator.runtime import launch, reference
from generator.runtime.device import current
from generator.runtime.entry import Entry
from generator.runtime.manifest import Manifest
from generator.runtime.nibbles import planes_of_rows
from generator.runtime.workspace import torch_dtype
from generator.verify.compare import differing_bits
from tests.runtime.matrix import channel_layers

K = {"int8": 64, "int4": 512}  # of whose weights the greatest integer below is a sum


def gates(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Integers and powers of two whose products are all values of a 16-bit dtype."""
    significand = {torch.bfloat16: 256, torch.float16: 2048}[dtype]
    exponents = {torch.bfloat16: range(-133, 121), torch.float16: range(-24, 6)}[dtype]
    scales = [2.0**each for each in exponents] + [2.0**-149, float("inf"), float("nan")]
    return torch.arange(-significand, significand), torch.tensor(scales, dtype=torch.float32)


def run_up(
    entry: Entry, weights: str, totals: torch.Tensor, scale: torch.Tensor, output: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of ones: a gate column's weights sum to its integer, an up column's to 1."""
    device, n, rows, k = scale.device, totals.numel(), scale.numel(), K[weights]
    base, rest = totals // k, totals % k
    weight = base[:, None] + (torch.arange(k, device=device)[None, :] < rest[:, None])
    ups = torch.zeros_like(weight)
    ups[:, 0] = 1
    values = torch.cat([weight, ups]).to(torch.int8)[None]
    stored = planes_of_rows(values, None) if weights == "int4" else values
    assert (weight.sum(1) == totals).all() and (weight.abs() < FORMATS[weights].magnitude).all()
    codes = torch.ones(rows, k, dtype=torch.int8, device=device)
    w_scale = torch.ones(1, 1, 2 * n, dtype=torch.bfloat16, device=device)
    block_m = entry.block_m or 1
    starts = torch.arange(0, rows, block_m, dtype=torch.int32, device=device)
    tiles = {
        "tile_expert": torch.zeros_like(starts),
        "tile_start": starts,
        "tile_end": (starts + block_m).clamp(max=rows),
    }
    out = torch.empty(rows, n, dtype=output, device=device)
    with current(device):
        launch.gemm(entry, codes, scale, stored, w_scale, tiles, out)
    y = reference.gemm(
        codes, scale, values, w_scale, torch.zeros(rows, dtype=torch.int32, device=device), None
    )
    return out, y


@pytest.mark.parametrize("name", channel_layers())
def test_all_gates(built: Manifest, device: torch.device, name: str) -> None:
    layer = built.layer(name)
    dtype = torch_dtype(layer.dtype)
    contract = next(each for each in layer.plans[0].rows if each.startswith("up"))
    totals, scale = (each.to(device) for each in gates(dtype))
    out, y = run_up(built.by_contract[contract][0], layer.weights, totals, scale, torch.float32)
    gate = y[:, : totals.numel()].to(dtype)
    reached = set((gate.view(torch.int16)[~torch.isnan(gate)]).flatten().tolist())
    everything = reference.all_patterns(dtype, device)
    everything = everything[~torch.isnan(everything)]
    assert set(everything.view(torch.int16).tolist()) <= reached
    table = reference.exp_table(dtype, device)
    assert differing_bits(out, reference.swiglu(y, dtype, torch.float32, table)) == 0
