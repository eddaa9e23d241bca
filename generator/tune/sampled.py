"""The oracle's result of a few tokens of a large call.

A token's result depends on that token, its experts and its weights alone (ARCHITECTURE.md, the
numeric contract), so the rows of a sample are those of the whole, to the bit.
"""

from __future__ import annotations

import torch

from generator.runtime import reference
from generator.runtime.device_exp import device_exp_table
from generator.runtime.manifest import Layer
from generator.runtime.pack import int8_weights
from generator.runtime.packed import PackedExperts
from generator.runtime.workspace import torch_dtype
from generator.verify.inputs import Tokens

MOST_TOKENS = 32  # more would show the same mistakes, and the oracle multiplies in float64


def sample(tokens: int, device: torch.device, seed: int) -> torch.Tensor:
    """Up to MOST_TOKENS token numbers, ascending, int64."""
    random = torch.Generator(device).manual_seed(seed)
    chosen = torch.randperm(tokens, device=device, generator=random)[:MOST_TOKENS]
    return chosen.sort().values


def expected(
    packed: PackedExperts, layer: Layer, given: Tokens, chosen: torch.Tensor
) -> torch.Tensor:
    """[len(chosen), H]: what the layer owes the chosen tokens, from hidden states to result."""
    ids, weights = given.ids[chosen], given.weights[chosen]
    hidden = torch.nn.functional.pad(
        given.hidden[chosen], (0, packed.up_inv_smooth.shape[1] - given.hidden.shape[1])
    )
    top_k = ids.shape[1]
    slots = torch.nonzero(ids.reshape(-1) < packed.experts).squeeze(1)
    slot_row = torch.full((ids.numel(),), -1, dtype=torch.int32, device=ids.device)
    slot_row[slots] = torch.arange(slots.numel(), dtype=torch.int32, device=ids.device)
    # Only the experts that the sample hits are unpacked.
    hit, expert = torch.unique(ids.reshape(-1)[slots], return_inverse=True)
    dtype = torch_dtype(layer.dtype)
    codes, scale = reference.quantize(
        hidden[slots // top_k], packed.up_inv_smooth[hit], expert, layer.rounding
    )
    up = int8_weights(packed.up_weight[hit], layer, layer.up_group)
    y = reference.gemm(codes, scale, up, packed.up_scale[hit], expert, layer.up_group)
    table = (reference.exp_table if layer.exp == "exact" else device_exp_table)(dtype, ids.device)
    activation = reference.swiglu(y, dtype, torch_dtype(layer.intermediate), table)
    codes, scale = reference.quantize(
        activation, packed.down_inv_smooth[hit], expert, layer.rounding
    )
    down = int8_weights(packed.down_weight[hit], layer, layer.down_group)
    rows = reference.gemm(codes, scale, down, packed.down_scale[hit], expert, layer.down_group)
    result = reference.combine(rows.to(dtype), slot_row, weights)
    return result[:, : packed.hidden]
