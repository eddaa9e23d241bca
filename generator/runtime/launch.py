"""Launch emitted modules: one function per operation, on the current device and stream.

The caller owns every tensor; nothing is allocated and nothing is read back. Shapes and types are
checked one level up, in `layer.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Protocol

import torch

from .entry import Entry
from .scratch import with_scratch

Tensors = Mapping[str, torch.Tensor]


class Start(Protocol):
    """What becomes of a launch once its arguments are known: tensors, then integers."""

    def __call__(
        self,
        entry: Entry,
        grid: tuple[int, ...],
        tensors: tuple[torch.Tensor, ...],
        counts: tuple[int, ...],
    ) -> object: ...


def by_jit(
    entry: Entry,
    grid: tuple[int, ...],
    tensors: tuple[torch.Tensor, ...],
    counts: tuple[int, ...],
) -> object:
    """Launch as Triton does, which compiles what is missing. Returns the compiled kernel; None
    where nothing is compiled.
    """
    run = partial(entry.kernel[grid], *tensors, *counts, **entry.options)
    return run() if entry.programs is None else with_scratch(run)


def _counts(entry: Entry, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Run-time arguments of a module, in its order: counts, never lengths."""
    return tuple(sizes[each.of] // each.unit for each in entry.counts)


def _tiles(buffers: Tensors) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return buffers["tile_expert"], buffers["tile_start"], buffers["tile_end"]


def count(
    entry: Entry,
    ids: torch.Tensor,
    buffers: Tensors,
    *,
    experts: int,
    first_expert: int,
    start: Start = by_jit,
) -> None:
    """Count the slots of each local expert, chunk by chunk: int32 or int64 ids [tokens, top_k]."""
    chunk_count = buffers["chunk_count"]
    counts = (ids.numel(), experts, first_expert)
    start(entry, (chunk_count.shape[0],), (ids, chunk_count), counts)


def dispatch(
    entry: Entry,
    x: torch.Tensor,
    ids: torch.Tensor,
    inv_smooth: torch.Tensor,
    buffers: Tensors,
    *,
    first_expert: int,
    block_m: int,
    start: Start = by_jit,
) -> None:
    """`count`, `route_ids` and `quantize` at once: x [tokens, K], ids [tokens, top_k]."""
    tiles = _tiles(buffers)
    slots, experts = ids.numel(), inv_smooth.shape[0]
    rows = ("hidden_codes", "hidden_scale", "slot_row", "row_slot", "row_expert")
    start(
        entry,
        (slots + experts + 1,),
        (x, ids, inv_smooth, *(buffers[each] for each in rows), *tiles),
        (
            slots,
            ids.shape[1],
            experts,
            first_expert,
            block_m,
            tiles[0].numel(),
            *_counts(entry, {"K": x.shape[1]}),
        ),
    )


def route_ids(
    entry: Entry,
    ids: torch.Tensor,
    buffers: Tensors,
    *,
    experts: int,
    first_expert: int,
    block_m: int,
    start: Start = by_jit,
) -> None:
    """Sort slots by local expert and cut the sorted rows into tiles of `block_m`; `count` was
    before.

    ids: int32 or int64 [tokens, top_k]; ids outside first_expert .. first_expert + experts - 1 own
    no row.
    """
    tiles = _tiles(buffers)
    chunk_count = buffers["chunk_count"]
    rows = ("slot_row", "row_slot", "row_expert", "row_amax")
    start(
        entry,
        (chunk_count.shape[0] + experts + 1,),
        (ids, chunk_count, *(buffers[each] for each in rows), *tiles),
        (ids.numel(), experts, first_expert, block_m, tiles[0].numel()),
    )


def route_counts(
    entry: Entry,
    tokens_per_expert: torch.Tensor,
    buffers: Tensors,
    *,
    rows: int,
    block_m: int,
    start: Start = by_jit,
) -> None:
    """Lay out rows that are sorted by expert; rows past the sum of int32 [experts] counts own
    nothing.
    """
    experts = tokens_per_expert.numel()
    tiles = _tiles(buffers)
    start(
        entry,
        (experts + 1,),
        (tokens_per_expert, buffers["row_expert"], buffers["row_amax"], *tiles),
        (rows, experts, block_m, tiles[0].numel()),
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
    start: Start = by_jit,
) -> None:
    """x [rows, K], or [tokens, K] gathered by `row_slot`, to int8 codes [rows, K] and fp32 scale
    [rows].
    """
    rows, k = codes.shape
    gather = () if row_slot is None else (row_slot,)
    start(
        entry,
        (-(-rows // entry.rows_per_program),),
        (x, *gather, row_expert, inv_smooth, codes, scale),
        (rows, *(() if row_slot is None else (top_k,)), *_counts(entry, {"K": k})),
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
    start: Start = by_jit,
) -> None:
    """The up or the down kernel: int8 codes [rows, K] and fp32 scale [rows] to out [rows, N].

    With `inv_smooth` fp32 [experts, N] an up kernel of a folded plan also raises
    `buffers["row_amax"]`.
    """
    amax = () if inv_smooth is None else (inv_smooth, buffers["row_amax"])
    tensors = (codes, scale, weight, weight_scale, out, *amax)
    _gemm(entry, tensors, buffers, out, codes.shape[1], weight.shape[0], start)


def gemm_of_activation(
    entry: Entry,
    activation: torch.Tensor,
    inv_smooth: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    buffers: Tensors,
    out: torch.Tensor,
    *,
    start: Start = by_jit,
) -> None:
    """The down kernel of a folded plan: activation [rows, K], its `buffers["row_amax"]` and fp32
    inv_smooth [experts, K] to out [rows, N].
    """
    rows = (activation, buffers["row_amax"], inv_smooth)
    tensors = (*rows, weight, weight_scale, out)
    _gemm(entry, tensors, buffers, out, activation.shape[1], weight.shape[0], start)


def _gemm(
    entry: Entry,
    tensors: tuple[torch.Tensor, ...],
    buffers: Tensors,
    out: torch.Tensor,
    k: int,
    experts: int,
    start: Start,
) -> None:
    rows, n = out.shape
    tiles = _tiles(buffers)
    tensors = (*tensors, *tiles)
    row_tiles, columns = tiles[0].numel(), n // entry.columns_per_program
    counts = _counts(entry, {"rows": rows, "N": n, "K": k, "experts": experts})
    if entry.programs is None:
        start(entry, (row_tiles, columns), tensors, counts)
    else:
        grid = (min(entry.programs, row_tiles * columns),)
        start(entry, grid, tensors, (*counts, row_tiles))


def combine(
    entry: Entry,
    y: torch.Tensor,
    slot_row: torch.Tensor,
    weights: torch.Tensor,
    out: torch.Tensor,
    *,
    start: Start = by_jit,
) -> None:
    """y [rows, N] and fp32 weights [tokens, top_k] to out [tokens, N]."""
    tokens, n = out.shape
    start(
        entry,
        (tokens, -(-n // entry.columns_per_program)),
        (y, slot_row, weights, out),
        (weights.shape[1], *_counts(entry, {"N": n})),
    )
