"""The walk along K in the names of a kernel: what the macros of `templates/macros/walk.jinja` read.

Everything that a template would have to decide is decided here: which loop, which tiles, which
pointer expressions, where a sum starts and where it is scaled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from generator.emit.walk_text import (
    DOWN_SUMS,
    JOINED_SUMS,
    UP_SUMS,
    Dot,
    Load,
    Move,
    Part,
    Promotion,
    Step,
    Sum,
    TailText,
    WalkText,
)
from generator.lower.contract import GemmContract
from generator.lower.variant import Variant
from generator.lower.walk import Advance, Plane, Tail, Tile, Walk
from generator.packing import block_length

# Scales of columns are loaded before they are needed where a thread has few of them: by weights
# first, whose rows are lanes, and by tiles of no more rows than this, whose warps part the columns.
# 128 rows by 128 columns per channel took 172 registers so and 124 otherwise, by which two programs
# share a processor, and Mixtral-8x7B's layer 577 and 553 us (one H100, 2026-11-26, graph replays).
SHORT_ROWS = 32


class Names:
    """How one variant writes rows, weights, sums and lengths."""

    def __init__(self, variant: Variant, gemm: GemmContract, *, groups: int) -> None:
        self.joined = variant.design.gates == "joined"
        self.sums = JOINED_SUMS if self.joined else UP_SUMS if gemm.gate else DOWN_SUMS
        self.groups = groups  # of a turn; a tail has one
        self.grouped = gemm.group_k is not None
        self.requantizes = gemm.requantizes
        self.planes = variant.planes
        self.swapped = variant.design.swapped
        self.outer = variant.design.dot == "rank1"
        self.fp16 = variant.design.dot == "fp16_exact"
        self.chunked = variant.chunk_turns is not None
        self.times_16 = variant.design.unpack in ("shift", "ptx")
        self.lengths = lengths(variant)
        self.plane_k = plane_k(gemm)

    @property
    def shape(self) -> str:
        """Of sums and results."""
        if self.joined:
            return "(2 * BLOCK_N, BLOCK_M)"
        return "(BLOCK_N, BLOCK_M)" if self.swapped else "(BLOCK_M, BLOCK_N)"

    @property
    def along_columns(self) -> str:
        return "[:, None]" if self.swapped else "[None, :]"

    @property
    def dot_dtype(self) -> str:
        return "float32" if self.fp16 else "int32"

    @property
    def total_dtype(self) -> str:
        return "float32" if self.fp16 and not self.chunked else "int32"

    @property
    def cast(self) -> str:
        """From int8 to what the dot takes."""
        return ".to(tl.float16)" if self.fp16 else ""

    @property
    def row_pointers(self) -> list[str]:
        return ["x_ptrs", "inv_smooth_ptrs"] if self.requantizes else ["x_ptrs"]

    def spell(self, length: int) -> str:
        """A length in the constants of the module where one of them says it, else the number."""
        for each in self.lengths:
            if length == each.value:
                return each.name
        for each in self.lengths:
            if each.name == "BLOCK_K":  # a tile's length says nothing of its multiples
                continue
            if length in (2 * each.value, 4 * each.value):
                return f"{length // each.value} * {each.name}"
            if 2 * length == each.value:
                return f"{each.name} // 2"
        return str(length)

    def repeat_moves(self, walk: Walk) -> tuple[Move, ...]:
        """At the end of a turn of the inner loop: by a tile, or by a block in several tiles."""
        if walk.step.rows == walk.step.weights:
            by = self.spell(walk.step.rows)
            return self._moves(walk.step, rows=by, weights=by)
        return self._moves(walk.step, rows="2 * PLANE_K", weights="PLANE_K")

    def moves(self, walk: Walk, *, repeated: str) -> tuple[Move, ...]:
        """After the tiles in a row: to the end of a turn, or from where an inner loop, which went
        `repeated`, and the tiles after it leave the pointers.
        """
        step, unit = walk.rest, self.spell(walk.unit_k)
        if not walk.repeat:
            return self._moves(step, rows=unit, weights=self.spell(step.weights))
        if not self.planes:
            left = f"{unit} - {repeated}"
            return self._moves(step, rows=left, weights=left)
        if not step.weights:  # the first plane is done, and with it the second
            return self._moves(step, rows="PLANE_K", weights="")
        return self._moves(step, rows=f"{unit} - {repeated}", weights=f"PLANE_K - {repeated}")

    def _moves(self, step: Advance, *, rows: str, weights: str) -> tuple[Move, ...]:
        """Of rows and weights, where they move."""
        by_rows = [Move(each, rows) for each in self.row_pointers if step.rows]
        by_weights = [Move(each.pointers, weights) for each in self.sums if step.weights]
        return tuple(by_rows + by_weights)

    def steps(
        self, tiles: Sequence[Tile], *, form: str, fresh: bool, parts: bool, half: str = ""
    ) -> tuple[Step, ...]:
        """Loads and dots of tiles in a row; `fresh` starts each sum at its first tile. `half`: how
        far away the second plane lies, where that is not PLANE_K.
        """
        planes = [plane for tile in tiles for plane in tile.planes]
        several, started, steps, index = len(planes) > 1, set(), [], 0
        for number, tile in enumerate(tiles):
            suffix = str(number) if len(tiles) > 1 else ""
            rows, dots = [], []
            for side, plane in enumerate(tile.planes):
                name = f"x{index}" if several else "x"
                index += 1
                rows.append(self._rows(name, plane, tile, side, half=half))
                for each in self.sums:
                    total = each.part if parts else each.total_of(plane.group, self.groups)
                    starts = fresh and total not in started
                    first, second = self._operands(name, f"{each.weights}{suffix}", side)
                    dots.append(
                        Dot("start" if starts else form, total, first, second, self.dot_dtype)
                    )
                started |= {dot.sum for dot in dots}
            weights = tuple(
                Load(
                    "weights",
                    f"{each.weights}{suffix}",
                    self._at(each.pointers, tile.offset, tile.size),
                    "",
                    "" if self.planes else self.cast,
                )
                for each in self.sums
            )
            steps.append(Step(tuple(rows), weights, tuple(dots)))
        return tuple(steps)

    def _rows(self, name: str, plane: Plane, tile: Tile, side: int, *, half: str) -> Load:
        offset: int | str = plane.offset
        if side == 1 and half:
            offset = half
        elif side == 1:
            rest = plane.offset - self.plane_k
            offset = f"PLANE_K + {rest}" if rest else "PLANE_K"
        return Load(
            "unquantized" if self.requantizes else "codes",
            name,
            self._at("x_ptrs", offset, tile.size),
            self._at("inv_smooth_ptrs", offset, tile.size),
            self.cast,
        )

    def _at(self, pointers: str, offset: int | str, size: int) -> str:
        parts = [pointers, str(offset) if offset else "", "" if size == 1 else f"k{size}"]
        return " + ".join(part for part in parts if part)

    def _operands(self, rows: str, weights: str, side: int) -> tuple[str, str]:
        """Of a dot, in the design's order; either is stored with K contiguous."""
        if self.planes:
            weights = f"{('_low', '_high')[side]}({weights})"
        first, second = (weights, rows) if self.swapped else (rows, weights)
        return first, f"tl.trans({second})"

    @property
    def scales_of_a_turn(self) -> str:
        """Elements from one turn's scales to the next."""
        row = self._row_of_scales(self.sums[0], self.groups)
        return f"({row})" if " " in row else row

    def _row_of_scales(self, each: Sum, group: int) -> str:
        """Elements from the first group's scales of a turn to those of another."""
        return each.scale_row if group == 1 else f"{group} * {each.scale_row}"

    def totals(self) -> tuple[str, ...]:
        return tuple(
            s.total_of(group, self.groups) for group in range(self.groups) for s in self.sums
        )

    def promotions(self, *, last: bool = False, ahead: bool = False) -> tuple[Promotion, ...]:
        """Every group of a turn, in ascending order; `last`: no group follows; `ahead`: a turn's
        scales have names of their own.
        """
        return tuple(
            Promotion(
                each.name,
                each.total_of(group, self.groups)
                + (".to(tl.float32)" if self.total_dtype == "int32" else ""),
                f"{each.scale}{group}" if ahead and self.groups > 1 else each.scale,
                each.scale_pointers,
                "" if last else each.scale_row,
                " * NIBBLE" if self.times_16 else "",
                f" + {self._row_of_scales(each, group)}" if group else "",
            )
            for group in range(self.groups)
            for each in self.sums
        )


