"""One-hot rows give back the decoded weights: a GEMM reads every weight at its place."""

from __future__ import annotations

import pytest
import torch

from generator.formats import FORMATS
from generator.packing import groups_of
from generator.runtime import launch
from generator.runtime.device import current
from generator.runtime.manifest import Manifest
from generator.runtime.nibbles import planes_of_rows
from tests.runtime.matrix import group_layers
from tests.shapes import ragged

N = 64


@pytest.mark.parametrize("name", group_layers())
def test_one_hot_rows_decode_the_weights(built: Manifest, device: torch.device, name: str) -> None:
    """An odd number of groups, which leaves int4 one without a partner, and a short one."""
    layer = built.layer(name)
    contract = next(each for each in layer.plan("separate").rows if each.startswith("down"))
    entry = built.by_contract[contract][0]
    group, experts = layer.down_group, 2
    k = ragged(group, 3 if (group or 256) < 256 else 1)
    groups = groups_of(k, group)
    stored = FORMATS[layer.weights]
    values = torch.arange(stored.lowest, stored.highest + 1, device=device)
    weight = values[torch.randint(0, len(values), (experts, N, k), device=device)].to(torch.int8)
    assert len(weight.unique()) == 2**stored.bits
    # Powers of two keep the product of a weight and its scale exact in bf16.
    scale = torch.exp2(torch.randint(-4, 5, (experts, groups, N), device=device).float())
    codes = torch.eye(k, dtype=torch.int8, device=device).repeat(experts, 1)
    rows, block_m = experts * k, entry.block_m or 1
    starts = torch.arange(0, rows, block_m, dtype=torch.int32, device=device)
    tiles = {"tile_expert": starts // k, "tile_start": starts, "tile_end": starts + block_m}
    out = torch.empty(rows, N, dtype=torch.bfloat16, device=device)
    bytes_ = planes_of_rows(weight, group) if layer.weights == "int4" else weight
    with current(device):
        launch.gemm(
            entry, codes, torch.ones(rows, device=device), bytes_, scale.bfloat16(), tiles, out
        )
    by_k = scale.repeat_interleave(group or k, dim=1)[:, :k]
    decoded = weight.float() * by_k.transpose(1, 2)
    want = decoded.transpose(1, 2).reshape(rows, N)
    assert k % block_m == 0
    assert torch.equal(out.float(), want)
