"""How far the cost model's pick is from the fastest design that was timed.

    python -m benchmarks.cost_error TRIALS [--specs DIR] [--worst N]

TRIALS is what `python -m generator tune` wrote: on what, then a timing a line. For every GEMM on
every number of routed rows the designs that were timed are put in the order of the cost model, and
the time of its first one is divided by the least time. Nothing is launched. The tables are
Markdown, for benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from generator.conditions import rows_per_expert
from generator.data import folder
from generator.lower.contract import GemmContract
from generator.lower.cost import Shape, cost
from generator.lower.enumerate import designs, in_usual_order, space
from generator.lower.layer_contract import all_layers, plans
from generator.lower.variant import Variant
from generator.spec.load import load
from generator.spec.model import SpecSet, Target

Batch = tuple[str, int, int, int, int]  # contract, N, K, experts, rows


@dataclass(frozen=True, slots=True)
class Pick:
    """What the model puts first of the designs of one batch."""

    batch: Batch
    design: str
    us: float
    best: str
    best_us: float

    @property
    def ratio(self) -> float:
        return self.us / self.best_us


def timings(path: Path) -> dict[Batch, dict[str, float]]:
    """Microseconds by design, for every batch of a trials file."""
    found: dict[Batch, dict[str, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        each = json.loads(line)
        if "design" in each:
            key = (each["contract"], each["n"], each["k"], each["experts"], each["rows"])
            found.setdefault(key, {})[each["design"]] = each["us"]
    return found


def variants(loaded: SpecSet, target: Target, contract: str) -> dict[str, Variant]:
    """Every design of a GEMM contract, in the order of programs that lowering gives it, by name."""
    for spec in loaded.specs:
        for layer in all_layers(spec):
            for plan in plans(spec, layer):
                for each in plan.contracts:
                    if isinstance(each, GemmContract) and each.name == contract:
                        listed = designs(space(spec, each.operation), target)
                        own = (in_usual_order(design, target) for design in listed)
                        return {d.name: Variant(each, d, target, spec.limits) for d in own}
    return {}


def picks(
    loaded: SpecSet, target: Target, times: Mapping[Batch, Mapping[str, float]]
) -> Iterator[Pick]:
    """One for each batch; ties of the model go to the first name."""
    known: dict[str, dict[str, Variant]] = {}
    for batch, timed in times.items():
        contract, n, k, experts, rows = batch
        if contract not in known:
            known[contract] = variants(loaded, target, contract)
        shape = Shape(min(experts, rows), rows_per_expert(rows, experts), n, k)
        costs = {
            name: cost(known[contract][name], shape).total_us
            for name in timed
            if name in known[contract]
        }
        if costs:
            first = min(costs, key=lambda name: (costs[name], name))
            best = min(timed, key=lambda name: timed[name])
            yield Pick(batch, first, timed[first], best, timed[best])


def table(found: Sequence[Pick], worst: int) -> str:
    """The error over all batches, and the batches where it is largest."""
    ratios = sorted(each.ratio for each in found)
    within = {limit: sum(each <= limit for each in ratios) for limit in (1.1, 1.3)}
    lines = [
        f"{len(found)} batches: median {median(ratios):.2f}, worst {ratios[-1]:.2f};"
        f" within 10% {within[1.1]}, within 30% {within[1.3]}",
        "",
        "| GEMM | N | K | rows | picked | us | fastest | us | ratio |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in sorted(found, key=lambda pick: -pick.ratio)[:worst]:
        contract, n, k, _, rows = each.batch
        lines.append(
            f"| {contract} | {n} | {k} | {rows} | {each.design} | {each.us:.1f}"
            f" | {each.best} | {each.best_us:.1f} | {each.ratio:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trials", type=Path)
    parser.add_argument("--specs", type=Path, default=folder("specs"))
    parser.add_argument("--target", default="sm_90", help="that was timed; default: sm_90")
    parser.add_argument("--worst", type=int, default=10, help="batches to tell; default: 10")
    options = parser.parse_args()
    loaded = load(options.specs)
    [target] = (each for each in loaded.targets if each.name == options.target)
    print(table(list(picks(loaded, target, timings(options.trials))), options.worst))


if __name__ == "__main__":
    main()
