"""How far the cost model's pick is from the fastest design that was timed.

    python -m benchmarks.cost_error TRIALS [--specs DIR] [--worst N]

TRIALS is what `python -m generator tune` wrote: on what, then a timing a line. For every GEMM on
every number of routed rows the designs that were timed are put in the order of the cost model, and
the time of its first one is divided by the least time: once whatever its row tile, which is the
model's own error, and once as a build ranks them for the band of the rows, whose row tile goes
first. Nothing is launched. The lines and the table are Markdown, for benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import median

from generator.conditions import rows_per_expert
from generator.data import folder
from generator.lower.bands import Band, bands
from generator.lower.contract import GemmContract
from generator.lower.cost import Shape, cost
from generator.lower.enumerate import in_usual_order
from generator.lower.judge import Question, judged
from generator.lower.layer_contract import all_layers, plans
from generator.lower.rank import in_order
from generator.lower.shapes import ShapeSource
from generator.lower.variant import Variant
from generator.spec.load import load
from generator.spec.model import SpecSet, Target
from generator.tune.measured import LAYER


@dataclass(frozen=True, slots=True)
class Batch:
    """A GEMM on a number of routed rows."""

    contract: str
    n: int
    k: int
    experts: int
    rows: int

    @property
    def rows_per_expert(self) -> int:
        return rows_per_expert(self.rows, self.experts)


@dataclass(frozen=True, slots=True)
class Pick:
    """What is put first of the designs of one batch."""

    batch: Batch
    design: str
    us: float
    best: str
    best_us: float

    @property
    def ratio(self) -> float:
        return self.us / self.best_us


# Which of a batch's variants goes first; the bands are those of its contract.
First = Callable[[Batch, Sequence[Variant], Sequence[Band]], Variant]


def cheapest(batch: Batch, variants: Sequence[Variant], _: Sequence[Band]) -> Variant:
    """The least cost of any row tile; ties go to the first name."""
    shape = Shape(min(batch.experts, batch.rows), batch.rows_per_expert, batch.n, batch.k)
    return min(variants, key=lambda each: (cost(each, shape).total_us, each.design.name))


def as_built(batch: Batch, variants: Sequence[Variant], ranges: Sequence[Band]) -> Variant:
    """As a build ranks them that knows this shape alone: at the rows by which a band is compared,
    not at those of the batch.
    """
    [band] = (each for each in ranges if each.holds(batch.rows_per_expert))
    shape = ShapeSource(batch.experts, batch.n, batch.k, batch.rows)
    return in_order(variants, [shape], band)[0]


def timings(path: Path) -> dict[Batch, dict[str, float]]:
    """Microseconds by design, for every batch of a trials file under uniform routing, which is what
    the model assumes.
    """
    found: dict[Batch, dict[str, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        each = json.loads(line)
        gemm = each.get("operation", LAYER) != LAYER
        if gemm and each.get("routing") == "uniform" and isfinite(each["us"]):
            facts = (each[name] for name in ("contract", "n", "k", "experts", "rows"))
            found.setdefault(Batch(*facts), {})[each["design"]] = each["us"]
    return found


def legal(loaded: SpecSet, target: Target, contract: str) -> dict[str, Variant]:
    """The legal designs of a GEMM contract, in the order of programs that lowering gives them, by
    name.
    """
    for spec in loaded.specs:
        for layer in all_layers(spec):
            for plan in plans(spec, layer):
                for each in plan.contracts:
                    if isinstance(each, GemmContract) and each.name == contract:
                        found = judged(Question.of(spec, each, target)).legal
                        own = (in_usual_order(variant.design, target) for variant in found)
                        return {d.name: Variant(each, d, target, spec.limits) for d in own}
    return {}


def picks(
    known: Mapping[str, Mapping[str, Variant]],
    times: Mapping[Batch, Mapping[str, float]],
    first: First,
) -> Iterator[Pick]:
    """One for each batch of which legal designs were timed; `known` are these by contract."""
    for batch, timed in times.items():
        variants = known[batch.contract]
        own = [variants[name] for name in timed if name in variants]
        if own:
            ranges = bands(each.design.block_m for each in variants.values() if each.design.block_m)
            picked = first(batch, own, ranges).design.name
            best = min(timed, key=lambda name: timed[name])
            yield Pick(batch, picked, timed[picked], best, timed[best])


def summary(found: Sequence[Pick]) -> str:
    """The error over all batches."""
    ratios = sorted(each.ratio for each in found)
    within = {limit: sum(each <= limit for each in ratios) for limit in (1.1, 1.3)}
    return (
        f"{len(found)} batches: median {median(ratios):.2f}, worst {ratios[-1]:.2f};"
        f" within 10% {within[1.1]}, within 30% {within[1.3]}"
    )


def table(found: Sequence[Pick], worst: int) -> Iterator[str]:
    """The batches where the error is largest."""
    yield "| GEMM | N | K | rows | picked | us | fastest | us | ratio |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for each in sorted(found, key=lambda pick: -pick.ratio)[:worst]:
        own = each.batch
        yield (
            f"| {own.contract} | {own.n} | {own.k} | {own.rows} | {each.design} | {each.us:.1f}"
            f" | {each.best} | {each.best_us:.1f} | {each.ratio:.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trials", type=Path)
    parser.add_argument("--specs", type=Path, default=folder("specs"))
    parser.add_argument("--target", default="sm_90", help="that was timed; default: sm_90")
    parser.add_argument("--worst", type=int, default=10, help="batches to tell; default: 10")
    options = parser.parse_args()
    loaded = load(options.specs)
    [target] = (each for each in loaded.targets if each.name == options.target)
    times = timings(options.trials)
    contracts = sorted({batch.contract for batch in times})
    known = {contract: legal(loaded, target, contract) for contract in contracts}
    found = list(picks(known, times, cheapest))
    print(f"Any row tile, {summary(found)}\n")
    print(f"The band's row tile first, {summary(list(picks(known, times, as_built)))}\n")
    for line in table(found, options.worst):
        print(line)


if __name__ == "__main__":
    main()