@dataclass(frozen=True, slots=True)
class Length:
    """A named number of K elements, or of steps."""

    name: str
    value: int
    why: str


def plane_k(gemm: GemmContract) -> int:
    """K elements of one plane of a block of nibbles."""
    return block_length(gemm.group_k) // 2


def lengths(variant: Variant) -> tuple[Length, ...]:
    """The lengths that a module names, contract first: what pointers move by and loops count."""
    gemm, walk, design = variant.gemm, variant.walk, variant.design
    assert gemm is not None and design.block_k is not None
    named = []
    if gemm.group_k is not None:
        named.append(Length("GROUP_K", gemm.group_k, "K elements that share one weight scale"))
    elif variant.planes:
        block = block_length(gemm.group_k)
        named.append(Length("BLOCK", block, "K elements of a block: two planes of nibbles"))
    stepwise = walk.repeat > 0 and walk.step.rows == design.block_k > 1
    if stepwise or (gemm.group_k is None and not variant.planes):
        named.append(Length("BLOCK_K", design.block_k, "K elements per dot"))
    return tuple(named)


def walk_text(variant: Variant, gemm: GemmContract) -> WalkText:
    """The walk of a variant."""
    walk = variant.walk
    names = Names(variant, gemm, groups=walk.groups)
    chunked_turn = walk.repeat > 0 and names.chunked and names.grouped
    rounded = chunked_turn and variant.chunk_turns == 1
    in_chunks = chunked_turn and not rounded
    across = names.chunked and not names.grouped  # chunks of whole turns
    fresh = names.grouped and walk.repeat == 0 and not names.outer
    form = "add_outer" if names.outer else "add_rounded" if rounded else "add"
    few_columns = names.swapped or (variant.design.block_m or 0) <= SHORT_ROWS
    # What a tail scales follows the last turn's.
    ahead = few_columns and names.grouped and variant.tail is None
    tile_sizes = {tile.size for tile in walk.repeated + walk.tiles}
    tile_sizes |= {variant.tail.tile} if variant.tail else set()
    return WalkText(
        kind="grouped" if names.grouped else "channel_in_chunks" if across else "channel",
        inner=_inner(variant, in_chunks=in_chunks),
        turns=variant.turns,
        early=few_columns and not names.grouped,
        ahead=names.scales_of_a_turn if ahead else "",
        cut=_cut(variant),
        shape=names.shape,
        along_columns=names.along_columns,
        sizes=tuple(sorted(tile_sizes - {1}, reverse=True)),
        names=tuple(each.name for each in names.sums),
        totals=() if fresh else names.totals(),
        total_dtype=names.total_dtype,
        parts=tuple(Part(s.total, s.part) for s in names.sums) if in_chunks or across else (),
        repeated=names.steps(walk.repeated, form=form, fresh=False, parts=in_chunks or across),
        repeat_moves=names.repeat_moves(walk),
        steps=names.steps(
            walk.tiles, form="add_rounded" if in_chunks else form, fresh=fresh, parts=across
        ),
        moves=names.moves(
            walk, repeated=f"{'CHUNKS * CHUNK_TURNS' if in_chunks else 'STEPS'} * BLOCK_K"
        ),
        promotions=names.promotions(ahead=ahead),
        tail=_tail(variant, gemm, variant.tail) if variant.tail else None,
    )


