"""What a template needs to know of a variant, decided here so that templates hold kernel text
only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from generator.emit.header import header
from generator.formats import FORMATS
from generator.lower.contract import (
    CombineContract,
    GemmContract,
    QuantizeContract,
    RouteContract,
)
from generator.lower.variant import ROW_UNIT, Variant
from generator.lower.walk import Tile

Context = dict[str, object]


@dataclass(frozen=True, slots=True)
class Constant:
    """A named number of the module."""

    name: str
    value: object
    why: str


@dataclass(frozen=True, slots=True)
class Sum:
    """One fp32 tile of results and the names around it."""

    name: str  # the scaled fp32 tile
    total: str  # the int32 sum of one group
    weights: str  # a loaded weight tile
    pointers: str  # of weights
    scale: str
    scale_pointers: str
    scale_row: str  # elements from one group's scales to the next


@dataclass(frozen=True, slots=True)
class Dot:
    """One dot of one tile."""

    weights: str
    pointers: str  # expression that a load takes
    total: str
    accumulate: str  # the accumulator argument, or nothing where the dot starts the sum


@dataclass(frozen=True, slots=True)
class Step:
    """One tile of K: a load of rows and a dot per sum."""

    x: str
    pointers: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True, slots=True)
class WalkText:
    """The walk of one group, in the names of the kernel."""

    kind: str  # the macro: unrolled | looped | channel
    cut: str  # "128 + 128 + 64"
    sizes: tuple[int, ...]  # tile lengths, longest first
    sums: tuple[Sum, ...]
    repeated: tuple[Step, ...]  # body of the inner loop
    steps: tuple[Step, ...]  # tiles in a row, after the inner loop if there is one

    @property
    def names(self) -> list[str]:
        return [each.name for each in self.sums]

    @property
    def totals(self) -> list[str]:
        return [each.total for each in self.sums]


UP_SUMS = (
    Sum("gate", "gate_sum", "gate_w", "gate_ptrs", "gate_scale", "gate_scale_ptrs", "2 * N"),
    Sum("up", "up_sum", "up_w", "up_ptrs", "up_scale", "up_scale_ptrs", "2 * N"),
)
DOWN_SUMS = (Sum("acc", "total", "w", "w_ptrs", "w_scale", "w_scale_ptrs", "N"),)


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
        case GemmContract():
            return shared | _gemm(variant, variant.contract)
        case QuantizeContract():
            return shared | _quantize(variant, variant.contract)
        case RouteContract():
            return shared | _route(variant, variant.contract)
        case CombineContract():
            return shared | _combine(variant, variant.contract)


def template(variant: Variant) -> str:
    """The body template of a variant."""
    match variant.contract:
        case RouteContract(source=source):
            return f"route_{source}.py.jinja"
        case QuantizeContract():
            return "quantize.py.jinja"
        case _:
            return f"{variant.contract.operation}.py.jinja"


def _names(names: Sequence[str]) -> str:
    """A list of argument names, as the formatter would write it."""
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


def _gemm(variant: Variant, gemm: GemmContract) -> Context:
    design = variant.design
    steps = variant.counts[1].argument
    stride = "2 * N" if gemm.gate else "N"
    grouped = gemm.group_k is not None
    walk = _walk(variant, gemm)
    constants = [
        Constant("BLOCK_M", design.block_m, "rows per program"),
        Constant("BLOCK_N", design.block_n, "columns per program"),
    ]
    if not grouped or walk.kind == "looped":
        constants.append(Constant("BLOCK_K", design.block_k, "K elements per dot"))
    if walk.kind == "looped":
        rest = sum(tile.size for tile in variant.walk.tiles)
        constants.append(
            Constant("WHOLE_TILES", variant.walk.repeat, "dots of BLOCK_K in one group")
        )
        if rest:
            constants.append(Constant("REST_K", rest, "K elements of a group after those"))
    return {
        "runtime_arguments": _names(["n_tiles", steps]),
        "contract_constants": (
            [Constant("GROUP_K", gemm.group_k, "K elements that share one weight scale")]
            if grouped
            else []
        ),
        "design_constants": constants,
        "scale": gemm.scale,
        "groups": "groups" if grouped else "1",
        "scale_stride": f"{stride} * groups" if grouped else stride,
        "steps_argument": steps,
        "k_unit": "GROUP_K" if grouped else "BLOCK_K",
        "rounded": FORMATS[gemm.rounded].dtype,
        "output": gemm.output,
        "output_dtype": FORMATS[gemm.output].dtype,
        "exp": gemm.exp,
        "walk": walk,
    }


def _walk(variant: Variant, gemm: GemmContract) -> WalkText:
    walk = variant.walk
    sums = UP_SUMS if gemm.gate else DOWN_SUMS
    start = walk.repeat * walk.step
    rest = [Tile(tile.offset - start, tile.size) for tile in walk.tiles]
    repeated = [Tile(0, walk.step)] if walk.repeat else []
    cut = [f"{walk.repeat} * {walk.step}"] if walk.repeat else []
    cut += [str(tile.size) for tile in walk.tiles]
    sizes = {tile.size for tile in rest + repeated}
    grouped = "looped" if walk.repeat else "unrolled"
    kind = "channel" if gemm.group_k is None else grouped
    return WalkText(
        kind=kind,
        cut=" + ".join(cut),
        sizes=tuple(sorted(sizes, reverse=True)),
        sums=sums,
        repeated=_steps(repeated, sums, fresh=False),
        steps=_steps(rest, sums, fresh=kind == "unrolled"),
    )


def _steps(tiles: Sequence[Tile], sums: tuple[Sum, ...], *, fresh: bool) -> tuple[Step, ...]:
    """Loads and dots of tiles in a row; `fresh` starts the sums at the first of them."""

    def at(pointers: str, tile: Tile) -> str:
        offset = f"{tile.offset} + " if tile.offset else ""
        return f"{pointers} + {offset}k{tile.size}"

    return tuple(
        Step(
            x=f"x{index}" if len(tiles) > 1 else "x",
            pointers=at("x_ptrs", tile),
            dots=tuple(
                Dot(
                    weights=f"{each.weights}{index}" if len(tiles) > 1 else each.weights,
                    pointers=at(each.pointers, tile),
                    total=each.total,
                    accumulate="" if fresh and index == 0 else f", {each.total}",
                )
                for each in sums
            ),
        )
        for index, tile in enumerate(tiles)
    )


def _quantize(variant: Variant, contract: QuantizeContract) -> Context:
    design = variant.design
    gathers = contract.source == "gather"
    return {
        "runtime_arguments": _names(["rows", *(["top_k"] if gathers else []), "k_units"]),
        "contract_constants": [
            Constant("CODE_MAX", _largest(contract.codes), "largest code"),
            Constant("SCALE_FLOOR", "1e-6", "below it, a row's scale is 1"),
            Constant(
                "INFINITY_BITS", "0x7F800000", "fp32 bit patterns from here on are not finite"
            ),
        ],
        "design_constants": [
            Constant("BLOCK_M", design.block_m, "rows per program"),
            Constant("BLOCK_K", design.block_k, "columns per step"),
            Constant("UNIT_K", ROW_UNIT, "K is a multiple of it, so loads stay 16 bytes wide"),
        ],
        "source": contract.source,
        "input": contract.input,
        "rounding_mode": contract.rounding,
    }


def _largest(integer_format: str) -> float:
    highest = FORMATS[integer_format].highest
    assert highest is not None, integer_format
    return float(highest)


def _route(variant: Variant, contract: RouteContract) -> Context:
    design = variant.design
    arguments = {
        "ids": ["slots", "experts", "first_expert", "block_m", "tiles"],
        "counts": ["rows", "experts", "block_m", "tiles"],
    }[contract.source]
    return {
        "runtime_arguments": _names(arguments),
        "unaligned": _names(["id_ptr" if contract.source == "ids" else "count_ptr"]),
        "design_constants": [
            Constant("CHUNK", design.block_m, "slots, rows or tiles per step"),
            Constant("EXPERT_BINS", design.block_n, "at least the number of experts"),
        ],
    }


def _combine(variant: Variant, contract: CombineContract) -> Context:
    return {
        "runtime_arguments": _names(["top_k", "n_tiles"]),
        "unaligned": _names(["weight_ptr"]),
        "design_constants": [Constant("BLOCK_N", variant.design.block_n, "columns per program")],
        "output": contract.output,
        "output_dtype": FORMATS[contract.output].dtype,
    }
