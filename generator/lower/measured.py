"""What compilers made of variants, as far as it is on record: truth that the rules of resources
foretell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING

from generator.lower.contract import Contract, GemmContract
from generator.resources import Calibration, Figures, Record

if TYPE_CHECKING:
    from generator.lower.variant import Variant


# Of what makes variants faulty, by symbol: the largest figure, and by what it was compiled.
Worst = dict[str, tuple[int, str]]


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
    def _stacks(self) -> Worst:
        """The largest stack of each symbol that has one, and who compiled it."""
        calibrated = (
            (symbol, taken.stack, f"{each.target} by Triton {each.triton}")
            for each in self.calibrations
            for symbol, taken in each.by_symbol().items()
        )
        return _worst((*self._recorded(lambda figures: figures.stack), *calibrated))

    @cached_property
    def _unset(self) -> Worst:
        """The most registers that each symbol reads though nothing set them, where it does."""
        return _worst(self._recorded(lambda figures: figures.unset))

    def _recorded(self, figure: Callable[[Figures], int]) -> Iterator[tuple[str, int, str]]:
        for symbol, compiled in self._by_symbol.items():
            for each in compiled:
                yield symbol, figure(each.figures), f"{each.target} by Triton {each.triton}"

    @cached_property
    def _starts(self) -> frozenset[str]:
        """Whatever comes before an underscore in the symbol of a variant that is faulty."""
        return frozenset(
            symbol[:index]
            for symbol in (*self._stacks, *self._unset)
            for index, letter in enumerate(symbol)
            if letter == "_"
        )

    @cached_property
    def faulty(self) -> Measured:
        """What must not ship, of all that is on record. It is all that rules ask for, and small
        enough to be compared: what was judged by it holds when the same specs are loaded again.
        """
        records = (
            replace(each, variants={k: v for k, v in each.variants.items() if v.faulty})
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

    def any_faulty(self, contract: Contract, target: str) -> bool:
        """Whether a variant of a contract's geometry is on record as faulty on a target."""
        return any(f"{name}_{target}" in self._starts for name in alike(contract))

    def of(self, symbol: str) -> tuple[Compiled, ...]:
        """Every record of a variant, by target and version of Triton."""
        return self._by_symbol.get(symbol, ())

    def spills(self, variant: Variant) -> str | None:
        """The largest stack on record, and whose; None where nothing spilled or is on record."""
        found = _against(variant, self._stacks)
        return f"{found[0]} bytes of stack{found[1]}; use other warps or tiles" if found else None

    def miscompiled(self, variant: Variant) -> str | None:
        """How many registers are on record as read though nothing set them, and whose; None where
        there are none.
        """
        found = _against(variant, self._unset)
        if not found:
            return None
        return f"{found[0]} registers read and never set{found[1]}; use other stages or tiles"


def _worst(found: Iterable[tuple[str, int, str]]) -> Worst:
    worst: Worst = {}
    for symbol, figure, by in found:
        if figure > worst.get(symbol, (0, ""))[0]:
            worst[symbol] = (figure, by)
    return worst


def _against(variant: Variant, worst: Worst) -> tuple[int, str] | None:
    """The most against a variant, and in what: what is faulty in one contract of a geometry is told
    of all.
    """
    design = f"_{variant.target.name}_{variant.design.name}"
    found = [
        (*worst[symbol], name)
        for name in alike(variant.contract)
        if (symbol := name + design) in worst
    ]
    if not found:
        return None
    figure, by, name = max(found, key=lambda each: each[0])
    return figure, f" in {name}, compiled for {by}"


@cache
def alike(contract: Contract) -> tuple[str, ...]:
    """The names of every contract of its geometry."""
    if not isinstance(contract, GemmContract):
        return (contract.name,)
    return tuple(dict.fromkeys(each.name for each in contract.alike()))


UNMEASURED = Measured()
