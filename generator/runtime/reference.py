"""The oracle: every stage in plain torch, to the bit, on any device and without Triton.

Group sums are float64 matrix products of small integers (exact below 2**53), fma rounds a float64
sum to odd, and divisions are by tensors (torch turns a Python scalar divisor into a reciprocal on
CUDA). The numeric contract that these functions fix is stated in ARCHITECTURE.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

Tensor = torch.Tensor

SCALE_FLOOR = 1e-6  # a row's scale below it is 1
CODE_MAX = 127.0


def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """fp32 a * b + c with one rounding.

    Source: Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", IEEE TC 57(4), 2008.
    """
    product, addend = torch.broadcast_tensors(a.double() * b.double(), c.double())
    total = product + addend
    part = total - product
    error = (product - (total - part)) + (addend - part)
    bits = total.contiguous().view(torch.int64)
    to_odd = (error != 0) & ((bits & 1) == 0) & torch.isfinite(total)
    nudged = torch.where((error > 0) == (total > 0), bits + 1, bits - 1)
    return torch.where(to_odd, nudged, bits).view(torch.float64).float()


def _constant(value: float, like: Tensor) -> Tensor:
    return torch.full((), value, dtype=torch.float32, device=like.device)


def exp(t: Tensor) -> Tensor:
    """exp of fp32 in [-87, 88]; above that Inf, below it exp(-87).

    Source: the Cephes expf polynomial (Moshier, 1989) with a two-part ln 2, every step an fma.
    """

    def fma_constants(a: Tensor, b: float | Tensor, c: float | Tensor) -> Tensor:
        b = b if isinstance(b, Tensor) else _constant(b, a)
        return fma(a, b, c if isinstance(c, Tensor) else _constant(c, a))

    clamped = t.clamp(-87.0, 88.0)
    n = fma_constants(clamped, 1.4426950408889634, 12582912.0) - 12582912.0
    r = fma_constants(n, -0.693359375, clamped)
    r = fma_constants(n, 2.12194440e-4, r)
    p = fma_constants(r, 1.9875691500e-4, 1.3981999507e-3)
    for coefficient in (8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        p = fma_constants(p, r, coefficient)
    p = fma(p, r * r, r) + 1.0
    n = torch.where(torch.isnan(n), torch.zeros_like(n), n)
    e = (p.view(torch.int32) + (n.to(torch.int32) << 23)).view(torch.float32)
    return torch.where(t > 88.0, _constant(float("inf"), t), e)


def silu(g: Tensor, exp_of_minus_g: Tensor) -> Tensor:
    """g / (1 + exp(-g)), one correctly rounded division; silu(+Inf) = Inf, silu(-Inf) = NaN, NaN
    stays NaN.
    """
    return torch.where(torch.isnan(g), g, g / (1.0 + exp_of_minus_g))


def quantize(
    x: Tensor, inv_smooth: Tensor, row_expert: Tensor, rounding: str
) -> tuple[Tensor, Tensor]:
    """Rows x [rows, K] to int8 codes [rows, K] and fp32 scale [rows]; every row must have an
    expert.
    """
    smoothed = x.float() * inv_smooth[row_expert.long()]
    top = amax_bits(x, inv_smooth, row_expert)
    finite = top < 0x7F800000
    amax = torch.where(finite, top, torch.zeros_like(top)).view(torch.float32)
    scale = amax / _constant(CODE_MAX, amax)
    scale = torch.where(scale < _constant(SCALE_FLOOR, scale), torch.ones_like(scale), scale)
    v = smoothed / scale[:, None]
    v = torch.where(finite[:, None], v, torch.zeros_like(v))
    if rounding == "half_even":
        q = torch.round(v)
    else:
        t = torch.trunc(v)
        q = torch.where((v - t).abs() >= 0.5, t + torch.sign(v), t)
    nan = torch.full_like(scale, float("nan"))
    return q.to(torch.int8), torch.where(finite, scale, nan)


def amax_bits(x: Tensor, inv_smooth: Tensor, row_expert: Tensor) -> Tensor:
    """int32 [rows]: bits of the largest |x * inv_smooth| of each row; NaN > Inf > finite."""
    smoothed = x.float() * inv_smooth[row_expert.long()]
    return smoothed.abs().contiguous().view(torch.int32).amax(dim=1)


def gemm(
    codes: Tensor,
    scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    row_expert: Tensor,
    group_k: int | None,
) -> Tensor:
    """fp32 rows [rows, N] of a grouped GEMM, before any rounding to 16 bits.

    codes int8 [rows, K], scale fp32 [rows], weight int8 [E, N, K], weight_scale [E, groups, N],
    row_expert [rows] in 0 .. E - 1; a scale covers `group_k` elements of K, the last one what is
    left, and all of K where it is None. Per group: an exact integer, one conversion to fp32, acc =
    fma(sum, weight scale, acc) from +0.
    """
    rows, k = codes.shape
    length = group_k or k
    out = torch.empty(rows, weight.shape[1], dtype=torch.float32, device=codes.device)
    for expert in torch.unique(row_expert).tolist():
        own = row_expert == expert
        acc = torch.zeros(int(own.sum()), weight.shape[1], device=codes.device)
        for group in range(-(-k // length)):
            part = slice(group * length, (group + 1) * length)
            total = codes[own, part].double() @ weight[expert, :, part].double().T
            acc = fma(total.float(), weight_scale[expert, group].float()[None, :], acc)
        out[own] = acc * scale[own, None]
    return out


def swiglu(y: Tensor, dtype: torch.dtype, intermediate: torch.dtype, exp_table: Tensor) -> Tensor:
    """silu(gate) * up of fp32 [rows, 2 I], gate and up rounded to `dtype` first, the product to
    `intermediate`.

    `exp_table` fp32 [65536] holds exp(-g) for every 16-bit pattern g of `dtype`.
    """
    gate, up = y.to(dtype).chunk(2, dim=1)
    patterns = gate.contiguous().view(torch.int16).long() & 0xFFFF
    return (silu(gate.float(), exp_table[patterns]) * up.float()).to(intermediate)


def exp_table(dtype: torch.dtype, device: torch.device) -> Tensor:
    """exp(-g), as `exp` defines it, of all 65536 bit patterns g of a 16-bit dtype."""
    return exp(-all_patterns(dtype, device).float())


def all_patterns(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Every value of a 16-bit dtype, in the order of its bit patterns."""
    patterns = torch.arange(65536, device=device, dtype=torch.int32).to(torch.int16)
    return patterns.view(dtype)


