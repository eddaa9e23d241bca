"""What decides whether a variant serves a problem: conditions that it puts, and which timing speaks
for a call. A leaf: standard library only.

Lowering states conditions, the manifest carries them as data, selection and tests evaluate the same
predicates.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Protocol

# A ratio of rows. The seed's layer was timed at 388 rows of 24 experts, by tiles of 16; at 16384 it
# took 268 us by the same design and 201 by tiles of 256, int4 242 and 189 by 128 (one H100,
# 2026-11-26, graph replays). What models name is mostly a factor of 4 apart.
TIMED_REACH = 2


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


class Range(Protocol):
    """A range of rows per expert."""

    def holds(self, rows_per_expert: int) -> bool: ...


def nearest_timed(
    timed: Iterable[int], rows: int, experts: int, bands: Collection[Range]
) -> int | None:
    """Of routed rows that designs were timed at, those nearest to a call's, by ratio, that say
    anything of it: up to TIMED_REACH times as many or as few, and further within one of the bands,
    each of which a row tile suits. None where the call is too far from all.
    """

    def ratio(each: int) -> float:
        return max(each / rows, rows / each)

    def same_band(each: int) -> bool:
        own, other = (rows_per_expert(number, experts) for number in (each, rows))
        return any(band.holds(own) and band.holds(other) for band in bands)

    near = [each for each in timed if ratio(each) <= TIMED_REACH or same_band(each)]
    return min(near, key=ratio, default=None)


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
