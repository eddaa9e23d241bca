"""What the macros of `templates/macros/walk.jinja` read: the walk along K in the names of a kernel.

Plain data; `walk.py` fills it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sum:
    """One fp32 tile of results and the names around it."""

    name: str  # the scaled fp32 tile
    total: str  # the sum of one group
    part: str  # the fp32 sum of a chunk
    weights: str  # a loaded weight tile
    pointers: str  # of weights
    scale: str
    scale_pointers: str
    scale_row: str  # elements from one group's scales to the next

    def total_of(self, group: int, groups: int) -> str:
        return self.total if groups == 1 else f"{self.total}{group}"


UP_SUMS = (
    Sum(
        "gate",
        "gate_sum",
        "gate_part",
        "gate_w",
        "gate_ptrs",
        "gate_scale",
        "gate_scale_ptrs",
        "2 * N",
    ),
    Sum("up", "up_sum", "up_part", "up_w", "up_ptrs", "up_scale", "up_scale_ptrs", "2 * N"),
)
# Gate and up rows in one tile.
JOINED_SUMS = (Sum("both", "total", "part", "w", "w_ptrs", "w_scale", "w_scale_ptrs", "2 * N"),)
DOWN_SUMS = (Sum("acc", "total", "part", "w", "w_ptrs", "w_scale", "w_scale_ptrs", "N"),)


@dataclass(frozen=True, slots=True)
class Load:
    """One tile loaded; `kind` names the macro of a tile of rows."""

    kind: str  # codes | unquantized | weights
    name: str
    pointers: str
    smooth: str  # pointers of the smooth scales, where rows are still to be quantized
    cast: str


@dataclass(frozen=True, slots=True)
class Dot:
    """One dot of one tile; `form` names the macro."""

    form: str  # start | add | add_rounded | add_outer
    sum: str
    first: str
    second: str
    dtype: str


@dataclass(frozen=True, slots=True)
class Step:
    """The loads and dots of one tile of weights."""

    rows: tuple[Load, ...]
    weights: tuple[Load, ...]
    dots: tuple[Dot, ...]


@dataclass(frozen=True, slots=True)
class Move:
    """Pointers and how far they go."""

    pointers: str
    by: str


@dataclass(frozen=True, slots=True)
class Promotion:
    """A group's sum, scaled into its tile of results."""

    name: str
    total: str
    scale: str
    scale_pointers: str
    scale_row: str  # how far they go; "" where no group follows
    factor: str
    offset: str  # from the first group of a turn to this one, where a turn loads ahead


@dataclass(frozen=True, slots=True)
class Part:
    """A chunk's fp32 sum and the int32 sum that takes it."""

    total: str
    part: str


@dataclass(frozen=True, slots=True)
class TailText:
    """What follows the last whole turn; `kind` names the macro."""

    kind: str
    why: str  # a comment: "The last group is short."
    done: str  # K elements before it
    shape: str  # as of the whole walk, here and below
    along_columns: str
    totals: tuple[str, ...]
    total_dtype: str
    steps: tuple[Step, ...]
    moves: tuple[Move, ...]
    piece_moves: tuple[Move, ...]
    promotions: tuple[Promotion, ...]
    block_turns: str  # what steps through a block: of `units` and `half`, both of them its length


@dataclass(frozen=True, slots=True)
class WalkText:
    """The whole walk; `kind` and `inner` name macros."""

    kind: str  # grouped | channel | channel_in_chunks
    inner: str  # in_a_row | in_a_loop | in_blocks | in_chunks | in_blocks_in_chunks
    turns: str
    early: bool  # whether the one scale of a column is loaded before K is walked
    ahead: str  # elements from a turn's scales to the next one's, if loaded a turn ahead; else ""
    cut: str  # a comment: "One group in exact tiles: 128 + 128 + 64."
    shape: str  # of sums and results
    along_columns: str  # how an index of a column's scale is spread over them
    sizes: tuple[int, ...]  # tile lengths, longest first
    names: tuple[str, ...]
    totals: tuple[str, ...]  # set to zero before a turn, or before all of them
    total_dtype: str
    parts: tuple[Part, ...]
    repeated: tuple[Step, ...]
    repeat_moves: tuple[Move, ...]
    steps: tuple[Step, ...]
    moves: tuple[Move, ...]
    promotions: tuple[Promotion, ...]
    tail: TailText | None

    @property
    def part_names(self) -> list[str]:
        return [each.part for each in self.parts]