@dataclass(frozen=True)
class Routing:
    """What the route stage must produce."""

    slot_row: Tensor  # int32 [rows], -1 for absent slots
    row_slot: Tensor  # int32 [present], slots in row order
    row_expert: Tensor  # int32 [rows], -1 past the present rows
    tile_expert: Tensor  # int32 [tiles]
    tile_start: Tensor
    tile_end: Tensor


def count(ids: Tensor, experts: int, first_expert: int, chunk: int) -> Tensor:
    """Slots of each local expert in each chunk of slots: int32 [chunks, experts]."""
    local = ids.reshape(-1).long() - first_expert
    chunks = -(-local.numel() // chunk)
    owned = (local >= 0) & (local < experts)
    places = torch.arange(local.numel(), device=ids.device) // chunk * experts + local
    found = torch.bincount(places[owned], minlength=chunks * experts)
    return found.reshape(chunks, experts).int()


def route_ids(ids: Tensor, experts: int, first_expert: int, block_m: int, tiles: int) -> Routing:
    """A stable sort of slots by local expert; slots of other ids are absent."""
    local = ids.reshape(-1).long() - first_expert
    absent = (local < 0) | (local >= experts)
    local = torch.where(absent, torch.full_like(local, experts), local)
    order = torch.argsort(local, stable=True)
    present = int((~absent).sum())
    rows = local.numel()
    slot_row = torch.full((rows,), -1, dtype=torch.int32, device=ids.device)
    slot_row[order[:present]] = torch.arange(present, dtype=torch.int32, device=ids.device)
    counts = torch.bincount(local, minlength=experts + 1)[:experts]
    row_expert = torch.full((rows,), -1, dtype=torch.int32, device=ids.device)
    row_expert[:present] = local[order[:present]].int()
    tile_map = _tiles(counts.tolist(), block_m, tiles, rows=present)
    return Routing(
        slot_row,
        order[:present].int(),
        row_expert,
        *(torch.tensor(each, dtype=torch.int32, device=ids.device) for each in tile_map),
    )


def clamped_counts(tokens_per_expert: Tensor, rows: int) -> list[int]:
    """Negative counts are 0, and the sum ends at the rows there are."""
    left, counts = rows, []
    for count in tokens_per_expert.tolist():
        counts.append(min(max(count, 0), left))
        left -= counts[-1]
    return counts


def route_counts(tokens_per_expert: Tensor, rows: int, block_m: int, tiles: int) -> Routing:
    """Sorted rows: the same tile map, with tiles of no expert over the rows past the sum of the
    counts.
    """
    device = tokens_per_expert.device
    counts = clamped_counts(tokens_per_expert, rows)
    row_expert = torch.full((rows,), -1, dtype=torch.int32, device=device)
    experts = torch.arange(len(counts), dtype=torch.int32, device=device)
    owned = torch.repeat_interleave(experts, torch.tensor(counts, device=device))
    row_expert[: owned.numel()] = owned
    tile_map = _tiles(counts, block_m, tiles, rows=rows)
    nothing = torch.empty(0, dtype=torch.int32, device=device)
    return Routing(
        nothing,
        nothing,
        row_expert,
        *(torch.tensor(each, dtype=torch.int32, device=device) for each in tile_map),
    )


def _tiles(counts: list[int], block_m: int, tiles: int, *, rows: int) -> list[list[int]]:
    """Expert, start and end of each tile; tiles left over own rows up to `rows`, then nothing."""
    expert, start, end, first = [], [], [], 0
    for index, count in enumerate(counts):
        for offset in range(0, count, block_m):
            expert.append(index)
            start.append(first + offset)
            end.append(first + min(offset + block_m, count))
        first += count
    while len(expert) < tiles:
        expert.append(-1)
        start.append(min(first, rows))
        end.append(min(first + block_m, rows))
        first = end[-1]
    return [expert, start, end]


def combine(y: Tensor, slot_row: Tensor, weights: Tensor) -> Tensor:
    """[rows, N] by fp32 weights [tokens, k] to [tokens, N]: fma in slot order from +0, absent slots
    skipped.
    """
    tokens, top_k = weights.shape
    acc = torch.zeros(tokens, y.shape[1], dtype=torch.float32, device=y.device)
    for choice in range(top_k):
        row = slot_row.view(tokens, top_k)[:, choice].long()
        there = (row >= 0)[:, None]
        value = y[row.clamp(min=0)].float() if y.shape[0] else torch.zeros_like(acc)
        value = torch.where(there, value, torch.zeros_like(value))
        acc = torch.where(there, fma(weights[:, choice, None], value, acc), acc)
    return acc.to(y.dtype)
