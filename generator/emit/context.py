"""What a template needs to know of a variant, decided here so that templates hold kernel text
only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from generator.emit.constants import Constant
from generator.emit.header import header
from generator.emit.specialized import specialized
from generator.emit.walk import Length, Names, lengths, plane_k, walk_text
from generator.emit.walk_text import WalkText
from generator.formats import FORMATS
from generator.lower.contract import (
    CombineContract,
    CountContract,
    DispatchContract,
    GemmContract,
    QuantizeContract,
    RouteContract,
)
from generator.lower.design import Design
from generator.lower.exactness import NIBBLE_FACTOR
from generator.lower.variant import ROW_UNIT, Variant
from generator.packing import K_UNIT

Context = dict[str, object]

# Row tiles whose programs take turns: 8 of 128 rows and their columns are what 132 processors hold
# at once, and both operands of them fit the L2 cache.
TILE_BLOCK = 8
# What a thread of 256 holds in 32 registers: counts of chunks, and pairs of slots.
COUNTS_PER_STEP = 8192
SLOTS_PER_STEP = 32
CHOICES = 4  # rows in flight: one at a time waits for each
# Row scales are loaded before K is walked, so that nothing waits for them after it. With nibbles
# that pays where group scales come a turn ahead and tiles are short: Qwen3-30B's layer took 292 us
# so and 286 otherwise by tiles of 64 rows, and without scales ahead 97 and 92 by tiles of 16 (one
# H100, 2026-11-26, graph replays).
ROWS_BESIDE_NIBBLES = 32


def context(variant: Variant) -> Context:
    """The names of the frame `kernel.py.jinja` and of the operation's body."""
    design = variant.design
    shared: Context = {
        "symbol": variant.symbol,
        "header": header(variant),
        "warps": design.warps,
        "stages": design.stages,
        "contract_constants": (),
        "design_constants": (),
        "unaligned": "",
    }
    match variant.contract:
        case GemmContract() if design.specialized:
            return shared | specialized(variant, variant.contract)
        case GemmContract():
            return shared | _gemm(variant, variant.contract)
        case QuantizeContract():
            return shared | _quantize(variant, variant.contract)
        case CountContract():
            return shared | _count(variant, variant.contract)
        case RouteContract():
            return shared | _route(variant, variant.contract)
        case DispatchContract():
            return shared | _dispatch(variant, variant.contract)
        case CombineContract():
            return shared | _combine(variant, variant.contract)


def template(variant: Variant) -> str:
    """The body template of a variant."""
    match variant.contract:
        case RouteContract(source=source):
            return f"route_{source}.py.jinja"
        case QuantizeContract():
            return "quantize.py.jinja"
        case GemmContract() if variant.design.specialized:
            return "gluon/kernel.py.jinja"
        case _:
            return f"{variant.contract.operation}.py.jinja"


def _names(names: Sequence[str]) -> str:
    """A list of argument names, as the formatter would write it."""
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


