"""What compilers made of variants, as far as it is on record: truth that the rules of resources
foretell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from generator.resources import Figures, Record


@dataclass(frozen=True, slots=True)
class Compiled:
    """One variant as one Triton compiled it for one target."""

    target: str
    triton: str
    figures: Figures


@dataclass(frozen=True)
class Measured:
    """The records of a specs folder, by variant."""

    records: Sequence[Record]

    @cached_property
    def _by_symbol(self) -> dict[str, tuple[Compiled, ...]]:
        found: dict[str, tuple[Compiled, ...]] = {}
        for record in self.records:
            for symbol, figures in record.variants.items():
                one = Compiled(record.target, record.triton, figures)
                found[symbol] = (*found.get(symbol, ()), one)
        return found

    def of(self, symbol: str) -> tuple[Compiled, ...]:
        """Every record of a variant, by target and version of Triton."""
        return self._by_symbol.get(symbol, ())

    def spills(self, symbol: str) -> str | None:
        """The worst stack on record, and whose; None where nothing spilled or is on record."""
        worst = max(self.of(symbol), key=lambda each: each.figures.stack, default=None)
        if worst is None or not worst.figures.stack:
            return None
        return (
            f"{worst.figures.stack} bytes of stack, compiled for {worst.target} by Triton"
            f" {worst.triton}; use other warps or tiles"
        )


UNMEASURED = Measured(())
