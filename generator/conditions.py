"""Conditions that a variant puts on a problem. A leaf: standard library only.

Lowering states them, the manifest carries them as data, selection and tests evaluate the same
predicate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

TIMED_REACH = 2  # by how much a call's rows may differ from those that were timed


@dataclass(frozen=True, slots=True)
class Multiple:
    """A dimension that must be a positive multiple of a number."""

    of: str
    by: int

    def holds(self, sizes: Mapping[str, int]) -> bool:
        return sizes[self.of] > 0 and sizes[self.of] % self.by == 0

    def failure(self, sizes: Mapping[str, int]) -> str:
        size = sizes[self.of]
        below, above = size // self.by * self.by, -(-max(size, 1) // self.by) * self.by
        near = f"{below} or {above}" if below else f"{above}"
        return f"{self.of} = {size} is no multiple of {self.by} (nearest: {near})"

    def data(self) -> dict[str, object]:
        return {"kind": "multiple", "of": self.of, "by": self.by}

    def __str__(self) -> str:
        return f"{self.of} % {self.by} == 0"


@dataclass(frozen=True, slots=True)
class ProductBelow:
    """A product of dimensions that must stay below a bound."""

    of: tuple[str, ...]
    bound: int

    def holds(self, sizes: Mapping[str, int]) -> bool:
        return prod(map(sizes.__getitem__, self.of)) < self.bound

    def failure(self, sizes: Mapping[str, int]) -> str:
        factors = " * ".join(f"{each} ({sizes[each]})" for each in self.of)
        return f"{factors} = {prod(sizes[each] for each in self.of)} is not below {self.bound}"

    def data(self) -> dict[str, object]:
        return {"kind": "product_below", "of": list(self.of), "bound": self.bound}

    def __str__(self) -> str:
        power = self.bound.bit_length() - 1
        bound = f"2**{power}" if self.bound == 1 << power else str(self.bound)
        return f"{' * '.join(self.of)} < {bound}"


@dataclass(frozen=True, slots=True)
class AtMost:
    """A dimension that must not exceed a bound."""

    of: str
    bound: int

    def holds(self, sizes: Mapping[str, int]) -> bool:
        return sizes[self.of] <= self.bound

    def failure(self, sizes: Mapping[str, int]) -> str:
        return f"{self.of} = {sizes[self.of]} exceeds {self.bound}"

    def data(self) -> dict[str, object]:
        return {"kind": "at_most", "of": self.of, "bound": self.bound}

    def __str__(self) -> str:
        return f"{self.of} <= {self.bound}"


Condition = Multiple | ProductBelow | AtMost


def rows_per_expert(rows: int, experts: int) -> int:
    """Of the experts that can own a row at all; at least 1. Bands are ranges of it."""
    owners = max(1, min(experts, rows))
    return max(1, -(-rows // owners))


def speaks_for(
    timed: int, rows: int, experts: int, bands: Iterable[tuple[int, int | None]]
) -> bool:
    """Whether what was fastest at `timed` routed rows is a choice for a call of `rows`: up to twice
    as many or half, and further within a band, a range of rows per expert that one row tile suits.
    388 rows of 24 experts, in tiles of 16, say nothing of 16384, which tall tiles take.
    """
    if max(timed, rows) <= TIMED_REACH * min(timed, rows):
        return True
    ends = sorted(rows_per_expert(each, experts) for each in (timed, rows))
    return any(low <= ends[0] and (high is None or ends[1] <= high) for low, high in bands)


def condition_from_data(data: Mapping[str, object]) -> Condition:
    """Read back what `Condition.data` wrote. Raises ValueError for an unknown kind or field."""
    fields = dict(data)
    kind = fields.pop("kind", None)
    match kind, fields:
        case "multiple", {"of": str(of), "by": int(by), **rest} if not rest:
            return Multiple(of, by)
        case "product_below", {"of": list(factors), "bound": int(bound), **rest} if not rest:
            return ProductBelow(tuple(str(each) for each in factors), bound)
        case "at_most", {"of": str(of), "bound": int(bound), **rest} if not rest:
            return AtMost(of, bound)
    raise ValueError(f"unknown condition {dict(data)}")
