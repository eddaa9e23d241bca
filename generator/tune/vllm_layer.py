"""vLLM's Triton fused_moe on the same weights and tokens, where vLLM is installed.

Its W8A8 takes int8 weights with one scale a channel and quantizes each token by itself. It rounds
elsewhere than a layer contract does, so it is compared in time alone.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from triton.errors import TritonError

from generator.runtime.manifest import Layer
from generator.runtime.packed import PackedExperts
from generator.verify.inputs import Tokens

# What is raised where another version of vLLM has other names or arguments, and where vLLM, torch
# or Triton refuses a layer.
REFUSALS = (
    *(ImportError, AttributeError, TypeError),
    *(AssertionError, ValueError, RuntimeError, TritonError),
)


def unavailable(layer: Layer) -> str | None:
    """Why vLLM has no row for a layer."""
    if layer.weights != "int8" or layer.up_group is not None or layer.down_group is not None:
        return "no such format: its W8A8 has int8 weights per channel"
    return "not installed" if find_spec("vllm") is None else None


def vllm_layer(packed: PackedExperts, global_experts: int) -> Callable[[Tokens], torch.Tensor]:
    """The layer as a function of tokens, on int8 weights [E, N, K] that it shares with ours; scales
    are copied. Raises one of REFUSALS.
    """
    from vllm.model_executor.layers.fused_moe import fused_experts
    from vllm.model_executor.layers.fused_moe.config import int8_w8a8_moe_quant_config

    config = int8_w8a8_moe_quant_config(
        # [E, 1, N] to [E, N, 1] in fp32
        w1_scale=packed.up_scale.transpose(1, 2).float().contiguous(),
        w2_scale=packed.down_scale.transpose(1, 2).float().contiguous(),
        a1_scale=None,
        a2_scale=None,
        per_act_token_quant=True,
    )
    expert_map = None
    if global_experts != packed.experts:
        expert_map = torch.full((global_experts,), -1, dtype=torch.int32)
        expert_map[: packed.experts] = torch.arange(packed.experts, dtype=torch.int32)
        expert_map = expert_map.to(packed.up_weight.device)

    def call(given: Tokens) -> torch.Tensor:
        result: torch.Tensor = fused_experts(
            given.hidden,
            packed.up_weight,
            packed.down_weight,
            given.weights,
            given.ids,
            quant_config=config,
            global_num_experts=global_experts,
            expert_map=expert_map,
        )
        return result

    return call
