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
    bound: int  # terms * |codes|max * |weights|max
    accumulator: str
    capacity: int  # largest integer that the accumulator holds exactly

    @property
    def holds(self) -> bool:
        return self.bound <= self.capacity

    def __str__(self) -> str:
        per_term = self.bound // self.terms
        return (
            f"|group sum| <= {self.terms} * {per_term} = {self.bound}"
            f" {'<' if self.holds else '>='} 2**31, held in {self.accumulator}"
        )


def prove(contract: Contract, limits: Limits) -> Proof | None:
    """The proof for a contract's group sums; None where an operation sums no integers."""
    if not isinstance(contract, GemmContract):
        return None
    terms = contract.group_k or limits.k
    bound = terms * FORMATS[contract.codes].magnitude * FORMATS[contract.weights].magnitude
    return Proof(terms, bound, "int32", INT32_MAX)
