"""Proofs that integer sums are exact, from value ranges alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from generator.formats import FORMATS
from generator.lower.contract import Contract, GemmContract
from generator.spec.model import Limits

INT32_MAX = 2**31 - 1
FP32_INTEGERS = 2**24  # every integer up to it is an fp32 value, and so is every sum below it
NIBBLE_FACTOR = 16  # of nibbles that stay in the upper half of their byte


@dataclass(frozen=True, slots=True)
class Bound:
    """The largest sum that one accumulator can meet, and what it can hold."""

    what: str  # group | chunk
    terms: int  # products per sum
    code: int  # greatest |activation code|
    weight: int  # greatest |weight|
    factor: int  # by which weights are multiplied too large
    accumulator: str  # int32 | fp32
    capacity: int  # largest integer that the accumulator holds exactly

    @property
    def sum(self) -> int:
        """No partial sum exceeds it, whatever the order of the terms."""
        return self.terms * self.code * self.factor * self.weight

    @property
    def holds(self) -> bool:
        return self.sum <= self.capacity

    @property
    def longest(self) -> int:
        """Most terms whose sum is exact."""
        return self.capacity // (self.code * self.factor * self.weight)

    def __str__(self) -> str:
        limit, inside, outside = (
            ("2**31", "<", ">=") if self.accumulator == "int32" else ("2**24", "<=", ">")
        )
        weight = f"({self.factor} * {self.weight})" if self.factor > 1 else self.weight
        return (
            f"|{self.what} sum| <= {self.terms} * {self.code} * {weight} = {self.sum}"
            f" {inside if self.holds else outside} {limit}, held in {self.accumulator}"
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """The bounds of every accumulator that a group's sum goes through."""

    bounds: tuple[Bound, ...]
    chunk: int | None  # K elements after which fp32 is rounded to int32; None: never

    @property
    def holds(self) -> bool:
        return all(bound.holds for bound in self.bounds)

    def __str__(self) -> str:
        return "; ".join(str(bound) for bound in self.bounds)


def prove(
    contract: Contract, limits: Limits, *, dot: str | None = "int8", unpack: str | None = "none"
) -> Proof | None:
    """The proof for a contract's group sums by a dot strategy; None where an operation sums no
    integers.

    An fp32 accumulator takes a whole group where that is exact, else chunks that int32 adds up.
    """
    if not isinstance(contract, GemmContract):
        return None
    terms = contract.group_k or limits.k
    factor = NIBBLE_FACTOR if unpack in ("shift", "ptx") else 1
    of = "row" if contract.group_k is None else "group"
    return _prove(of, terms, contract.codes, contract.weights, factor, dot == "fp16_exact")


@cache
def _prove(of: str, terms: int, codes: str, weights: str, factor: int, fp32: bool) -> Proof:
    """Of sums of so many products, a group's or a whole row's; `fp32` holds them where it can."""
    code, weight = FORMATS[codes].magnitude, FORMATS[weights].magnitude
    total = Bound(of, terms, code, weight, factor, "int32", INT32_MAX)
    if not fp32:
        return Proof((total,), None)
    whole = Bound(of, terms, code, weight, factor, "fp32", FP32_INTEGERS)
    if whole.holds:
        return Proof((whole,), None)
    chunk = Bound("chunk", whole.longest, code, weight, factor, "fp32", FP32_INTEGERS)
    return Proof((chunk, total), whole.longest)
