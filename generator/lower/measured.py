"""What compilers made of variants, as far as it is on record: truth that the rules of resources
foretell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING

from generator.lower.contract import Contract, GemmContract
from generator.resources import Calibration, Figures, Record

if TYPE_CHECKING:
    from generator.lower.variant import Variant


@dataclass(frozen=True, slots=True)
class Compiled:
    """One variant as one Triton compiled it for one target."""

    target: str
    triton: str
    figures: Figures


@dataclass(frozen=True)
class Measured:
    """The records and calibrations of a specs folder, by variant."""

    records: Sequence[Record] = ()
    calibrations: Sequence[Calibration] = ()

    def __hash__(self) -> int:
        """Cheap, for a process has one or few of them."""
        return hash((len(self.records), len(self.calibrations)))

    @cached_property
    def _by_symbol(self) -> dict[str, tuple[Compiled, ...]]:
        found: dict[str, tuple[Compiled, ...]] = {}
        for record in self.records:
            for symbol, figures in record.variants.items():
                one = Compiled(record.target, record.triton, figures)
                found[symbol] = (*found.get(symbol, ()), one)
        return found

    @cached_property
    def _stacks(self) -> dict[str, tuple[int, str]]:
        """The largest stack of each symbol that has one, and who compiled it."""
        stacks = [
            (symbol, each.figures.stack, f"{each.target} by Triton {each.triton}")
            for symbol, compiled in self._by_symbol.items()
            for each in compiled
        ]
        stacks += [
            (symbol, taken.stack, f"{each.target} by Triton {each.triton}")
            for each in self.calibrations
            for symbol, taken in each.by_symbol().items()
        ]
        worst: dict[str, tuple[int, str]] = {}
        for symbol, stack, by in stacks:
            if stack > worst.get(symbol, (0, ""))[0]:
                worst[symbol] = (stack, by)
        return worst

    @cached_property
    def _starts(self) -> frozenset[str]:
        """Whatever comes before an underscore in the symbol of a variant that spills."""
        return frozenset(
            symbol[:index]
            for symbol in self._stacks
            for index, letter in enumerate(symbol)
            if letter == "_"
        )

    @cached_property
    def spilled(self) -> Measured:
        """What spills, of all that is on record. It is all that rules ask for, and small enough to
        be compared: what was judged by it holds when the same specs are loaded again.
        """
        records = (
            replace(each, variants={k: v for k, v in each.variants.items() if v.stack})
            for each in self.records
        )
        calibrations = (
            replace(
                each,
                designs={
                    contract: {name: taken for name, taken in designs.items() if taken.stack}
                    for contract, designs in each.designs.items()
                },
            )
            for each in self.calibrations
        )
        return Measured(tuple(records), tuple(calibrations))

    def any_spills(self, contract: Contract, target: str) -> bool:
        """Whether a variant of a contract's geometry is on record as spilling on a target."""
        return any(f"{name}_{target}" in self._starts for name in alike(contract))

    def of(self, symbol: str) -> tuple[Compiled, ...]:
        """Every record of a variant, by target and version of Triton."""
        return self._by_symbol.get(symbol, ())

    def spills(self, variant: Variant) -> str | None:
        """The largest stack on record, and whose; None where nothing spilled or is on record. What
        spills in one contract of a geometry is told of all.
        """
        design = f"_{variant.target.name}_{variant.design.name}"
        found = [
            (*self._stacks[symbol], name)
            for name in alike(variant.contract)
            if (symbol := name + design) in self._stacks
        ]
        if not found:
            return None
        stack, by, name = max(found, key=lambda each: each[0])
        return f"{stack} bytes of stack in {name}, compiled for {by}; use other warps or tiles"


@cache
def alike(contract: Contract) -> tuple[str, ...]:
    """The names of every contract of its geometry."""
    if not isinstance(contract, GemmContract):
        return (contract.name,)
    return tuple(dict.fromkeys(each.name for each in contract.alike()))


UNMEASURED = Measured()
