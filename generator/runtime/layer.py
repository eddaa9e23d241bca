"""Run a whole layer: check what the caller handed in, choose a plan and variants, launch stage by
stage.

No host synchronisation anywhere: grids come from shapes, counts and ids stay on the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import Finding, LaunchError
from ..packing import padded
from . import check, interpreter, launch
from .device import current, targets_for
from .manifest import Layer, Manifest
from .packed import PackedExperts, check_packed
from .problem import LayerProblem
from .select import LayerChoice, select_layer
from .workspace import buffers, carve, torch_dtype, total_bytes


@dataclass(frozen=True)
class LayerRun:
    """One call: what was chosen, every intermediate, and the result."""

    problem: LayerProblem
    choice: LayerChoice
    buffers: dict[str, torch.Tensor]  # each stage's inputs and outputs, none of them reused
    out: torch.Tensor


def tokens_problem(
    packed: PackedExperts,
    tokens: int,
    top_k: int,
    targets: tuple[str, ...],
    plan: str | None = None,
) -> LayerProblem:
    """The problem of a call from hidden states and expert ids; `plan` names one that is asked
    for.
    """
    return _problem(packed, "tokens", tokens * top_k, tokens, targets, plan)


def rows_problem(
    packed: PackedExperts, rows: int, targets: tuple[str, ...], plan: str | None = None
) -> LayerProblem:
    """The problem of a call from rows that are sorted by expert."""
    return _problem(packed, "rows", rows, rows, targets, plan)


def _problem(
    packed: PackedExperts,
    start: str,
    rows: int,
    inputs: int,
    targets: tuple[str, ...],
    plan: str | None,
) -> LayerProblem:
    hidden = padded(packed.hidden)
    return LayerProblem(
        layer=packed.layer,
        start=start,
        rows=rows,
        hidden=hidden,
        intermediate=padded(packed.intermediate),
        experts=packed.experts,
        targets=targets,
        interpreted=interpreter.active(),
        widened=0 if hidden == packed.hidden else inputs,
        plan=plan,
    )


def workspace_bytes(problem: LayerProblem, manifest: Manifest) -> int:
    """Bytes of workspace that a call takes. Raises NoVariantError where nothing accepts the
    problem.
    """
    if problem.rows == 0:
        return 0
    layer = manifest.layer(problem.layer)
    chosen = select_layer(problem, manifest)
    return total_bytes(buffers(problem, layer, chosen.block_m, chosen.stages))


def output_like(hidden: torch.Tensor) -> torch.Tensor:
    """The result's storage: also what the fake kernels of the custom ops return."""
    return torch.empty_like(hidden, memory_format=torch.contiguous_format)


def run_tokens(
    packed: PackedExperts,
    hidden: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    manifest: Manifest,
    *,
    first_expert: int = 0,
    out: torch.Tensor | None = None,
    workspace: torch.Tensor | None = None,
    targets: tuple[str, ...] | None = None,
    plan: str | None = None,
) -> LayerRun:
    """From hidden states [tokens, H], ids int32/int64 [tokens, k] and weights fp32 [tokens, k] to
    [tokens, H].

    Ids are numbered over all ranks; local expert e has id first_expert + e. Slots of other ids, -1
    included, add nothing. `out` and `workspace` (uint8, `workspace_bytes(problem, manifest)`) may
    be the caller's; `plan` asks for a layer plan, which selection chooses else. An H that is no
    multiple of 64 costs a copy of the hidden states and one of the result. Raises LaunchError for
    tensors that do not fit, NoVariantError where no emitted variant accepts the shape.
    """
    layer = _layer(packed, manifest)
    device, dtype = packed.up_weight.device, torch_dtype(layer.dtype)
    check.tensor("hidden", hidden, (None, packed.hidden), (dtype,), device)
    check.aligned("hidden", hidden)
    tokens = hidden.shape[0]
    check.tensor("ids", ids, (tokens, None), (torch.int32, torch.int64), device)
    top_k = ids.shape[1]
    check.tensor("weights", weights, (tokens, top_k), (torch.float32,), device)
    _first_expert(first_expert, packed.experts)
    targets = targets or targets_for(device, manifest)
    problem = tokens_problem(packed, tokens, top_k, targets, plan)
    result, chosen, own = _prepare(problem, layer, hidden, out, workspace, manifest)
    if problem.rows == 0:
        return LayerRun(problem, chosen, own, result.zero_())
    with current(device):
        hidden, wide = _widened(problem, packed, hidden, result, own)
        launch.route_ids(
            chosen["route"].entry,
            ids,
            own,
            experts=packed.experts,
            first_expert=first_expert,
            block_m=chosen.block_m,
        )
        launch.quantize(
            chosen["quantize"].entry,
            hidden,
            packed.up_inv_smooth,
            own["row_expert"],
            own["hidden_codes"],
            own["hidden_scale"],
            row_slot=own["row_slot"],
            top_k=top_k,
        )
        _experts(packed, chosen, own, own["expert_output"])
        launch.combine(
            chosen["combine"].entry, own["expert_output"], own["slot_row"], weights, wide
        )
        if wide is not result:
            result.copy_(wide[:, : packed.hidden])
    return LayerRun(problem, chosen, own, result)


