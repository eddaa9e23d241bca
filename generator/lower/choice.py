"""What selection would take for one problem, at which modelled cost, and why not the next designs.

The counterpart of generator/runtime/select.py on a plan that is not emitted yet; tests hold both
against each other. `report.py` asks it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from generator.conditions import rows_per_expert
from generator.errors import BuildError, Finding
from generator.lower.bands import Band
from generator.lower.cost import Shape, cost
from generator.lower.design import Design
from generator.lower.judge import Question, judged
from generator.lower.plan import Plan
from generator.lower.variant import Variant
from generator.spec.model import Spec

NEXT = 3  # designs that a choice is compared with
UNUSED = "no layer takes a plan with this contract here"
BY_COST = "ranked by the cost model"
NOT_TUNED = f"no measured tuning: {BY_COST}"


@dataclass(frozen=True, slots=True)
class Problem:
    """A call of one operation, N and K as stored."""

    rows: int
    n: int
    k: int
    experts: int

    def sizes(self) -> dict[str, int]:
        """By the names that conditions use."""
        return {"rows": self.rows, "N": self.n, "K": self.k, "experts": self.experts}


def problem(text: str) -> Problem:
    """Read rows=ROWS,n=N,k=K,experts=EXPERTS. Raises BuildError with every defect."""
    keys = ("rows", "n", "k", "experts")
    form = "write rows=ROWS,n=N,k=K,experts=EXPERTS"
    given: dict[str, int] = {}
    findings = []
    for part in text.split(","):
        key, equals, value = (each.strip() for each in part.partition("="))
        if not equals or key not in keys:
            findings.append(Finding("--problem", f"`{part}` is none of its facts", form))
        elif key in given:
            findings.append(Finding("--problem", f"{key} stands there twice", form))
        elif not (value.isascii() and value.isdecimal() and int(value) > 0):
            what = f"{key} = `{value}` is no whole number above 0"
            findings.append(Finding("--problem", what, f"write {key}=1 or more"))
            given[key] = 0
        else:
            given[key] = int(value)
    missing = [key for key in keys if key not in given]
    if missing and not findings:
        findings.append(Finding("--problem", f"lacks {', '.join(missing)}", form))
    if findings:
        raise BuildError(findings)
    return Problem(**given)


@dataclass(frozen=True, slots=True)
class CostFacts:
    """Modelled microseconds. Launch and serial add up, and beside them what the others come to: the
    root of the sum of their squares (`generator/lower/cost.py`).
    """

    total_us: float
    most: str  # the greatest term
    launch_us: float
    memory_us: float
    cache_us: float
    math_us: float  # dots and what converts their operands
    chain_us: float  # loads that wait for one another
    serial_us: float  # what nothing hides: scaling group sums


@dataclass(frozen=True, slots=True)
class OtherFacts:
    """A design that was not chosen; it has a rank where it is emitted, a cost where it accepts."""

    design: str
    rank: int | None
    cost: CostFacts | None
    why: str


@dataclass(frozen=True, slots=True)
class ChoiceFacts:
    """What selection takes for a problem on one target; design None, and a reason, where there is
    none that accepts it.
    """

    owners: int  # experts that can own rows
    rows_per_expert: int
    low: int  # of the band
    high: int | None
    design: str | None
    nothing: str | None
    rank: int | None
    ranked: int
    cost: CostFacts | None
    others: tuple[OtherFacts, ...]  # emitted ones in their order, then legal ones by cost
    accepting: int  # legal designs, emitted or not, that accept the problem
    cheaper: int  # of these, those below the chosen one's cost
    cheapest: str | None
    cheapest_us: float | None
    tuning: str


def choice(plan: Plan, spec: Spec, asked: Problem, tiles: Collection[int | None]) -> ChoiceFacts:
    """As generator/runtime/select.py chooses: the first design of the band that accepts. `tiles`:
    the row tiles of bands in which a layer uses the contract; None among them is any.
    """
    rows = rows_per_expert(asked.rows, asked.experts)
    shape = Shape(min(asked.experts, asked.rows), rows, asked.n, asked.k)
    ranked = next(
        each
        for each in plan.bands
        if each.band.low <= rows and (each.band.high is None or rows <= each.band.high)
    )
    own = {variant.design: variant for variant in plan.kept}
    in_order = [own[design] for design in ranked.designs]
    refusals = [_refusals(variant, asked) for variant in in_order]
    at = next((rank for rank, each in enumerate(refusals) if not each), None)
    taken = None if at is None else in_order[at]
    measured, said = _measured(plan, own, asked)
    tuning = said or NOT_TUNED
    if measured is not None:
        taken = measured
        at = in_order.index(taken) if taken in in_order else None
    chosen = None if taken is None else _cost(taken, shape)
    others = []
    for rank, (variant, refusal) in enumerate(zip(in_order, refusals, strict=True)):
        if rank != at:
            here = None if refusal else _cost(variant, shape)
            behind = _behind(variant, ranked.band, timed=measured is not None)
            why = f"refuses: {'; '.join(refusal)}" if refusal else behind
            others.append(_other(variant, rank + 1, here, why, chosen))
    accepting = _accepting(plan, spec, asked, shape)
    emitted = {design.stem for design in own}  # in whichever order of programs
    others += [
        _other(variant, None, here, _not_emitted(variant, plan, tiles), chosen)
        for variant, here in accepting
        if variant.design.stem not in emitted
    ]
    return ChoiceFacts(
        owners=shape.experts,
        rows_per_expert=rows,
        low=ranked.band.low,
        high=ranked.band.high,
        design=None if taken is None else taken.design.name,
        nothing=None if taken is not None else "no emitted design accepts it" if own else UNUSED,
        rank=None if at is None else at + 1,
        ranked=len(in_order),
        cost=chosen,
        others=tuple(others[:NEXT]),
        accepting=len(accepting),
        cheaper=sum(_below(here, chosen) for _, here in accepting),
        cheapest=accepting[0][0].design.name if accepting else None,
        cheapest_us=accepting[0][1].total_us if accepting else None,
        tuning=tuning,
    )


def _measured(
    plan: Plan, own: Mapping[Design, Variant], asked: Problem
) -> tuple[Variant | None, str]:
    """The design that timings chose at the problem's shape, where one accepts the call, and what
    tells of it; nothing where the shape was not measured.
    """
    bands = [each.band for each in plan.bands]
    said = ""
    by_name = {design.name: variant for design, variant in own.items()}
    for table in plan.tuned:
        if (table.n, table.k, table.experts) == (asked.n, asked.k, asked.experts):
            near = table.choice(asked.rows, bands)
            if near is None:
                said = f"no rows that were measured are near {asked.rows}: {BY_COST}"
                continue
            variant = by_name[near.design]
            if not _refusals(variant, asked):
                where = f"at {near.rows} rows, the nearest measured, on {table.device}"
                return variant, f"chosen by timings {where}, {table.date}"
    return None, said


def unused_tile(block_m: int | None) -> str:
    """Why a contract's designs of one row tile are not emitted."""
    return f"no layer takes a plan with this contract by row tiles of {block_m} here"


