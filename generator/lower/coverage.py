"""What of the tuning files no call can reach, and what of the shipped models they do not cover.
Behind `python -m generator check`; nothing is printed here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from generator.errors import Finding
from generator.lower.contract import GemmContract
from generator.lower.layer import BASE_PLAN
from generator.lower.layer_contract import model_layers
from generator.lower.measured import alike
from generator.lower.plan import Plan
from generator.lower.program import Program
from generator.lower.shapes import source
from generator.spec.model import Model, TunedShape, Tuning


def unreached(built: Program) -> list[Finding]:
    """Shapes and designs of tuning files that stand in no table of a whole build."""
    targets = {target.name for target in built.targets}
    return [
        finding
        for tuning in built.tunings
        if tuning.target in targets
        for shape in tuning.shapes
        for finding in _unreached(built, tuning, shape)
    ]


def _unreached(built: Program, tuning: Tuning, shape: TunedShape) -> Iterator[Finding]:
    where = f"tuning of {tuning.device}: {_shape(shape.contract, shape.n, shape.k, shape.experts)}"
    fix = "leave it out, or tune again"
    plans = [p for p in _plans(built, tuning.target) if shape.contract in alike(p.contract)]
    if not plans:
        what = f"no contract that multiplies alike is built for {tuning.target}"
        yield Finding(where, what, fix)
        return
    tables = [
        table
        for plan in plans
        for table in plan.tuned
        if (table.n, table.k, table.experts) == (shape.n, shape.k, shape.experts)
    ]
    kept = {(bucket.rows, bucket.design) for table in tables for bucket in table.buckets}
    left = [each for each in shape.buckets if (each.rows, each.design) not in kept]
    if len(left) == len(shape.buckets) and not _brought(built, plans, shape):
        yield Finding(where, "no shipped model brings this shape", fix)
        return
    for bucket in left:
        what = f"{bucket.design}, for {bucket.rows} rows, is none of the legal designs"
        yield Finding(where, what, fix)


def _brought(built: Program, plans: list[Plan], shape: TunedShape) -> bool:
    """Whether a model has the shape in a layer that uses one of the contracts."""
    own = {plan.contract for plan in plans}
    return any(
        (each.n, each.k, each.experts) == (shape.n, shape.k, shape.experts)
        for model in built.models
        for contract in _gemms(built, model)
        if contract in own
        for each in [source(contract.operation, model)]
    )


@dataclass(frozen=True, slots=True)
class Untimed:
    """Calls of a shipped model that are not in a tuned target's tables."""

    target: str
    model: str
    contract: str
    n: int
    k: int
    experts: int
    rows: tuple[int, ...]

    def __str__(self) -> str:
        rows = ", ".join(str(each) for each in self.rows)
        shape = _shape(self.contract, self.n, self.k, self.experts)
        return f"not timed on {self.target}: {self.model}, {shape}, {rows} rows"


def uncovered(built: Program) -> list[Untimed]:
    """What the models' files name and no tuning file of a target that has one holds: the nearest
    rows serve it, or the cost model.
    """
    found: dict[tuple[str, str, object], Untimed] = {}
    for target in dict.fromkeys(each.target for each in built.tunings):
        by_contract = {plan.contract: plan for plan in _plans(built, target)}
        for model in built.models:
            for contract in _gemms(built, model):
                plan, own = by_contract.get(contract), source(contract.operation, model)
                if plan is None:
                    continue
                timed = {
                    bucket.rows
                    for table in plan.tuned
                    if table.is_of([own])
                    for bucket in table.buckets
                }
                wanted = (tokens * model.top_k for tokens in model.tokens)
                rows = tuple(each for each in wanted if each not in timed)
                if rows:
                    untimed = Untimed(
                        target, model.name, contract.name, own.n, own.k, own.experts, rows
                    )
                    found.setdefault((target, model.name, contract.geometry), untimed)
    return list(found.values())


def _plans(built: Program, target: str) -> Iterator[Plan]:
    for plan in built.plans:
        if plan.target.name == target and isinstance(plan.contract, GemmContract):
            yield plan


def _gemms(built: Program, model: Model) -> Iterator[GemmContract]:
    """Those of a model's layers, in the plan that every target takes at the last."""
    used = set(model_layers(built.specs, (model,)))
    for layer in built.layers:
        if layer.contract in used:
            for plan in layer.plans:
                if plan.name == BASE_PLAN:
                    yield from (each for each in plan.rows if isinstance(each, GemmContract))


def _shape(contract: str, n: int, k: int, experts: int) -> str:
    return f"{contract} at N={n} K={k} experts={experts}"
