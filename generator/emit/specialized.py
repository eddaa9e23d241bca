"""What the templates of `templates/gluon/` need to know of a GEMM whose warps have roles."""

from __future__ import annotations

from dataclasses import dataclass

from generator.emit.constants import Constant
from generator.formats import FORMATS
from generator.lower.contract import GemmContract
from generator.lower.exactness import NIBBLE_FACTOR
from generator.lower.variant import Variant
from generator.lower.warps import (
    PART_ROWS,
    WEIGHT_ROWS,
    is_pingpong,
    left_rows,
    of_rows,
    ring_stages,
    rows_of_dot,
    run_bytes,
    stage_bytes,
    stages_of_group,
    takes_short_tiles,
)
from generator.packing import K_UNIT, block_length

Context = dict[str, object]


@dataclass(frozen=True, slots=True)
class Half:
    """A half of the weight rows that a group of warps multiplies."""

    half: str
    mark: str  # of names that each half has one of


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a tile's rows: what `_leave` is called with."""

    arguments: str
    slice: str
    place: str  # in shared memory
    full: bool  # whether it is the last that shared memory holds, and others follow


@dataclass(frozen=True, slots=True)
class Side:
    """The rows that one dot with nibbles takes: all of a tile, or either half."""

    sum: str  # the integer that dots add to
    acc: str  # what it is added to once it is scaled
    rows: str  # the first of them, and how many


@dataclass(frozen=True, slots=True)
class RingWalk:
    """The walk along K in the names of a kernel."""

    function: str
    what: str  # rows of a tile, for the function's docstring
    rows: str
    layout: str  # of integer sums
    scale_slice: str  # scales of those rows, of all
    kind: str  # channel | both_halves | groups | channel_blocks | pairs | blocks: which macro
    turns: str  # what the loop counts
    steps: int  # stages of one group
    all_steps: str  # stages of K
    stride: str  # elements from one group's scales to the next
    stride_factor: str
    scales: str  # of a row
    sum_columns: str
    splits: tuple[str, ...]  # of sums, until they are of PART_ROWS rows
    keeps: bool  # whether a sum in the making goes from one turn to the next
    halves: tuple[Half, ...]
    accumulators: tuple[str, ...]
    parts: tuple[Part, ...]
    sides: tuple[Side, ...]  # of nibbles
    tail: bool  # whether a group of fewer stages may follow