def _not_emitted(variant: Variant, plan: Plan, tiles: Collection[int | None]) -> str:
    if not plan.kept:
        return f"not emitted, {UNUSED}"
    if None not in tiles and variant.design.block_m not in tiles:
        return f"not emitted, {unused_tile(variant.design.block_m)}"
    return "not kept, others serve the models' shapes"


def _other(
    variant: Variant, rank: int | None, here: CostFacts | None, why: str, chosen: CostFacts | None
) -> OtherFacts:
    if _below(here, chosen):
        why = f"cheaper here by the model, but {why}"
    return OtherFacts(variant.design.name, rank, here, why)


def _below(here: CostFacts | None, chosen: CostFacts | None) -> bool:
    return here is not None and chosen is not None and here.total_us < chosen.total_us


def _refusals(variant: Variant, asked: Problem) -> list[str]:
    sizes = asked.sizes()
    return [each.failure(sizes) for each in variant.requires if not each.holds(sizes)]


def _behind(variant: Variant, band: Band, *, timed: bool) -> str:
    """Why an emitted design that accepts is not the chosen one."""
    block_m = variant.design.block_m
    if band.block_m not in (None, block_m):
        return f"the band's row tile is {band.block_m}, its own {block_m}"
    return "another was timed fastest" if timed else "the band ranks by the models' shapes"


def _accepting(
    plan: Plan, spec: Spec, asked: Problem, shape: Shape
) -> list[tuple[Variant, CostFacts]]:
    """Every legal design that accepts the problem, cheapest here first; the target's first order of
    programs stands for all of them.
    """
    against = {each.design for each in plan.rejections if each.rule.of_record is not None}
    every = judged(Question.of(spec, plan.contract, plan.target)).legal
    legal = (each for each in every if each.design not in against)
    found = [(each, _cost(each, shape)) for each in legal if not _refusals(each, asked)]
    return sorted(found, key=lambda each: (each[1].total_us, each[0].design.name))


def _cost(variant: Variant, shape: Shape) -> CostFacts:
    found, launch = cost(variant, shape), variant.target.cost.launch_us
    math = found.math_us + found.convert_us
    terms = {
        "launch": launch,
        "memory": found.memory_us,
        "cache": found.cache_us,
        "math": math,
        "chain": found.chain_us,
        "serial": found.serial_us,
    }
    most = max(terms, key=lambda term: terms[term])
    micro = {f"{term}_us": round(value, 3) for term, value in terms.items()}
    return CostFacts(total_us=round(found.total_us, 3), most=most, **micro)