def _gemm(variant: Variant, gemm: GemmContract) -> Context:
    design, walk = variant.design, walk_text(variant, gemm)
    assert design.block_m is not None
    steps = variant.counts[1].argument
    stride = "2 * N" if gemm.gate else "N"
    turn, *scales = _scales(variant, gemm)
    fp16 = design.dot == "fp16_exact"
    cast = ".to(tl.float16)" if fp16 else ""
    own = [each for each in lengths(variant) if each.name == "BLOCK_K"]
    shared = [each for each in lengths(variant) if each.name != "BLOCK_K"]
    if variant.planes:
        why = "byte j of a block holds K elements j (low) and PLANE_K + j (high)"
        shared.append(Length("PLANE_K", plane_k(gemm), why))
    requantizes = _code_constants(gemm.codes) if gemm.requantizes else []
    rounded = FORMATS[gemm.rounded].dtype
    plain, output = gemm.output == "fp32", FORMATS[gemm.output].dtype
    silu = "_silu(gate) * up"
    along_rows = "[None, :]" if design.swapped else "[:, None]"
    return {
        "runtime_arguments": _names(["n_tiles", steps]),
        "contract_constants": [
            *(Constant(each.name, each.value, each.why) for each in shared),
            *requantizes,
        ],
        "design_constants": [
            Constant("BLOCK_M", design.block_m, "rows per program"),
            Constant("BLOCK_N", design.block_n, "columns per program"),
            *(Constant(each.name, each.value, each.why) for each in own),
            *_order_constants(design),
            *_step_constants(variant, walk),
        ],
        "scale": gemm.scale,
        "scales_of_a_row": turn,
        "scale_stride": _product(stride, turn),
        "lengths": [*_lengths(variant), *scales],
        "steps_argument": steps,
        "k_unit_name": "K_UNIT" if variant.tail else _unit(variant, gemm),
        "row_offset": "rows.to(tl.int64)[:, None]"
        if design.offsets == "int64"
        else "rows[:, None]",
        "weights": FORMATS[gemm.weights].dtype,
        "packing": ", two int4 a byte, in planes" if variant.planes else "",
        "row_bytes": "K // 2" if variant.planes else "K",
        "row_bytes_factor": "row_bytes" if variant.planes else "K",
        "planes": variant.planes,
        "unpack": design.unpack,
        "open": "(" if fp16 else "",
        "close": f"){cast}" if fp16 else "",
        "cast": cast,
        "input": gemm.input,
        "requantizes": gemm.requantizes,
        "smooth_lanes": " + tl.arange(0, 1)" if design.dot == "rank1" else "",
        "rounding_mode": gemm.rounding,
        "amax": gemm.amax,
        "rounded": rounded,
        "output": gemm.output,
        "output_dtype": FORMATS[gemm.output].dtype,
        "order": design.order,
        "joined": design.gates == "joined",
        "column": "tl.program_id(1)" if design.order == "tiles" else "column",
        "along_rows": along_rows,
        "activation": _in_rows(design, f"({silu}).to(tl.{output})" if not plain else silu),
        "row_scales_first": not variant.planes
        or (bool(walk.ahead) and design.block_m <= ROWS_BESIDE_NIBBLES),
        "result": _in_rows(design, f"(acc * x_scale{along_rows}).to(tl.{output})"),
        "smoothed": "a" if plain else "a.to(tl.float32)",
        "exp": gemm.exp,
        "walk": walk,
    }


def _in_rows(design: Design, results: str) -> str:
    """A tile of results as it is stored: a row of it is a row of the output."""
    return f"tl.trans({results})" if design.swapped else results


def _product(stride: str, scales: str) -> str:
    """Elements from one expert's scales to the next, as a factor."""
    product = stride if scales == "1" else f"{stride} * {scales}"
    return f"({product})" if " " in product else product


@dataclass(frozen=True, slots=True)
class Line:
    """A name and the expression that it is set to."""

    name: str
    value: str


def _unit(variant: Variant, gemm: GemmContract) -> str:
    """K elements of a turn, in the constants of the module."""
    unit = Names(variant, gemm, groups=variant.walk.groups).spell(variant.walk.unit_k)
    return f"({unit})" if " " in unit else unit


def _lengths(variant: Variant) -> list[Line]:
    """K and what follows from it."""
    assert variant.gemm is not None
    unit = _unit(variant, variant.gemm)
    if variant.tail:
        lines = [Line("K", "k_units * K_UNIT"), Line(variant.turns, f"K // {unit}")]
    else:
        lines = [Line("K", f"{variant.turns} * {unit}")]
    return lines + ([Line("row_bytes", "K // 2")] if variant.planes else [])


def _scales(variant: Variant, gemm: GemmContract) -> tuple[Any, ...]:
    """How a kernel writes the scales of a row, and the line that it may need before."""
    if gemm.group_k is None:
        return ("1",)
    if variant.tail:
        return ("scales", Line("scales", "(K + GROUP_K - 1) // GROUP_K"))
    groups = variant.walk.groups
    return (variant.turns if groups == 1 else f"{groups} * {variant.turns}",)


def _order_constants(design: Design) -> list[Constant]:
    why = "row tiles that take turns at the same columns"
    return [Constant("TILE_BLOCK", TILE_BLOCK, why)] if design.order == "blocks" else []


def _step_constants(variant: Variant, walk: WalkText) -> list[Constant]:
    """Counts of steps, and units of a tail, as far as the text uses them."""
    constants, turn, tail = [], variant.walk, variant.tail
    if walk.inner in ("in_a_loop", "in_blocks"):
        constants.append(Constant("STEPS", turn.repeat, "turns of the inner loop"))
    if turn.blocks > 1:
        constants.append(Constant("BLOCKS", turn.blocks, "blocks of one group"))
    if walk.inner in ("in_chunks", "in_blocks_in_chunks"):
        chunks = turn.repeat // (variant.chunk_turns or 1)
        constants.append(Constant("CHUNKS", chunks, "chunks of one group"))
    if walk.parts:
        why = "turns whose sum fp32 holds exactly"
        constants.append(Constant("CHUNK_TURNS", variant.chunk_turns, why))
    if tail is not None:
        constants.append(Constant("K_UNIT", K_UNIT, "K is a multiple of it"))
        if not tail.one_piece:
            units = tail.piece_k // K_UNIT
            constants.append(Constant("PIECE_UNITS", units, "K_UNITs that a piece has at most"))
        if tail.planes == 1 and not tail.one_step:
            constants.append(Constant("TAIL_K", tail.tile, "K elements per dot of the tail"))
    if variant.design.unpack in ("shift", "ptx"):
        why = "weights are multiplied 16 times too large"
        constants.append(Constant("NIBBLE", 1 / NIBBLE_FACTOR, why))
    return constants


