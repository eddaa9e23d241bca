"""Run a whole layer: check what the caller handed in, choose a plan and variants, launch stage by
stage.

No host synchronisation anywhere: grids come from shapes, counts and ids stay on the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from ..errors import Finding, LaunchError
from ..packing import padded
from . import check, direct, interpreter
from .device import current, is_current, targets_for
from .manifest import Layer, Manifest
from .packed import SEED_NAMES, PackedExperts, check_packed
from .prepared import Prepared, facts, prepare, remember, weights_of
from .problem import LayerProblem
from .select import LayerChoice, select_layer
from .workspace import block, buffers, torch_dtype, total_bytes

ALIGNMENT = 16  # bytes; where every tensor starts but those of the router


@dataclass(frozen=True)
class LayerRun:
    """One call: what was chosen, every intermediate, and the result."""

    prepared: Prepared
    workspace: torch.Tensor
    out: torch.Tensor

    @property
    def problem(self) -> LayerProblem:
        return self.prepared.problem

    @property
    def choice(self) -> LayerChoice:
        return self.prepared.choice

    @cached_property
    def buffers(self) -> dict[str, torch.Tensor]:
        """Each stage's inputs and outputs, none of them reused."""
        return self.prepared.layout.views(self.workspace)


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
    tensors = (hidden, ids, weights, *weights_of(packed))
    options = (type(first_expert), first_expert, targets, plan)  # 0 is not False to Triton
    known = facts(packed, tensors, "tokens", *options)
    prepared = manifest.prepared.get(known)
    if prepared is None:
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
        _check_out(hidden, out)
        given = {"hidden": hidden, "ids": ids, "weights": weights}
        prepared = prepare(problem, layer, manifest, packed, given, first_expert)
        remember(manifest, known, prepared)
    return _run(prepared, tensors, out, workspace)


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
    tensors = (hidden, tokens_per_expert, *weights_of(packed))
    known = facts(packed, tensors, "rows", targets, plan)
    prepared = manifest.prepared.get(known)
    if prepared is None:
        layer = _layer(packed, manifest)
        device, dtype = packed.up_weight.device, torch_dtype(layer.dtype)
        check.tensor("hidden", hidden, (None, packed.hidden), (dtype,), device)
        counts, experts = tokens_per_expert, packed.experts
        check.tensor("tokens_per_expert", counts, (experts,), (torch.int32,), device)
        check.aligned("hidden", hidden)
        targets = targets or targets_for(device, manifest)
        problem = rows_problem(packed, hidden.shape[0], targets, plan)
        _check_out(hidden, out)
        given = {"hidden": hidden, "tokens_per_expert": tokens_per_expert}
        prepared = prepare(problem, layer, manifest, packed, given)
        remember(manifest, known, prepared)
    return _run(prepared, tensors, out, workspace)


def _layer(packed: PackedExperts, manifest: Manifest) -> Layer:
    layer = manifest.layer(packed.layer)
    check_packed(packed, layer)
    return layer


def _first_expert(first: int, experts: int) -> None:
    """Ids are compared in their own type, so the local range must fit int32."""
    if not 0 <= first <= 2**31 - 1 - experts:
        what = f"{first} is no id that {experts} local experts can start at"
        raise LaunchError(Finding("first_expert", what, f"use 0 .. {2**31 - 1 - experts}"))


def _check_out(hidden: torch.Tensor, out: torch.Tensor | None) -> None:
    """Raise LaunchError where the caller's result is not as `output_like` has it."""
    if out is None:
        return
    fits = isinstance(out, torch.Tensor) and out.shape == hidden.shape and out.is_contiguous()
    if not fits or out.dtype != hidden.dtype or out.device != hidden.device:
        check.tensor("out", out, tuple(hidden.shape), (hidden.dtype,), hidden.device)
    check.aligned("out", out)


def _run(
    prepared: Prepared,
    tensors: tuple[torch.Tensor, ...],
    out: torch.Tensor | None,
    workspace: torch.Tensor | None,
) -> LayerRun:
    """Launch a prepared call on its tensors: the hidden states, what routes them, the weights. The
    only place that allocates.
    """
    hidden = tensors[0]
    addresses = [each.data_ptr() for each in tensors]
    weights = len(tensors) - len(SEED_NAMES)
    starts = addresses[0]
    for address in addresses[weights:]:
        starts |= address
    if starts % ALIGNMENT:
        for name, each in zip(SEED_NAMES, tensors[weights:], strict=True):
            check.aligned(name, each)
        check.aligned("hidden", hidden)
    _check_out(hidden, out)
    result = output_like(hidden) if out is None else out
    if prepared.problem.rows == 0:
        return LayerRun(prepared, result, result.zero_())  # no intermediates: any workspace
    storage = block(prepared.layout.bytes, workspace, prepared.device)
    if out is not None and workspace is not None:
        check.apart("out", out, "workspace", workspace)
    run = LayerRun(prepared, storage, result)
    if prepared.problem.widened:
        width = hidden.shape[1]
        wide = run.buffers["hidden_wide"]
        wide[:, width:].zero_()
        wide[:, :width].copy_(hidden)
        _launch(run, tensors, addresses)
        result.copy_(run.buffers["output_wide"][:, :width])
    else:
        _launch(run, tensors, addresses)
    return run


def _launch(run: LayerRun, tensors: tuple[torch.Tensor, ...], addresses: list[int]) -> None:
    """Start every stage on the device's current stream: directly, once Triton's JIT has been there
    with a call of the same facts.
    """
    prepared, base, last = run.prepared, run.workspace.data_ptr(), run.out.data_ptr()
    # Kernels are compiled for starts at 16 bytes. The checks hold those of callers' tensors to it;
    # fresh memory is the allocator's, which may be anyone's.
    aligned = not (base | last) % ALIGNMENT
    state = direct.switches((*tensors, run.out, run.workspace)) if aligned else None
    launchers = None if state is None else prepared.launchers.get(state)
    if launchers is None or not direct.hold(launchers):
        given = dict(zip(prepared.given, (*tensors, run.out), strict=True))
        with current(prepared.device):
            prepared.by_jit(run.buffers | given, state)
        return
    addresses = [*addresses, last, *[base + each for each in prepared.offsets]]
    if is_current(prepared.device):
        direct.launch(launchers, addresses)
    else:
        with current(prepared.device):
            direct.launch(launchers, addresses)
