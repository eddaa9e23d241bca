"""The facts of one call that selection may use. No torch: tests state problems for devices that are
not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..conditions import rows_per_expert


@dataclass(frozen=True, slots=True)
class Problem:
    """One operation."""

    contract: str
    rows: int
    n: int  # columns of the output; 0 for operations without
    k: int  # length of a row; 0 for operations without
    experts: int  # local experts
    targets: tuple[str, ...]  # targets whose modules the device runs, best first
    interpreted: bool = False  # kernels run under the CPU interpreter

    def sizes(self) -> Mapping[str, int]:
        """By the names that conditions use."""
        return {"rows": self.rows, "N": self.n, "K": self.k, "experts": self.experts}

    @property
    def rows_per_expert(self) -> int:
        """What bands are ranges of."""
        return rows_per_expert(self.rows, self.experts)


@dataclass(frozen=True, slots=True)
class LayerProblem:
    """A whole layer."""

    layer: str
    start: str  # tokens | rows
    rows: int  # routed rows: tokens * top_k, or the sorted rows
    hidden: int  # as stored: a multiple of 64
    intermediate: int  # likewise
    experts: int
    targets: tuple[str, ...]
    interpreted: bool = False
    widened: int = 0  # rows of hidden states whose length is no multiple of 64, hence copied
    plan: str | None = None  # a plan that was asked for; None lets selection choose

    def problem(self, contract: str, operation: str) -> Problem:
        """One stage's problem."""
        n, k = {
            "count": (0, 0),
            "route": (0, 0),
            "dispatch": (0, self.hidden),
            "quantize": (0, self.hidden),
            "up": (self.intermediate, self.hidden),
            "requantize": (0, self.intermediate),
            "down": (self.hidden, self.intermediate),
            "combine": (self.hidden, 0),
        }[operation]
        return Problem(contract, self.rows, n, k, self.experts, self.targets, self.interpreted)
