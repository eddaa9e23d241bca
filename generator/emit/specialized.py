"""What the templates of `templates/gluon/` need to know of a GEMM whose warps have roles."""

from __future__ import annotations

from dataclasses import dataclass

from generator.emit.constants import Constant
from generator.formats import FORMATS
from generator.lower.contract import GemmContract
from generator.lower.exactness import NIBBLE_FACTOR
from generator.lower.variant import Variant
from generator.lower.warps import LINE, PART_ROWS, stage_bytes

Context = dict[str, object]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a tile's rows: what `_finish` is called with."""

    arguments: str
    slice: str
    offset: str


@dataclass(frozen=True, slots=True)
class RingWalk:
    """The walk along K in the names of a kernel."""

    kind: str  # channel | groups | pairs: which macro
    turns: str  # what the loop counts
    steps: int  # stages of one group
    all_steps: str  # stages of K
    stride: str  # elements from one group's scales to the next
    stride_factor: str
    scales: str  # of a row
    columns: int  # rows of x that one matrix instruction takes
    sum_columns: str
    halvings: int  # until sums are of PART_ROWS rows
    keeps: bool  # whether a sum in the making goes from one turn to the next
    sums: str
    accumulators: tuple[str, ...]
    parts: tuple[Part, ...]


def specialized(variant: Variant, gemm: GemmContract) -> Context:
    """The names of `templates/gluon/kernel.py.jinja`."""
    design, planes = variant.design, variant.planes
    walk = _walk(variant, gemm)
    grouped = gemm.group_k is not None
    contract = []
    if grouped:
        why = "K elements that share one weight scale"
        contract.append(Constant("GROUP_K", gemm.group_k, why))
    if planes:
        why = "byte j of a block holds K elements j (low) and PLANE_K + j (high)"
        contract.append(Constant("PLANE_K", LINE, why))
    constants = [
        Constant("BLOCK_M", design.block_m, "rows of a tile"),
        Constant("BLOCK_N", design.block_n, "columns of a tile"),
        Constant("STAGES", design.stages, "tiles of 128 bytes of every row, in the ring"),
        Constant("STAGE_BYTES", stage_bytes(variant), "of a stage: weights and rows"),
        Constant("PART_M", PART_ROWS, "rows whose results are stored at once"),
    ]
    if design.order == "blocks":
        constants.append(Constant("TILE_BLOCK", 8, "row tiles that take turns at the same columns"))
    if planes:
        why = "weights are multiplied 16 times too large"
        constants.append(Constant("NIBBLE", 1 / NIBBLE_FACTOR, why))
    names = ["rows", "experts", "n_tiles", walk.turns, "tiles"]
    return {
        "runtime_arguments": "[" + ", ".join(f'"{name}"' for name in names) + "]",
        "contract_constants": contract,
        "design_constants": constants,
        "walk": walk,
        "gate": bool(gemm.gate),
        "planes": planes,
        "unpack": design.unpack,
        "open": "",
        "close": "",
        "cast": "",
        "exp": gemm.exp,
        "amax": gemm.amax,
        "sums": "total, w_scale" if walk.kind == "channel" else "acc",
        "out": "a" if gemm.gate else "y",
        "part": "PART" if walk.halvings else "SUMS",
        "rounded": FORMATS[gemm.rounded].dtype,
        "output": gemm.output,
        "output_dtype": FORMATS[gemm.output].dtype,
        "result_columns": 32 if gemm.gate else 64,
        "result_lanes": "[8, 4]" if gemm.gate else "[4, 8]",
        "weights": FORMATS[gemm.weights].dtype,
        "packing": ", two int4 a byte, in planes" if planes else "",
        "row_bytes": "K // 2" if planes else "K",
        "row_bytes_name": "row_bytes" if planes else "K",
        "w_rows": "2 * N" if gemm.gate else "N",
        "w_rows_first": "(2 * N)" if gemm.gate else "N",
        "scale": gemm.scale,
        "unit": _unit(variant, gemm),
        "order": design.order,
        "place": {
            "tiles": "number, tiles",
            "columns": "number, n_tiles",
            "blocks": "number, tiles, n_tiles",
        }[design.order or "tiles"],
    }


def _unit(variant: Variant, gemm: GemmContract) -> str:
    """K elements of a turn, in the constants of the module."""
    if gemm.group_k is None:
        return str(variant.walk.unit_k)
    return "(2 * GROUP_K)" if variant.walk.groups == 2 else "GROUP_K"


def _walk(variant: Variant, gemm: GemmContract) -> RingWalk:
    design, planes = variant.design, variant.planes
    assert design.block_m is not None
    channel = gemm.group_k is None
    kind = "channel" if channel else "pairs" if planes else "groups"
    stride = "2 * N" if gemm.gate else "N"
    steps = variant.walk.unit_k // LINE if not planes and not channel else 1
    turns = variant.turns
    sum_rows = design.block_m // 2 if planes else design.block_m
    halvings = (sum_rows // PART_ROWS).bit_length() - 1
    sums = "total" if channel else "acc"
    names = ("left", "right") if planes else tuple(f"part{i}" for i in range(1 << halvings))
    if not planes and not halvings:
        names = (sums,)
    parts = tuple(
        Part(
            f"{name}, w_scale" if channel else name,
            f".slice({PART_ROWS * index}, {PART_ROWS})",
            f" + {PART_ROWS * index}" if index else "",
        )
        for index, name in enumerate(names)
    )
    return RingWalk(
        kind=kind,
        turns=turns,
        steps=steps,
        all_steps=turns if steps == 1 else f"{turns} * {steps}",
        stride=stride,
        stride_factor=f"({stride})" if " " in stride else stride,
        scales="1" if channel else f"2 * {turns}" if variant.walk.groups == 2 else turns,
        columns=min(sum_rows, 2 * PART_ROWS),
        sum_columns="PART_M" if planes else "BLOCK_M",
        halvings=halvings,
        keeps=channel or steps > 1,
        sums=sums,
        accumulators=() if channel else ("left", "right") if planes else ("acc",),
        parts=parts,
    )