def _inner(variant: Variant, *, in_chunks: bool) -> str:
    if in_chunks:
        return "in_blocks_in_chunks" if variant.walk.blocks > 1 else "in_chunks"
    if variant.walk.blocks > 1:
        return "in_blocks"
    return "in_a_loop" if variant.walk.repeat else "in_a_row"


def _cut(variant: Variant) -> str:
    """What a turn covers, in a comment."""
    walk = variant.walk
    what = {1: "One group", 2: "Two groups", 4: "Four groups"}[walk.groups]
    if any(len({plane.group for plane in tile.planes}) > 1 for tile in walk.tiles + walk.repeated):
        what += ", one in each plane" if walk.groups == 2 else ", one in each plane of two blocks"
    if variant.design.dot == "rank1":
        return f"{what}, in outer products of one K element each."
    if variant.planes and walk.groups == 1:
        what = "One group, in two planes"
    sizes = [str(tile.size) for tile in walk.tiles]
    if walk.repeat:
        body = " + ".join(str(tile.size) for tile in walk.repeated)
        sizes.insert(0, f"{walk.repeat} * {body if len(walk.repeated) == 1 else f'({body})'}")
    cut = " + ".join(sizes)
    if walk.blocks > 1:
        cut = f"{walk.blocks} * {f'({cut})' if len(sizes) > 1 else cut}"
    return f"{what}, in exact tiles: {cut}."