def _code_constants(codes: str) -> list[Constant]:
    """What quantization to integer codes names."""
    return [
        Constant("CODE_MAX", _largest(codes), "largest code"),
        Constant("SCALE_FLOOR", "1e-6", "below it, a row's scale is 1"),
        Constant("INFINITY_BITS", "0x7F800000", "fp32 bit patterns from here on are not finite"),
    ]


def _quantize(variant: Variant, contract: QuantizeContract) -> Context:
    design = variant.design
    gathers = contract.source == "gather"
    return {
        "runtime_arguments": _names(["rows", *(["top_k"] if gathers else []), "k_units"]),
        "contract_constants": _code_constants(contract.codes),
        "design_constants": [
            Constant("BLOCK_M", design.block_m, "rows per program"),
            _row_columns(design),
            UNIT,
        ],
        "source": contract.source,
        "row": design.row,
        "input": contract.input,
        "rounding_mode": contract.rounding,
    }


def _largest(integer_format: str) -> float:
    highest = FORMATS[integer_format].highest
    assert highest is not None, integer_format
    return float(highest)


UNIT = Constant("UNIT_K", ROW_UNIT, "K is a multiple of it, so loads stay 16 bytes wide")


def _row_columns(design: Design) -> Constant:
    why = "columns per step" if design.row == "steps" else "columns of a row, at most"
    return Constant("BLOCK_K", design.block_k, why)


def _bins(design: Design) -> Constant:
    return Constant("EXPERT_BINS", design.block_n, "at least the number of experts")


def _count(variant: Variant, contract: CountContract) -> Context:
    return {
        "runtime_arguments": _names(["slots", "experts", "first_expert"]),
        "unaligned": _names(["id_ptr"]),
        "contract_constants": [Constant("CHUNK", contract.chunk, "slots that are counted at once")],
        "design_constants": [_bins(variant.design)],
    }


def _dispatch(variant: Variant, contract: DispatchContract) -> Context:
    design = variant.design
    arguments = ["slots", "top_k", "experts", "first_expert", "block_m", "tiles", "k_units"]
    return {
        "runtime_arguments": _names(arguments),
        "unaligned": _names(["id_ptr"]),
        "contract_constants": _code_constants(contract.codes),
        "design_constants": [
            Constant("STEP", design.block_m, "slots or tiles per step"),
            _bins(design),
            _row_columns(design),
            UNIT,
        ],
        "input": contract.input,
        "rounding_mode": contract.rounding,
    }


def _route(variant: Variant, contract: RouteContract) -> Context:
    design = variant.design
    sorts: list[Constant] = []
    if contract.chunk is not None:
        assert design.block_n is not None
        chunks = max(1, COUNTS_PER_STEP // design.block_n)
        sorts = [
            Constant("STEP_CHUNKS", chunks, "chunks whose counts are added up per step"),
            Constant("STEP_SLOTS", SLOTS_PER_STEP, "slots that a chunk is compared with per step"),
        ]
    arguments = {
        "ids": ["slots", "experts", "first_expert", "block_m", "tiles"],
        "counts": ["rows", "experts", "block_m", "tiles"],
    }[contract.source]
    return {
        "runtime_arguments": _names(arguments),
        "unaligned": _names(["id_ptr" if contract.source == "ids" else "count_ptr"]),
        "contract_constants": []
        if contract.chunk is None
        else [Constant("CHUNK", contract.chunk, "slots that were counted at once")],
        "design_constants": [
            Constant("STEP", design.block_m, "rows or tiles per step"),
            _bins(design),
            *sorts,
        ],
    }


def _combine(variant: Variant, contract: CombineContract) -> Context:
    return {
        "runtime_arguments": _names(["top_k", "n_units"]),
        "unaligned": _names(["weight_ptr"]),
        "design_constants": [
            Constant("BLOCK_N", variant.design.block_n, "columns per program"),
            Constant("CHOICES", CHOICES, "slots whose rows are loaded at once"),
            Constant("UNIT_N", ROW_UNIT, "N is a multiple of it, so loads stay 16 bytes wide"),
        ],
        "output": contract.output,
        "output_dtype": FORMATS[contract.output].dtype,
    }
