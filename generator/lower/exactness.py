"""Proofs that integer sums are exact, from value ranges alone."""

from __future__ import annotations

from dataclasses import dataclass

from generator.formats import FORMATS
from generator.lower.contract import Contract, GemmContract
from generator.spec.model import Limits

INT32_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Proof:
    """The largest sum an accumulator can meet, and what it can hold."""

    terms: int  # products per sum
    code: int  # greatest |activation code|
    weight: int  # greatest |weight|
    accumulator: str
    capacity: int  # largest integer that the accumulator holds exactly

    @property
    def bound(self) -> int:
        """No partial sum exceeds it, whatever the order of the terms."""
        return self.terms * self.code * self.weight

    @property
    def holds(self) -> bool:
        return self.bound <= self.capacity

    def __str__(self) -> str:
        order = "<" if self.holds else ">="
        return (
            f"|group sum| <= {self.terms} * {self.code} * {self.weight} = {self.bound}"
            f" {order} 2**31, held in {self.accumulator}"
        )


def prove(contract: Contract, limits: Limits) -> Proof | None:
    """The proof for a contract's group sums; None where an operation sums no integers."""
    if not isinstance(contract, GemmContract):
        return None
    return Proof(
        terms=contract.group_k or limits.k,
        code=FORMATS[contract.codes].magnitude,
        weight=FORMATS[contract.weights].magnitude,
        accumulator="int32",
        capacity=INT32_MAX,
    )
