"""`QuantExperts` and `QuantMoE`: the layer as nn.Modules that load the seed's state dict, strictly.

Weights stand in memory once, in kernel layout; the state dict is converted on its way in and out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import Finding, GroupwiseError, LaunchError
from . import check
from .layer import run_rows, run_tokens
from .manifest import load
from .ops import experts_rows, experts_tokens, followed
from .pack import pack, unpack
from .packed import (
    SEED_NAMES,
    PackedExperts,
    check_packed,
    kernel_shapes,
    size_findings,
    storage_dtype,
)

if TYPE_CHECKING:
    from typing import Self


class ContractDtypes(nn.Module):
    """A module that moves between devices but keeps its dtypes, which are the contract's.

    `module.half()` or `.to(torch.bfloat16)` of a whole model would round fp32 scales in silence.
    """

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        before = {**self._parameters, **self._buffers}
        kept = {name: value.data for name, value in before.items() if value is not None}
        super()._apply(fn, recurse)
        for name, value in kept.items():
            held = getattr(self, name)
            if held.dtype != value.dtype:
                held.data = value.to(held.device)
        return self


class QuantExperts(ContractDtypes):
    """The experts of one quantized MoE layer: E local experts, H hidden, I intermediate.

    State dict: `up_proj_weight` int8 [E, 2I, H], `down_proj_weight` int8 [E, H, I] (int4: [E, I, H]
    and [E, H / 2, I], rows 2i and 2i + 1 in the nibbles of a byte), their `_scale` [E, N] per
    channel or [E, N, ceil(K / g)] per group, and `up_proj_quantize.inv_smooth_scale` fp32 [E,
    H], `down_proj_quantize.inv_smooth_scale` fp32 [E, I]. `layer` names a layer contract of the
    manifest in `generated` (default: the shipped modules). Raises BuildError where that manifest
    lacks it, LaunchError for sizes that no such layer has.
    """

    def __init__(
        self,
        layer: str,
        *,
        experts: int,
        hidden: int,
        intermediate: int,
        first_expert: int = 0,
        generated: Path | str | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.manifest = load(generated)
        self.layer = self.manifest.layer(layer)
        wrong = size_findings(self.layer, experts, hidden, intermediate)
        if wrong:
            raise LaunchError(wrong)
        self.experts, self.hidden, self.intermediate = experts, hidden, intermediate
        self.first_expert = first_expert  # id of local expert 0, for expert-parallel slices
        self.shard = (0, 1)  # rank and size of a split of I, as from_packed took it
        shapes = kernel_shapes(self.layer, experts, hidden, intermediate)
        empty = {
            field: torch.zeros(shape, dtype=storage_dtype(self.layer, field), device=device)
            for field, shape in shapes.items()
        }
        for name, value in empty.items():
            self.register_buffer(name, value, persistent=False)

    @classmethod
    def from_packed(
        cls, packed: PackedExperts, *, first_expert: int = 0, generated: Path | str | None = None
    ) -> QuantExperts:
        """A module around weights that are packed already; nothing is copied."""
        module = cls(
            packed.layer,
            experts=packed.experts,
            hidden=packed.hidden,
            intermediate=packed.intermediate,
            first_expert=first_expert,
            generated=generated,
            device="meta",
        )
        check_packed(packed, module.layer)
        module.shard = packed.shard
        for name, value in packed.tensors().items():
            setattr(module, name, value)
        return module

    def packed(self) -> PackedExperts:
        """The weights as launches take them; shares the module's storage."""
        return self._packed(self._weights())

    def _packed(self, held: Sequence[torch.Tensor]) -> PackedExperts:
        tensors: dict[str, Any] = dict(zip(SEED_NAMES, held, strict=True))
        return PackedExperts(
            layer=self.layer.name,
            experts=self.experts,
            hidden=self.hidden,
            intermediate=self.intermediate,
            shard=self.shard,
            **tensors,
        )

    def forward(self, hidden: torch.Tensor, tokens_per_expert: torch.Tensor) -> torch.Tensor:
        """Rows sorted by expert [rows, H] and int32 [E] counts to [rows, H]; rows past the sum
        become zeros.
        """
        self.check_length(hidden)
        check.is_tensor("tokens_per_expert", tokens_per_expert)
        held = self._weights()
        if not followed(hidden, tokens_per_expert, held[0]):
            return run_rows(self._packed(held), hidden, tokens_per_expert, self.manifest).out
        out: torch.Tensor = experts_rows(
            hidden, tokens_per_expert, *held, self.layer.name, self._generated()
        )
        return out

    def forward_tokens(
        self, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Hidden [T, H], ids int32/int64 [T, k] over all ranks, weights fp32 [T, k] to [T, H]."""
        self.check_length(hidden)
        check.is_tensor("ids", ids)
        check.is_tensor("weights", weights)
        held, first = self._weights(), self.first_expert
        if not followed(hidden, ids, weights, held[0]):
            packed = self._packed(held)
            return run_tokens(packed, hidden, ids, weights, self.manifest, first_expert=first).out
        out: torch.Tensor = experts_tokens(
            hidden,
            ids,
            weights,
            *held,
            self.layer.name,
            self._generated(),
            first,
        )
        return out

    def check_length(self, hidden: torch.Tensor) -> None:
        """Raise LaunchError unless hidden is [..., H]. The op sees padded weights only, which other
        lengths would fit too.
        """
        check.is_tensor("hidden", hidden)
        if hidden.shape[-1:] != (self.hidden,):
            what = f"has shape {list(hidden.shape)}"
            raise LaunchError(Finding("hidden", what, f"pass [any, {self.hidden}]"))

    def _weights(self) -> list[torch.Tensor]:
        """Of every call: `getattr` of a module looks in three places for each."""
        held: Mapping[str, Any] = self._buffers
        return [held[name] for name in SEED_NAMES]

    def _generated(self) -> str:
        return str(self.manifest.directory)

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, value in unpack(self.packed(), self.layer).items():
            destination[prefix + name] = value if keep_vars else value.detach()

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        own = {
            key.removeprefix(prefix): value
            for key, value in state_dict.items()
            if key.startswith(prefix)
        }
        names = SEED_NAMES.values()
        missing_keys += [prefix + name for name in names if name not in own]
        if strict:
            unexpected_keys += [prefix + name for name in own if name not in names]
        absent = [name for name in names if name not in own]
        if absent:
            if len(absent) < len(names):
                what = f"{', '.join(absent)} of {prefix or 'the experts'} are missing"
                error_msgs.append(f"{what}; experts load whole or not at all")
            return
        assigns = local_metadata.get("assign_to_params_buffers")
        if self.up_weight.is_meta and not assigns:
            error_msgs.append("the module has no storage; pass assign=True, or to_empty() first")
            return
        try:
            packed = pack({name: own[name] for name in names}, self.layer)
            sizes = (packed.experts, packed.hidden, packed.intermediate)
            expected = (self.experts, self.hidden, self.intermediate)
            if sizes != expected:
                what = f"holds (E, H, I) = {sizes}"
                fix = f"this module was made for {expected}"
                raise LaunchError(Finding(prefix or "state dict", what, fix))
        except GroupwiseError as error:
            error_msgs.append(str(error))
            return
        for name, value in packed.tensors().items():
            if assigns:
                setattr(self, name, value)
            else:
                getattr(self, name).copy_(value)


class Gating(ContractDtypes):
    """The router: fp32 logits, softmax, top-k, and renormalisation of the weights kept."""

    def __init__(
        self,
        hidden: int,
        experts: int,
        top_k: int,
        *,
        renormalize: bool,
        device: torch.device | str | None,
    ) -> None:
        super().__init__()
        if not 1 <= top_k <= experts:
            what = f"{top_k} experts a token, of {experts}"
            raise LaunchError(Finding("top_k", what, f"use 1 .. {experts}"))
        self.top_k, self.renormalize = top_k, renormalize
        weight = torch.zeros(hidden, experts, dtype=torch.float32, device=device)
        self.gate_weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[T, H] to ids int64 [T, k] and weights fp32 [T, k]."""
        scores = torch.softmax(hidden.float() @ self.gate_weight, dim=-1)
        weights, ids = scores.topk(self.top_k, dim=-1)
        if self.renormalize:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return ids, weights


class QuantMoE(nn.Module):
    """A whole MoE layer: gating over all experts, the local ones computed, their outputs combined.

    State dict: `gating.gate_weight` fp32 [H, global experts], and QuantExperts' names under
    `experts.`. With `experts` < `global_experts` it is one expert-parallel rank: the results of all
    ranks are to be summed.
    """

    def __init__(
        self,
        layer: str,
        *,
        experts: int,
        top_k: int,
        hidden: int,
        intermediate: int,
        global_experts: int | None = None,
        first_expert: int = 0,
        renormalize: bool = True,
        generated: Path | str | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        everywhere = experts if global_experts is None else global_experts
        if not 0 <= first_expert <= everywhere - experts:
            what = f"{first_expert} puts {experts} local experts outside the {everywhere} there are"
            fix = f"use 0 .. {everywhere - experts}"
            raise LaunchError(Finding("first_expert", what, fix))
        self.experts = QuantExperts(
            layer,
            experts=experts,
            hidden=hidden,
            intermediate=intermediate,
            first_expert=first_expert,
            generated=generated,
            device=device,
        )
        self.gating = Gating(hidden, everywhere, top_k, renormalize=renormalize, device=device)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., H] to [..., H]."""
        self.experts.check_length(hidden)
        flat = hidden.reshape(-1, hidden.shape[-1])
        ids, weights = self.gating(flat)
        return self.experts.forward_tokens(flat, ids, weights).view(hidden.shape)
