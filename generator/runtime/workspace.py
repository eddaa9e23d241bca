"""The intermediates of one layer call: one statement of their shapes for sizing, allocating and
carving.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod

import torch

from ..errors import Finding, LaunchError
from ..formats import FORMATS
from ..packing import CHUNK
from .manifest import Layer
from .problem import LayerProblem

ALIGNMENT = 256  # bytes; every buffer starts where the widest access may


@dataclass(frozen=True, slots=True)
class Buffer:
    """One intermediate."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def torch_dtype(format_name: str) -> torch.dtype:
    """The torch dtype of an element format's name."""
    dtype: torch.dtype = getattr(torch, FORMATS[format_name].dtype)
    return dtype


def tile_bound(rows: int, owners: int, block_m: int) -> int:
    """Row tiles that suffice for any split of `rows` over `owners`; reached by some split."""
    owners = min(owners, rows)
    return owners + (rows - owners) // block_m


def buffers(
    problem: LayerProblem, layer: Layer, block_m: int, operations: Collection[str]
) -> Mapping[str, Buffer]:
    """Every intermediate of a layer call, by name, as far as a plan's operations use it. Tiles
    count one owner more: the rows nobody owns.
    """
    rows, hidden, intermediate = problem.rows, problem.hidden, problem.intermediate
    tiles = tile_bound(rows, problem.experts + 1, block_m)
    index = {
        "row_expert": Buffer((rows,), torch.int32),
        "tile_expert": Buffer((tiles,), torch.int32),
        "tile_start": Buffer((tiles,), torch.int32),
        "tile_end": Buffer((tiles,), torch.int32),
    }
    if "route" in operations:
        index["row_amax"] = Buffer((rows,), torch.int32)
    if "count" in operations:
        chunks = -(-rows // CHUNK)
        index["chunk_count"] = Buffer((chunks, problem.experts), torch.int32)
    values = {
        "hidden_codes": Buffer((rows, hidden), torch.int8),
        "hidden_scale": Buffer((rows,), torch.float32),
        "activation": Buffer((rows, intermediate), torch_dtype(layer.intermediate)),
    }
    if "requantize" in operations:
        values["activation_codes"] = Buffer((rows, intermediate), torch.int8)
        values["activation_scale"] = Buffer((rows,), torch.float32)
    if problem.widened:
        wide = Buffer((problem.widened, hidden), torch_dtype(layer.dtype))
        values |= {"hidden_wide": wide, "output_wide": wide}
    if problem.start == "rows":
        return index | values
    slots = {
        "slot_row": Buffer((rows,), torch.int32),
        "row_slot": Buffer((rows,), torch.int32),
        "expert_output": Buffer((rows, hidden), torch_dtype(layer.dtype)),
    }
    return index | slots | values


def _aligned(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT


def total_bytes(wanted: Mapping[str, Buffer]) -> int:
    return sum(_aligned(each.bytes) for each in wanted.values())


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each intermediate lies in a block of bytes."""

    buffers: Mapping[str, Buffer]
    offsets: Mapping[str, int]
    bytes: int

    def views(self, workspace: torch.Tensor) -> dict[str, torch.Tensor]:
        """The intermediates of a call in its block."""
        views = {}
        for name, each in self.buffers.items():
            offset = self.offsets[name]
            flat = workspace[offset : offset + each.bytes]
            views[name] = flat.view(each.dtype).view(each.shape)
        return views


def layout(wanted: Mapping[str, Buffer]) -> Layout:
    """The intermediates one behind the other."""
    offsets, end = {}, 0
    for name, each in wanted.items():
        offsets[name] = end
        end += _aligned(each.bytes)
    return Layout(wanted, offsets, end)


def block(needed: int, workspace: torch.Tensor | None, device: torch.device) -> torch.Tensor:
    """A block of bytes, the caller's or a fresh one. Raises LaunchError where the caller's is too
    small.
    """
    if workspace is None:
        return torch.empty(needed, dtype=torch.uint8, device=device)
    if not isinstance(workspace, torch.Tensor):
        what = f"is a {type(workspace).__name__}"
        raise LaunchError(Finding("workspace", what, "torch.empty(n, dtype=torch.uint8)"))
    findings = []
    if workspace.dtype != torch.uint8 or workspace.dim() != 1 or not workspace.is_contiguous():
        findings.append(
            Finding("workspace", "is no flat tensor of bytes", "torch.empty(n, dtype=torch.uint8)")
        )
    elif workspace.numel() < needed:
        what = f"holds {workspace.numel()} bytes of {needed}"
        findings.append(Finding("workspace", what, "size it by workspace_bytes(problem)"))
    elif workspace.device != device:
        what = f"is on {workspace.device}"
        findings.append(Finding("workspace", what, f"allocate it on {device}"))
    elif needed and workspace.data_ptr() % 16:
        what = "does not start at a multiple of 16 bytes"
        findings.append(Finding("workspace", what, "pass an unsliced tensor"))
    if findings:
        raise LaunchError(findings)
    return workspace
