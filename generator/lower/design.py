"""Design: how a contract is computed, and its name."""

from __future__ import annotations

from dataclasses import dataclass

from generator.lower.derived import derived


@dataclass(frozen=True)
class Design:
    """Tile sizes, warps, stages and traits. What an operation does not have is None."""

    warps: int
    stages: int
    block_m: int | None = None
    block_n: int | None = None
    block_k: int | None = None
    dot: str | None = None
    unpack: str | None = None
    tail: str | None = None
    offsets: str | None = None
    operands: str | None = None
    order: str | None = None
    row: str | None = None
    gates: str | None = None
    roles: str | None = None

    @property
    def name(self) -> str:
        """Tile, warps and stages, then what departs from the usual: int8 dots, no tail, int32, rows
        before weights, row tiles one after the other, warps that are alike.
        """
        return self.stem if self.order in (None, "tiles") else f"{self.stem}_{self.order}"

    @derived
    def stem(self) -> str:
        """The name without the order of programs, which stands last."""
        blocks = (("m", self.block_m), ("n", self.block_n), ("k", self.block_k))
        tile = "".join(f"{letter}{size}" for letter, size in blocks if size is not None)
        traits = (
            {"fp16_exact": "fp16", "rank1": "rank1"}.get(self.dot or "", ""),
            self.unpack if self.unpack not in (None, "none") else "",
            "tail" if self.tail == "any" else "",
            *((self.roles,) if self.roles is not None else self._schedule),
            "whole" if self.row == "whole" else "",
        )
        return "_".join([tile, f"w{self.warps}s{self.stages}", *(each for each in traits if each)])

    @property
    def _schedule(self) -> tuple[str, ...]:
        """What designs whose warps have roles have in common."""
        return (
            "wide" if self.offsets == "int64" else "",
            "swap" if self.swapped else "",
            "joined" if self.gates == "joined" else "",
        )

    @property
    def specialized(self) -> bool:
        """Whether warps have roles of their own: see `warps.py`."""
        return self.roles is not None

    @property
    def swapped(self) -> bool:
        """Whether weights are a dot's first operand, so that rows are the narrow dimension of a
        matrix instruction.
        """
        return self.operands == "weights_first"
