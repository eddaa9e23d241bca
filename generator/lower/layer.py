"""Rank the plans of a layer contract on a target: which one is cheaper, for which rows and shapes.

Plans differ between `up` and `down` only, so those stages alone are compared. Folding trades a
kernel and a round trip of the rows for their requantization in every program of the down kernel,
which grows with K; so a plan is chosen up to a length of K, found here by the cost model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache

from generator.conditions import AtMost, Condition
from generator.lower.bands import DISPATCHED_ROWS, Band
from generator.lower.contract import Contract, GemmContract
from generator.lower.cost import Shape, cost
from generator.lower.design import Design
from generator.lower.layer_contract import LayerPlan
from generator.lower.plan import Plan
from generator.lower.shapes import ShapeSource
from generator.lower.variant import Variant
from generator.packing import K_UNIT
from generator.spec.model import Limits, Target

BASE_PLAN = "separate"  # what other plans are compared with
LONGEST_K = 16384  # of the lengths at which plans are compared


@dataclass(frozen=True, slots=True)
class PlanChoice:
    """One plan and when it is taken."""

    plan: str
    requires: tuple[Condition, ...]  # of the down kernel's problem


@dataclass(frozen=True, slots=True)
class PlanBand:
    """The plans of one band of rows per expert, in the order in which they are tried."""

    band: Band
    choices: tuple[PlanChoice, ...]

    def among(self, plans: Collection[str]) -> PlanBand:
        """The same, of some plans alone."""
        return PlanBand(self.band, tuple(c for c in self.choices if c.plan in plans))


@dataclass(frozen=True, slots=True)
class Stage:
    """A contract and its kept designs in one band, in their order; hashable, so costs are kept."""

    contract: Contract
    designs: tuple[Design, ...]
    target: Target
    limits: Limits

    def variants(self) -> list[Variant]:
        return [Variant(self.contract, each, self.target, self.limits) for each in self.designs]


def rank_plans(
    plans: Sequence[LayerPlan],
    lowered: Callable[[Contract], Plan | None],
    target: Target,
    source: ShapeSource,
) -> tuple[PlanBand, ...]:
    """One entry per band of the target; `source` is the up kernel's shape in the layer's model.

    `lowered` gives a contract's plan on the target, or on the one that has the operation instead;
    None where no target has it.
    """
    base = next((plan for plan in plans if plan.name == BASE_PLAN), plans[0])
    up = next(each for each in base.rows if each.operation == "up")
    found = []
    own = lowered(up)
    for ranked in own.bands if own else ():
        choices = [PlanChoice(base.name, ())]
        for plan in plans:
            if plan is base:
                continue
            # Dispatching goes before folding, which no plan does beside it: it saves two launches,
            # 5 us and more of the 20 that three kernels take at 2048 rows, and costs nothing.
            # Folding saves one kernel, 1.5 to 3 us at so few rows of a length that is folded, and
            # every program of the down kernel pays for it (`cost.py` has what it was measured to
            # cost). So the cost model compares `folded` with `separate` alone.
            if any(each.operation == "dispatch" for each in plan.tokens):
                few = PlanChoice(plan.name, (AtMost("rows", DISPATCHED_ROWS),))
                choices.insert(0, few)
                continue
            ours, theirs = (_stages(each, lowered, target, ranked.band) for each in (plan, base))
            rows = ranked.band.samples[-1]
            longest = (
                _longest(ours, theirs, source.experts, rows, source.k) if ours and theirs else None
            )
            if longest and longest >= source.n:  # else no model of the layer would take it
                choices.insert(0, PlanChoice(plan.name, (AtMost("K", longest),)))
            elif target.accept_multiples != "none":  # kept all the same, for who asks for it
                choices.append(PlanChoice(plan.name, ()))
        found.append(PlanBand(ranked.band, tuple(choices)))
    return tuple(found)


def _stages(
    plan: LayerPlan, lowered: Callable[[Contract], Plan | None], target: Target, band: Band
) -> tuple[Stage, ...]:
    """The stages that plans differ in, with the designs of a band; none where a GEMM has no design
    of the band's row tile, or no target has a stage.
    """
    stages = []
    for contract in plan.rows:
        if contract.operation in ("up", "requantize", "down"):
            chosen = lowered(contract)
            if chosen is None:
                return ()
            if isinstance(contract, GemmContract):
                own = [each for each in chosen.bands if each.band.block_m == band.block_m]
            else:
                own = [each for each in chosen.bands if each.band.holds(band.samples[-1])]
            if not own:
                return ()
            ranked = own[0]
            geometry = contract.geometry if isinstance(contract, GemmContract) else contract
            stages.append(Stage(geometry, ranked.designs, target, chosen.kept[0].limits))
    return tuple(stages)


def lengths(group_k: int | None) -> tuple[int, ...]:
    """Lengths of the down kernel's K at which plans are compared: 64, 128, ... times the odd part
    of its group, so that designs without a tail accept all but the shortest.
    """
    odd = 1 if group_k is None else group_k // (group_k & -group_k)
    doubled = (K_UNIT * odd << power for power in range(LONGEST_K.bit_length()))
    return tuple(each for each in doubled if each <= LONGEST_K)


@cache
def _longest(
    plan: tuple[Stage, ...], base: tuple[Stage, ...], experts: int, rows: int, hidden: int
) -> int | None:
    """The greatest length up to which a plan is cheaper than the base; None where it never is."""
    down = plan[-1].contract
    longest = None
    for length in lengths(down.group_k if isinstance(down, GemmContract) else None):
        ours, theirs = (_cost(each, experts, rows, hidden, length) for each in (plan, base))
        if ours is None or theirs is None:
            continue
        if ours > theirs:
            break
        longest = length
    return longest


def _cost(
    stages: tuple[Stage, ...], experts: int, rows: int, hidden: int, intermediate: int
) -> float | None:
    """Microseconds of the stages at one shape; None where one of them accepts it with no design."""
    total = 0.0
    for stage in stages:
        n, k = {
            "up": (intermediate, hidden),
            "requantize": (intermediate, intermediate),
            "down": (hidden, intermediate),
        }[stage.contract.operation]
        shape = Shape(experts, rows, n, k)
        accepting = [
            variant
            for variant in stage.variants()
            if all(each.holds(shape.sizes()) for each in variant.requires)
        ]
        if not accepting:
            return None
        total += cost(accepting[0], shape).total_us
    return total


def wanted_bands(ranked: Sequence[PlanBand], plan: str) -> list[Band]:
    """The bands in which a plan is taken at all."""
    return [each.band for each in ranked if any(choice.plan == plan for choice in each.choices)]
