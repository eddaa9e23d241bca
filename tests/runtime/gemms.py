"""One up or down kernel alone: operands over their whole range, a launch, and the oracle."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from generator.formats import FORMATS
from generator.packing import groups_of
from generator.runtime import launch, reference
from generator.runtime.device import current
from generator.runtime.entry import Entry
from generator.runtime.manifest import Layer
from generator.runtime.nibbles import planes_of_rows
from generator.runtime.workspace import torch_dtype

EXPERTS = 2


@dataclass(frozen=True)
class Operands:
    """Rows of two experts, the first ones of expert 0, and the weights of a contract's GEMM."""

    layer: Layer
    group_k: int | None
    codes: torch.Tensor  # int8 [rows, K]
    scale: torch.Tensor  # fp32 [rows]
    weight: torch.Tensor  # int8 values [E, N, K]
    weight_scale: torch.Tensor  # [E, groups, N]
    first: int  # rows of expert 0

    @property
    def row_expert(self) -> torch.Tensor:
        rows = torch.arange(self.codes.shape[0], device=self.codes.device)
        return (rows >= self.first).int()

    @property
    def stored(self) -> torch.Tensor:
        """The weights in kernel layout."""
        int4 = self.layer.weights == "int4"
        return planes_of_rows(self.weight, self.group_k) if int4 else self.weight

    def tiles(self, block_m: int, shift: int = 0) -> dict[str, torch.Tensor]:
        """The tile map, with every row moved on by `shift`."""
        cut = [
            (expert, start, min(start + block_m, stop))
            for expert, first, stop in ((0, 0, self.first), (1, self.first, self.codes.shape[0]))
            for start in range(first, stop, block_m)
        ]
        expert, start, end = (
            torch.tensor(each, dtype=torch.int32, device=self.codes.device)
            for each in zip(*cut, strict=True)
        )
        return {"tile_expert": expert, "tile_start": start + shift, "tile_end": end + shift}

    @property
    def sums(self) -> torch.Tensor:
        """What the oracle makes of them, before any rounding to 16 bits."""
        return reference.gemm(
            self.codes, self.scale, self.weight, self.weight_scale, self.row_expert, self.group_k
        )


def operands(
    layer: Layer,
    group_k: int | None,
    k: int,
    n: int,
    device: torch.device,
    *,
    rows: int = 37,
    seed: int = 0,
) -> Operands:
    """Codes of -128 .. 127 and weights of their whole range; row 0 and column 0 at their ends, so
    that one sum is the greatest there is, and others the least.
    """
    random = torch.Generator(device).manual_seed(seed)
    stored = FORMATS[layer.weights]
    low, high = stored.lowest, stored.highest
    assert low is not None and high is not None

    def integers(low: int, high: int, *shape: int) -> torch.Tensor:
        options = {"dtype": torch.int8, "device": device, "generator": random}
        return torch.randint(low, high + 1, shape, **options)

    codes, weight = integers(-128, 127, rows, k), integers(low, high, EXPERTS, n, k)
    codes[0], codes[1], codes[-1] = -128, 127, -127
    weight[:, 0], weight[:, 1], weight[:, -1] = low, high, low
    scale = torch.rand(rows, device=device, generator=random) + 0.5
    groups = groups_of(k, group_k)
    weight_scale = torch.rand(EXPERTS, groups, n, device=device, generator=random) + 0.5
    weight_scale = (weight_scale / (stored.magnitude / 2 * k**0.5 * 64)).to(
        torch_dtype(layer.scale)
    )
    return Operands(layer, group_k, codes, scale, weight, weight_scale, first=rows // 3)


def run_codes(entry: Entry, given: Operands, n: int, dtype: torch.dtype) -> torch.Tensor:
    """An up or a down kernel that reads codes; without the amax."""
    device = given.codes.device
    out = torch.full((given.codes.shape[0], n), 77.0, dtype=dtype, device=device)
    with current(device):
        launch.gemm(
            entry,
            given.codes,
            given.scale,
            given.stored,
            given.weight_scale,
            given.tiles(entry.rows_per_program),
            out,
        )
    return out
