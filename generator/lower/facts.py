"""What `python -m generator explain` says, as frozen dataclasses: plain data, hence JSON by
`dataclasses.asdict`. report.py fills them, report_text.py writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from generator.lower.choice import ChoiceFacts
from generator.lower.contract import Axes
from generator.lower.measured import Compiled


@dataclass(frozen=True, slots=True)
class SpaceFacts:
    """The axes of an operation's designs, and how many there are: their product, and those whose
    warps have roles. Targets list axes of their own, so it holds for some of them.
    """

    operation: str
    targets: tuple[str, ...]
    axes: Mapping[str, tuple[object, ...]]
    designs: int


@dataclass(frozen=True, slots=True)
class RuleFacts:
    """What one rule rejected: how many, why, and the first one with its inequality."""

    rule: str
    why: str
    rejected: int
    example: str
    what: str


@dataclass(frozen=True, slots=True)
class ProofFacts:
    """Why sums are exact, for the kept designs that share the proof."""

    proof: str
    cut: str | None  # where fp32 sums are rounded to int32 on the way
    designs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeptFacts:
    """One emitted variant; registers are of one thread."""

    design: str
    requires: tuple[str, ...]
    shared_bytes: int
    held_registers: int  # by sums or results, as foretold
    beside_registers: int  # by all else
    registers: int  # that the thread may hold
    compiled: tuple[Compiled, ...]  # what compilers made of it, as far as it is on record


@dataclass(frozen=True, slots=True)
class BandFacts:
    """The kept designs by preference for a range of rows per expert; high None has no upper end."""

    low: int
    high: int | None
    block_m: int | None  # None: any row tile
    used: bool  # whether a layer takes a plan with the contract here
    designs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """One contract on one target."""

    target: str
    enumerated: int
    legal: int
    rejected: tuple[RuleFacts, ...]
    proofs: tuple[ProofFacts, ...]  # that of the first kept design first
    kept: tuple[KeptFacts, ...]
    bands: tuple[BandFacts, ...]
    choice: ChoiceFacts | None


@dataclass(frozen=True, slots=True)
class ContractReport:
    """An operation contract."""

    kind: Literal["contract"]
    name: str
    specs: tuple[str, ...]
    digest: str
    axes: Axes
    spaces: tuple[SpaceFacts, ...]
    ranked_for: tuple[Mapping[str, int], ...]  # shapes of the models' largest calls
    problem: Mapping[str, int] | None
    targets: tuple[TargetFacts, ...]


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """Contracts of a layer plan in launch order, for either way in."""

    name: str
    tokens: tuple[str, ...]
    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TakenFacts:
    """A plan and the conditions on the down kernel's problem under which it is taken."""

    plan: str
    requires: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlanBandFacts:
    """The plans of a range of rows per expert, in the order in which they are tried."""

    low: int
    high: int | None
    plans: tuple[TakenFacts, ...]


@dataclass(frozen=True, slots=True)
class LayerTargetFacts:
    """One layer on one target."""

    target: str
    bands: tuple[PlanBandFacts, ...]


@dataclass(frozen=True, slots=True)
class LayerReport:
    """A layer contract."""

    kind: Literal["layer"]
    name: str
    spec: str
    axes: Axes
    values: Mapping[str, str]
    plans: tuple[PlanFacts, ...]
    targets: tuple[LayerTargetFacts, ...]


@dataclass(frozen=True, slots=True)
class BuiltFacts:
    """One contract of a spec's build on one target; a GEMM's choice where a problem is asked."""

    contract: str
    proofs: tuple[ProofFacts, ...]
    kept: tuple[str, ...]
    choice: ChoiceFacts | None


@dataclass(frozen=True, slots=True)
class TotalFacts:
    """All contracts of a spec's build on one target."""

    target: str
    contracts: int
    enumerated: int
    legal: int
    kept: int
    rejected: tuple[RuleFacts, ...]
    built: tuple[BuiltFacts, ...]


@dataclass(frozen=True, slots=True)
class SpecReport:
    """A spec: how much it describes, and what `build --spec` makes of it for shipped models."""

    kind: Literal["spec"]
    name: str
    layers: int  # whose two GEMMs share a group size
    mixed_layers: int  # the others, built where they are named
    contracts: int
    model_layers: tuple[str, ...]
    model_contracts: int
    spaces: tuple[SpaceFacts, ...]
    problem: Mapping[str, int] | None
    targets: tuple[TotalFacts, ...]


Report = SpecReport | ContractReport | LayerReport
