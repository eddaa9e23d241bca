"""Launch emitted modules: one function per operation, on the current device and stream.

The caller owns every tensor; nothing is allocated and nothing is read back. Shapes and types are
checked one level up, in `layer.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .entry import Entry

Tensors = Mapping[str, torch.Tensor]


def _counts(entry: Entry, sizes: Mapping[str, int]) -> list[int]:
    """Run-time arguments of a module, in its order: counts, never lengths."""
    return [sizes[each.of] // each.unit for each in entry.counts]


def _tiles(buffers: Tensors) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return buffers["tile_expert"], buffers["tile_start"], buffers["tile_end"]


def route_ids(
    entry: Entry,
    ids: torch.Tensor,
    buffers: Tensors,
    *,
    experts: int,
    first_expert: int,
    block_m: int,
) -> None:
    """Sort slots by local expert and cut the sorted rows into tiles of `block_m`.

    ids: int32 or int64 [tokens, top_k]; ids outside first_expert .. first_expert + experts - 1 own
    no row.
    """
    tile_expert, tile_start, tile_end = _tiles(buffers)
    entry.kernel[(experts + 1,)](
        ids,
        buffers["slot_row"],
        buffers["row_slot"],
        buffers["row_expert"],
        buffers["row_amax"],
        tile_expert,
        tile_start,
        tile_end,
        ids.numel(),
        experts,
        first_expert,
        block_m,
        tile_expert.numel(),
        **entry.options,
    )


def route_counts(
    entry: Entry, tokens_per_expert: torch.Tensor, buffers: Tensors, *, rows: int, block_m: int
) -> None:
    """Lay out rows that are sorted by expert; rows past the sum of int32 [experts] counts own
    nothing.
    """
    experts = tokens_per_expert.numel()
    tile_expert, tile_start, tile_end = _tiles(buffers)
    entry.kernel[(experts + 1,)](
        tokens_per_expert,
        buffers["row_expert"],
        buffers["row_amax"],
        tile_expert,
        tile_start,
        tile_end,
        rows,
        experts,
        block_m,
        tile_expert.numel(),
        **entry.options,
    )


def quantize(
    entry: Entry,
    x: torch.Tensor,
    inv_smooth: torch.Tensor,
    row_expert: torch.Tensor,
    codes: torch.Tensor,
    scale: torch.Tensor,
    *,
    row_slot: torch.Tensor | None = None,
    top_k: int = 1,
) -> None:
    """x [rows, K], or [tokens, K] gathered by `row_slot`, to int8 codes [rows, K] and fp32 scale
    [rows].
    """
    rows, k = codes.shape
    gather = () if row_slot is None else (row_slot,)
    entry.kernel[(-(-rows // entry.rows_per_program),)](
        x,
        *gather,
        row_expert,
        inv_smooth,
        codes,
        scale,
        rows,
        *([] if row_slot is None else [top_k]),
        *_counts(entry, {"K": k}),
        **entry.options,
    )


def gemm(
    entry: Entry,
    codes: torch.Tensor,
    scale: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    buffers: Tensors,
    out: torch.Tensor,
    *,
    inv_smooth: torch.Tensor | None = None,
) -> None:
    """The up or the down kernel: int8 codes [rows, K] and fp32 scale [rows] to out [rows, N].

    With `inv_smooth` fp32 [experts, N] an up kernel of a folded plan also raises
    `buffers["row_amax"]`.
    """
    amax = () if inv_smooth is None else (inv_smooth, buffers["row_amax"])
    _gemm(entry, (codes, scale, weight, weight_scale, out, *amax), buffers, out, codes.shape[1])


def gemm_of_activation(
    entry: Entry,
    activation: torch.Tensor,
    inv_smooth: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    buffers: Tensors,
    out: torch.Tensor,
) -> None:
    """The down kernel of a folded plan: activation [rows, K], its `buffers["row_amax"]` and fp32
    inv_smooth [experts, K] to out [rows, N].
    """
    rows = (activation, buffers["row_amax"], inv_smooth)
    _gemm(entry, (*rows, weight, weight_scale, out), buffers, out, activation.shape[1])


def _gemm(
    entry: Entry, tensors: tuple[torch.Tensor, ...], buffers: Tensors, out: torch.Tensor, k: int
) -> None:
    n = out.shape[1]
    tile_expert, tile_start, tile_end = _tiles(buffers)
    entry.kernel[(tile_expert.numel(), n // entry.columns_per_program)](
        *tensors,
        tile_expert,
        tile_start,
        tile_end,
        *_counts(entry, {"N": n, "K": k}),
        **entry.options,
    )


def combine(
    entry: Entry,
    y: torch.Tensor,
    slot_row: torch.Tensor,
    weights: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """y [rows, N] and fp32 weights [tokens, top_k] to out [tokens, N]."""
    tokens, n = out.shape
    entry.kernel[(tokens, n // entry.columns_per_program)](
        y,
        slot_row,
        weights,
        out,
        weights.shape[1],
        *_counts(entry, {"N": n}),
        **entry.options,
    )
