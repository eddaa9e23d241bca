"""The launches of a layer call, in order: what each stage reads and writes, by name.

`given` holds every intermediate of the call, the weights by their field of PackedExperts, and what
came in and goes out: `hidden` [tokens or rows, H], `ids` and `weights` [tokens, k], or
`tokens_per_expert`, and `output`. `prepared.py` calls it once for each distinct call.
"""

from __future__ import annotations

import torch

from . import launch
from .launch import Start, Tensors
from .select import LayerChoice


def from_tokens(chosen: LayerChoice, given: Tensors, start: Start, *, first_expert: int) -> None:
    """From tokens with expert ids to their combined output."""
    _dispatch(chosen, given, start, first_expert)
    _experts(chosen, given, given["expert_output"], start)
    launch.combine(
        chosen["combine"].entry,
        given["expert_output"],
        given["slot_row"],
        given["weights"],
        _output(given),
        start=start,
    )


def from_rows(chosen: LayerChoice, given: Tensors, start: Start) -> None:
    """From rows that are sorted by expert to their output."""
    hidden = _input(given)
    launch.route_counts(
        chosen["route"].entry,
        given["tokens_per_expert"],
        given,
        rows=hidden.shape[0],
        block_m=chosen.block_m,
        start=start,
    )
    launch.quantize(
        chosen["quantize"].entry,
        hidden,
        given["up_inv_smooth"],
        given["row_expert"],
        given["hidden_codes"],
        given["hidden_scale"],
        start=start,
    )
    _experts(chosen, given, _output(given), start)


def _input(given: Tensors) -> torch.Tensor:
    """Hidden states as kernels take them: the call's, or a copy with zeros behind."""
    return given["hidden_wide"] if "hidden_wide" in given else given["hidden"]


def _output(given: Tensors) -> torch.Tensor:
    return given["output_wide"] if "output_wide" in given else given["output"]


def _dispatch(chosen: LayerChoice, given: Tensors, start: Start, first_expert: int) -> None:
    """From tokens and ids to codes of sorted rows."""
    hidden, ids, inv_smooth = _input(given), given["ids"], given["up_inv_smooth"]
    if "dispatch" in chosen.stages:
        launch.dispatch(
            chosen["dispatch"].entry,
            hidden,
            ids,
            inv_smooth,
            given,
            first_expert=first_expert,
            block_m=chosen.block_m,
            start=start,
        )
        return
    experts = inv_smooth.shape[0]
    launch.count(
        chosen["count"].entry, ids, given, experts=experts, first_expert=first_expert, start=start
    )
    launch.route_ids(
        chosen["route"].entry,
        ids,
        given,
        experts=experts,
        first_expert=first_expert,
        block_m=chosen.block_m,
        start=start,
    )
    launch.quantize(
        chosen["quantize"].entry,
        hidden,
        inv_smooth,
        given["row_expert"],
        given["hidden_codes"],
        given["hidden_scale"],
        row_slot=given["row_slot"],
        top_k=ids.shape[1],
        start=start,
    )


def _experts(chosen: LayerChoice, given: Tensors, y: torch.Tensor, start: Start) -> None:
    """From codes of the hidden states to rows of y: the stages that both ways in share."""
    folded = "requantize" not in chosen.stages
    launch.gemm(
        chosen["up"].entry,
        given["hidden_codes"],
        given["hidden_scale"],
        given["up_weight"],
        given["up_scale"],
        given,
        given["activation"],
        inv_smooth=given["down_inv_smooth"] if folded else None,
        start=start,
    )
    if folded:
        launch.gemm_of_activation(
            chosen["down"].entry,
            given["activation"],
            given["down_inv_smooth"],
            given["down_weight"],
            given["down_scale"],
            given,
            y,
            start=start,
        )
        return
    launch.quantize(
        chosen["requantize"].entry,
        given["activation"],
        given["down_inv_smooth"],
        given["row_expert"],
        given["activation_codes"],
        given["activation_scale"],
        start=start,
    )
    launch.gemm(
        chosen["down"].entry,
        given["activation_codes"],
        given["activation_scale"],
        given["down_weight"],
        given["down_scale"],
        given,
        y,
        start=start,
    )