def _tail(variant: Variant, gemm: GemmContract, tail: Tail) -> TailText:
    """The steps of a tail are equal, one tile each."""
    names = Names(variant, gemm, groups=1)
    kind, why = _tail_kind(tail, grouped=names.grouped)
    tile = Tile(0, tail.tile, tuple(Plane(0, 0) for _ in range(tail.planes)))
    form = "add_outer" if names.outer else "add_rounded" if names.chunked else "add"
    fresh = names.grouped and tail.one_step
    unit = names.spell(variant.walk.unit_k)
    by = "TAIL_K" if tail.planes == 1 else "1" if tail.tile == 1 else "K_UNIT // 2"
    pointers = [*names.row_pointers, *(each.pointers for each in names.sums)]
    return TailText(
        kind=kind,
        why=why,
        done=f"{variant.turns} * {f'({unit})' if ' ' in unit else unit}",
        shape=names.shape,
        along_columns=names.along_columns,
        totals=() if fresh else names.totals(),
        total_dtype=names.total_dtype,
        steps=names.steps(
            [tile],
            form=form,
            fresh=fresh,
            parts=False,
            half="GROUP_K // 2" if tail.one_step else "half",
        ),
        moves=tuple(Move(each, by) for each in pointers),
        piece_moves=tuple(Move(each, "half") for each in names.row_pointers),
        promotions=names.promotions(last=not tail.scaled or tail.one_piece),
        block_turns="half" if names.outer else "units",
    )


def _tail_kind(tail: Tail, *, grouped: bool) -> tuple[str, str]:
    """The macro of a tail, and a comment on it. A loop is for tails of several lengths only."""
    of, last = ("group", "The last group is short") if grouped else ("row", "A short tile is left")
    if tail.planes == 1 and tail.one_step:
        return f"{of}_step", f"{last}: K_UNIT elements."
    if tail.planes == 1:
        return f"{of}_steps", f"{last}."
    lone = "A group without a partner is a block of its own: two planes of"
    if tail.scaled and tail.one_step:
        return "group_step", f"{lone} GROUP_K // 2 elements."
    if tail.scaled:
        return "group_block" if tail.one_piece else "lone_groups", f"{lone} `half` elements."
    if not tail.one_piece:
        return "group_blocks", f"{last}."
    if not grouped:
        last = "A shorter block may be left"
    return f"{of}_block", f"{last}: two planes of `half` elements."