def specialized(variant: Variant, gemm: GemmContract) -> Context:
    """The names of `templates/gluon/kernel.py.jinja`."""
    design, planes = variant.design, variant.planes
    walk = _walk(variant, gemm, short=False)
    short = takes_short_tiles(variant)
    walks = [walk, _walk(of_rows(variant, PART_ROWS), gemm, short=True)] if short else [walk]
    grouped, tail = gemm.group_k is not None, design.tail == "any"
    assert design.block_k is not None
    lines = run_bytes(variant) // design.block_k if planes else 1
    contract = []
    if grouped:
        why = "K elements that share one weight scale"
        contract.append(Constant("GROUP_K", gemm.group_k, why))
    if planes:
        why = "byte j of a block holds K elements j (low) and PLANE_K + j (high)"
        contract.append(Constant("PLANE_K", block_length(gemm.group_k) // 2, why))
    constants = [
        Constant("BLOCK_M", design.block_m, "rows of a tile"),
        Constant("BLOCK_N", design.block_n, "columns of a tile"),
        Constant("LINE", design.block_k, "bytes of every row in a stage"),
        Constant("STAGES", ring_stages(variant), "of the ring"),
        Constant("STAGE_BYTES", stage_bytes(variant), "of a stage: weights and rows"),
        Constant("HALF_N", WEIGHT_ROWS // 2, "weight rows of half a tile"),
        Constant("PART_M", PART_ROWS, "rows of a short tile, and of sums that are scaled at once"),
    ]
    why = "of PART_M rows, whose results wait in shared memory"
    constants.append(Constant("LEFT_PARTS", left_rows(variant) // PART_ROWS, why))
    if short:
        length = stage_bytes(of_rows(variant, PART_ROWS))
        why = "of a tile by PART_M rows or fewer"
        constants.append(Constant("SHORT_STAGE_BYTES", length, why))
    if design.order == "blocks":
        constants.append(Constant("TILE_BLOCK", 8, "row tiles that take turns at the same columns"))
    if planes:
        why = "weights are multiplied 16 times too large"
        constants.append(Constant("NIBBLE", 1 / NIBBLE_FACTOR, why))
    if walk.steps > 1:
        constants.append(Constant("GROUP_STAGES", walk.steps, "of a group"))
    if lines > 1:
        constants.append(Constant("PLANE_LINES", lines, "stages of a plane"))
    if tail:
        constants.append(Constant("K_UNIT", K_UNIT, "K is a multiple of it"))
    k_count = "k_units" if tail else walk.turns
    names = ["rows", "experts", "n_tiles", k_count, "tiles"]
    return {
        "runtime_arguments": "[" + ", ".join(f'"{name}"' for name in names) + "]",
        "contract_constants": contract,
        "design_constants": constants,
        "pingpong": is_pingpong(variant),
        "walk": walk,
        "walks": walks,
        "short": short,
        "twice": any(part.full for part in walk.parts),
        "wide": any(each.layout == "SUMS" for each in walks),
        "channel": not grouped,
        "tail": tail,
        "lines": lines,
        "k_count": k_count,
        "k_unit": "K_UNIT" if tail else _unit(variant, gemm),
        "gate": bool(gemm.gate),
        "planes": planes,
        "unpack": design.unpack,
        "open": "",
        "close": "",
        "cast": "",
        "exp": gemm.exp,
        "amax": gemm.amax,
        "sums": "acc" if grouped else "total, w_scale",
        "out": "a" if gemm.gate else "y",
        "rounded": FORMATS[gemm.rounded].dtype,
        "output": gemm.output,
        "output_dtype": FORMATS[gemm.output].dtype,
        "weights": FORMATS[gemm.weights].dtype,
        "packing": ", two int4 a byte, in planes" if planes else "",
        "row_bytes": "K // 2" if planes else "K",
        "row_bytes_name": "row_bytes" if planes else "K",
        "w_rows": "2 * N" if gemm.gate else "N",
        "w_rows_first": "(2 * N)" if gemm.gate else "N",
        "scale": gemm.scale,
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


def _walk(variant: Variant, gemm: GemmContract, *, short: bool) -> RingWalk:
    design = variant.design
    assert design.block_m is not None
    channel = gemm.group_k is None
    stride = "2 * N" if gemm.gate else "N"
    turns = variant.turns
    sum_rows = rows_of_dot(variant)
    by_halves = sum_rows < design.block_m
    steps = stages_of_group(variant)
    rows = "PART_M" if short else "BLOCK_M"
    sides: tuple[Side, ...] = (Side("total", "acc", f"0, {rows}"),)
    if by_halves:
        ends = ("left", "right") if variant.walk.groups == 2 else ("left_sum", "right_sum")
        sides = (Side(ends[0], "left", "0, PART_M"), Side(ends[1], "right", "PART_M, PART_M"))
    tail = design.tail == "any"
    all_steps = turns if steps == 1 else f"{turns} * GROUP_STAGES"
    scales = "1" if channel else f"2 * {turns}" if variant.walk.groups == 2 else turns
    if tail:
        scales = f"({turns} + gl.minimum(rest, 1))"
    splits, parts = _parts(variant, channel=channel)
    return RingWalk(
        function="_short_tile" if short else "_tile",
        what="PART_M rows or fewer" if short else "BLOCK_M rows",
        rows=rows,
        layout="SUMS" if sum_rows > PART_ROWS else "PART",
        scale_slice=".slice(0, PART_M)" if short else "",
        kind=_kind(variant),
        turns=turns,
        steps=steps,
        all_steps=all_steps + (" + rest" if tail else ""),
        stride=stride,
        stride_factor=f"({stride})" if " " in stride else stride,
        scales=scales,
        sum_columns="PART_M" if by_halves else rows,
        splits=splits,
        keeps=channel or steps > 1,
        halves=(Half("0", "0"), Half("1", "1")) if is_pingpong(variant) else (Half("half", ""),),
        accumulators=() if channel else tuple(side.acc for side in sides),
        parts=parts,
        sides=sides,
        tail=tail,
    )


def _parts(variant: Variant, *, channel: bool) -> tuple[tuple[str, ...], tuple[Part, ...]]:
    """How sums are split into those of PART_ROWS rows, and these in the order of rows."""
    design = variant.design
    assert design.block_m is not None
    if is_pingpong(variant):
        sums = {"top": ", w_scale0", "bottom": ", w_scale1"}
    elif rows_of_dot(variant) < design.block_m:
        return (), (
            Part("left", ".slice(0, PART_M)", "LEFT_PARTS * half", False),
            Part("right", ".slice(PART_M, PART_M)", "LEFT_PARTS * half + 1", False),
        )
    else:
        sums = {"total": ", w_scale"} if channel else {"acc": ""}
    splits = []
    by_rows: list[list[str]] = [[] for _ in range(design.block_m // PART_ROWS)]
    for name, scale in sums.items():
        names = [name]
        while len(names) < len(by_rows):
            last = 2 * len(names) == len(by_rows)
            halved = [f"{each}{end}" for each in names for end in "01"]
            for index, each in enumerate(names):
                both = ", ".join(halved[2 * index : 2 * index + 2])
                splits.append(f"{both} = _halves({each}, {'PART' if last else 'SUMS'})")
            names = halved
        for own, each in zip(by_rows, names, strict=True):
            own.append(f"{each}{scale}")
    held = left_rows(variant) // PART_ROWS
    parts = []
    for index, own in enumerate(by_rows):
        start = "PART_M" if index == 1 else f"{index} * PART_M" if index else "0"
        piece = f".slice({start}, PART_M)" if len(by_rows) > 1 else ""
        for half, arguments in enumerate(own):
            place = (
                f"own + {2 * index + half}"
                if len(own) > 1
                else (f"LEFT_PARTS * half + {index % held}")
            )
            full = index % held == held - 1 and index + 1 < len(by_rows)
            parts.append(Part(arguments, piece, place.removesuffix(" + 0"), full))
    return tuple(splits), tuple(parts)


def _kind(variant: Variant) -> str:
    assert variant.gemm is not None
    if variant.gemm.group_k is None:
        if is_pingpong(variant):
            return "both_halves"
        return "channel_blocks" if variant.planes else "channel"
    if not variant.planes:
        return "groups"
    return "pairs" if variant.walk.groups == 2 else "blocks"
