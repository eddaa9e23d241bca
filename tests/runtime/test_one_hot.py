"""One-hot rows give back the decoded weights: a GEMM reads every weight at its place."""

from __future__ import annotations

import pytest
import torch

from generator.runtime import launch
from generator.runtime.device import current
from generator.runtime.manifest import Manifest
from tests.runtime.matrix import group_layers

N = 64


@pytest.mark.parametrize("name", group_layers())
def test_one_hot_rows_decode_the_weights(built: Manifest, device: torch.device, name: str) -> None:
    layer = built.layer(name)
    contract = next(each for each in layer.plans[0].rows if each.startswith("down"))
    entry = built.by_contract[contract][0]
    group = layer.down_group or 128
    k, experts = 2 * group, 2
    weight = torch.randint(-128, 128, (experts, N, k), dtype=torch.int8, device=device)
    # Powers of two keep the product of a weight and its scale exact in bf16.
    groups = 1 if layer.down_group is None else 2
    scale = torch.exp2(torch.randint(-4, 5, (experts, groups, N), device=device).float())
    codes = torch.eye(k, dtype=torch.int8, device=device).repeat(experts, 1)
    rows, block_m = experts * k, entry.block_m or 1
    starts = torch.arange(0, rows, block_m, dtype=torch.int32, device=device)
    tiles = {"tile_expert": starts // k, "tile_start": starts, "tile_end": starts + block_m}
    out = torch.empty(rows, N, dtype=torch.bfloat16, device=device)
    with current(device):
        launch.gemm(
            entry, codes, torch.ones(rows, device=device), weight, scale.bfloat16(), tiles, out
        )
    decoded = weight.float() * scale.repeat_interleave(k // groups, dim=1).transpose(1, 2)
    want = decoded.transpose(1, 2).reshape(rows, N)
    assert k % block_m == 0
    assert torch.equal(out.float(), want)
