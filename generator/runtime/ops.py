"""torch.library custom ops of a whole layer, with fake kernels: what torch.compile and export see.

The ops are opaque to the tracer, so selection, workspaces and launches stay ordinary Python.
Weights travel as tensors; the layer contract and the folder of modules as strings.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ..errors import Finding, LaunchError
from .layer import output_like, run_rows, run_tokens
from .manifest import Manifest, load
from .packed import PackedExperts

DEVICES = ("cpu", "cuda")


def followed(*tensors: torch.Tensor) -> bool:
    """Whether somebody follows the ops of a call, so that it must be one: a tracer, a dispatch
    mode, a tensor of another class or without storage, or autograd, which says that there is no
    gradient. Without any of them, an op costs as much of the host's time as the layer's own Python.
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return True
    if torch._C._len_torch_dispatch_stack() > 0:
        return True
    gradient = torch.is_grad_enabled()
    return any(
        type(each) is not torch.Tensor or each.is_meta or (gradient and each.requires_grad)
        for each in tensors
    )


def namespace(package: str) -> str:
    """Of the ops of a runtime package. torch knows an op by name, one for the whole process, so a
    bundle's are named after it.
    """
    owner = package.rpartition(".")[0]
    return "groupwise" if owner == "generator" else owner.replace(".", "_")


NAMESPACE = namespace(str(__package__))


_LOADED: dict[str, Manifest] = {}  # by the resolved name of their folder, as modules pass it


def _manifest(generated: str) -> Manifest:
    """`load`, which asks the file system at every call; here only for other names of a folder."""
    known = _LOADED.get(generated)
    if known is None:
        known = load(Path(generated))
        _LOADED[str(known.directory)] = known
    return known


def _packed(
    layer: str,
    hidden: int,
    up_weight: torch.Tensor,
    up_scale: torch.Tensor,
    up_inv_smooth: torch.Tensor,
    down_weight: torch.Tensor,
    down_scale: torch.Tensor,
    down_inv_smooth: torch.Tensor,
) -> PackedExperts:
    """Weights as launches take them. An intermediate is as good as its padded length here: the
    activation's padded columns are zeros.
    """
    experts, intermediate = down_inv_smooth.shape
    return PackedExperts(
        layer=layer,
        experts=experts,
        hidden=hidden,
        intermediate=intermediate,
        up_weight=up_weight,
        up_scale=up_scale,
        up_inv_smooth=up_inv_smooth,
        down_weight=down_weight,
        down_scale=down_scale,
        down_inv_smooth=down_inv_smooth,
    )


@torch.library.custom_op(f"{NAMESPACE}::experts_tokens", mutates_args=(), device_types=DEVICES)
def experts_tokens(
    hidden: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    up_weight: torch.Tensor,
    up_scale: torch.Tensor,
    up_inv_smooth: torch.Tensor,
    down_weight: torch.Tensor,
    down_scale: torch.Tensor,
    down_inv_smooth: torch.Tensor,
    layer: str,
    generated: str,
    first_expert: int,
) -> torch.Tensor:
    """`layer.run_tokens` on packed tensors: [tokens, H] to [tokens, H]."""
    packed = _packed(
        layer,
        hidden.shape[-1],
        up_weight,
        up_scale,
        up_inv_smooth,
        down_weight,
        down_scale,
        down_inv_smooth,
    )
    manifest = _manifest(generated)
    return run_tokens(packed, hidden, ids, weights, manifest, first_expert=first_expert).out


@experts_tokens.register_fake
def _(hidden: torch.Tensor, *rest: object) -> torch.Tensor:
    return _fake(hidden, *rest)


@torch.library.custom_op(f"{NAMESPACE}::experts_rows", mutates_args=(), device_types=DEVICES)
def experts_rows(
    hidden: torch.Tensor,
    tokens_per_expert: torch.Tensor,
    up_weight: torch.Tensor,
    up_scale: torch.Tensor,
    up_inv_smooth: torch.Tensor,
    down_weight: torch.Tensor,
    down_scale: torch.Tensor,
    down_inv_smooth: torch.Tensor,
    layer: str,
    generated: str,
) -> torch.Tensor:
    """`layer.run_rows` on packed tensors: sorted rows [rows, H] to [rows, H]."""
    packed = _packed(
        layer,
        hidden.shape[-1],
        up_weight,
        up_scale,
        up_inv_smooth,
        down_weight,
        down_scale,
        down_inv_smooth,
    )
    return run_rows(packed, hidden, tokens_per_expert, _manifest(generated)).out


@experts_rows.register_fake
def _(hidden: torch.Tensor, *rest: object) -> torch.Tensor:
    return _fake(hidden, *rest)


def _fake(hidden: torch.Tensor, *rest: object) -> torch.Tensor:
    """The result's shape. Raises LaunchError for meta weights beside real hidden states."""
    for each in rest:
        if isinstance(each, torch.Tensor) and each.device != hidden.device:
            what = f"is on {each.device}, hidden on {hidden.device}"
            raise LaunchError(Finding("an argument", what, "load the weights, on one device"))
    return output_like(hidden)