def run_rows(
    packed: PackedExperts,
    hidden: torch.Tensor,
    tokens_per_expert: torch.Tensor,
    manifest: Manifest,
    *,
    out: torch.Tensor | None = None,
    workspace: torch.Tensor | None = None,
    targets: tuple[str, ...] | None = None,
    plan: str | None = None,
) -> LayerRun:
    """From rows sorted by expert [rows, H] and tokens_per_expert int32 [E] to rows [rows, H].

    Counts are clamped on the device: negative ones to 0, their sum to the rows; rows past the sum
    become zeros. Errors and the caller's tensors are as in `run_tokens`.
    """
    layer = _layer(packed, manifest)
    device, dtype = packed.up_weight.device, torch_dtype(layer.dtype)
    check.tensor("hidden", hidden, (None, packed.hidden), (dtype,), device)
    check.tensor("tokens_per_expert", tokens_per_expert, (packed.experts,), (torch.int32,), device)
    check.aligned("hidden", hidden)
    targets = targets or targets_for(device, manifest)
    problem = rows_problem(packed, hidden.shape[0], targets, plan)
    result, chosen, own = _prepare(problem, layer, hidden, out, workspace, manifest)
    if problem.rows == 0:
        return LayerRun(problem, chosen, own, result)
    with current(device):
        hidden, wide = _widened(problem, packed, hidden, result, own)
        launch.route_counts(
            chosen["route"].entry,
            tokens_per_expert,
            own,
            rows=problem.rows,
            block_m=chosen.block_m,
        )
        launch.quantize(
            chosen["quantize"].entry,
            hidden,
            packed.up_inv_smooth,
            own["row_expert"],
            own["hidden_codes"],
            own["hidden_scale"],
        )
        _experts(packed, chosen, own, wide)
        if wide is not result:
            result.copy_(wide[:, : packed.hidden])
    return LayerRun(problem, chosen, own, result)


def _layer(packed: PackedExperts, manifest: Manifest) -> Layer:
    layer = manifest.layer(packed.layer)
    check_packed(packed, layer)
    return layer


def _first_expert(first: int, experts: int) -> None:
    """Ids are compared in their own type, so the local range must fit int32."""
    if not 0 <= first <= 2**31 - 1 - experts:
        what = f"{first} is no id that {experts} local experts can start at"
        raise LaunchError(Finding("first_expert", what, f"use 0 .. {2**31 - 1 - experts}"))


def _prepare(
    problem: LayerProblem,
    layer: Layer,
    hidden: torch.Tensor,
    out: torch.Tensor | None,
    workspace: torch.Tensor | None,
    manifest: Manifest,
) -> tuple[torch.Tensor, LayerChoice, dict[str, torch.Tensor]]:
    """The result's storage, the variants, and the intermediates. The only place that allocates."""
    if out is not None:
        check.tensor("out", out, tuple(hidden.shape), (hidden.dtype,), hidden.device)
        check.aligned("out", out)
    result = output_like(hidden) if out is None else out
    chosen = select_layer(problem, manifest)
    if problem.rows == 0:
        return result, chosen, {}
    wanted = buffers(problem, layer, chosen.block_m, chosen.stages)
    own = carve(wanted, workspace, hidden.device)
    if out is not None and workspace is not None:
        check.apart("out", out, "workspace", workspace)
    return result, chosen, own


def _widened(
    problem: LayerProblem,
    packed: PackedExperts,
    hidden: torch.Tensor,
    result: torch.Tensor,
    own: dict[str, torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states and result as kernels take them: their own, or copies with zeros behind."""
    if not problem.widened:
        return hidden, result
    wide = own["hidden_wide"]
    wide[:, packed.hidden :].zero_()
    wide[:, : packed.hidden].copy_(hidden)
    return wide, own["output_wide"]


def _experts(
    packed: PackedExperts, chosen: LayerChoice, own: dict[str, torch.Tensor], y: torch.Tensor
) -> None:
    """From codes of the hidden states to rows of y: the stages that both ways in share."""
    folded = "requantize" not in chosen.stages
    launch.gemm(
        chosen["up"].entry,
        own["hidden_codes"],
        own["hidden_scale"],
        packed.up_weight,
        packed.up_scale,
        own,
        own["activation"],
        inv_smooth=packed.down_inv_smooth if folded else None,
    )
    if folded:
        launch.gemm_of_activation(
            chosen["down"].entry,
            own["activation"],
            packed.down_inv_smooth,
            packed.down_weight,
            packed.down_scale,
            own,
            y,
        )
        return
    launch.quantize(
        chosen["requantize"].entry,
        own["activation"],
        packed.down_inv_smooth,
        own["row_expert"],
        own["activation_codes"],
        own["activation_scale"],
    )
    launch.gemm(
        chosen["down"].entry,
        own["activation_codes"],
        own["activation_scale"],
        packed.down_weight,
        packed.down_scale,
        own,
        y,
    )
