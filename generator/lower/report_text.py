"""The text of a report, line by line, for a terminal; `explain` prints it. Nothing is computed
here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod

from generator.lower.choice import UNUSED, ChoiceFacts, CostFacts, OtherFacts, unused_tile
from generator.lower.facts import (
    BuiltFacts,
    ContractReport,
    LayerReport,
    Report,
    RuleFacts,
    SpaceFacts,
    SpecReport,
    TargetFacts,
)
from generator.resources import Figures

# What a term of the modelled cost stands for.
TERMS = {
    "launch": "launching the kernel",
    "memory": "device memory",
    "cache": "the cache",
    "math": "dots and conversions",
    "chain": "waiting for loads",
    "serial": "what nothing hides: scaling group sums",
}


def lines(report: Report) -> list[str]:
    """A report as it is printed."""
    if isinstance(report, SpecReport):
        return list(_spec(report))
    if isinstance(report, LayerReport):
        return list(_layer(report))
    return list(_contract(report))


def _row(label: str, text: str) -> str:
    return f"  {label:10} {text}".rstrip()


def _range(low: int, high: int | None) -> str:
    return f"{low} up" if high is None else f"{low} to {high}"


def _joined(each: Iterable[object]) -> str:
    return ", ".join(str(one) for one in each)


def _sizes(sizes: Mapping[str, int]) -> str:
    return " ".join(f"{name}={size}" for name, size in sizes.items())


def _axes(axes: Mapping[str, object]) -> Iterator[str]:
    """What an operation does not have is left out."""
    for axis, value in axes.items():
        if axis.endswith("group") or axis == "group_k":
            yield f"  {axis:17} {'the whole K' if value is None else value}"
        elif value is not None and axis not in ("spec", "operation"):
            yield f"  {axis:17} {value}"


def _spec(report: SpecReport) -> Iterator[str]:
    yield (
        f"spec {report.name}: {report.layers} layers of {report.contracts} contracts, and"
        f" {report.mixed_layers} layers of two group sizes"
    )
    yield (
        f"shipped models use {len(report.model_layers)} of the layers,"
        f" {report.model_contracts} contracts; these are counted below"
    )
    yield from (_row("layer", name) for name in report.model_layers)
    if report.problem:
        yield ""
        yield from _problem(report.problem)
    for each in report.spaces:
        yield ""
        yield from _space(each)
    for total in report.targets:
        yield ""
        yield (
            f"{total.target}: {total.contracts} contracts, {total.enumerated} designs enumerated,"
            f" {total.legal} legal, {total.kept} kept"
        )
        yield from _rules(total.rejected)
        for built in total.built:
            yield from _built(built)


def _built(facts: BuiltFacts) -> Iterator[str]:
    yield _row("kept", f"{facts.contract}: {_joined(facts.kept)}")
    yield from (_row("", f"  {proof.proof}") for proof in facts.proofs)
    if facts.choice:
        found = facts.choice
        cost = f", {found.cost.total_us:.2f} us by the model" if found.cost else ""
        yield _row("", f"  chosen {found.design or f'nothing: {found.nothing}'}{cost}")


def _problem(sizes: Mapping[str, int]) -> Iterator[str]:
    yield f"problem {_sizes(sizes)}; N and K as stored, padded to multiples of 64"


def _space(each: SpaceFacts) -> Iterator[str]:
    counts = [len(values) for values in each.axes.values()]
    product = " * ".join(map(str, counts))
    if others := each.designs - prod(counts):
        product += f" + {others} whose warps have roles"
    yield f"{each.operation} on {_joined(each.targets)}: {each.designs} designs = {product}"
    yield from (_row(axis, _joined(values)) for axis, values in each.axes.items())


def _rules(rejected: Iterable[RuleFacts]) -> Iterator[str]:
    for each in rejected:
        yield _row("rejected", f"{each.rejected} by {each.rule}: {each.why}")
        yield _row("", f"  such as {each.example}: {each.what}")


def _layer(report: LayerReport) -> Iterator[str]:
    yield f"layer {report.name} of spec {report.spec}"
    yield from _axes(report.axes)
    yield ""
    yield "values between stages, the same bits in every plan"
    yield from (f"  {name:17} {value}" for name, value in report.values.items())
    for plan in report.plans:
        yield ""
        yield f"plan {plan.name}"
        yield _row("tokens", " -> ".join(plan.tokens))
        yield _row("rows", " -> ".join(plan.rows))
    for target in report.targets:
        yield ""
        yield f"{target.target}: plans by rows per expert, in the order in which they are tried"
        for band in target.bands:
            taken = (
                f"{each.plan} ({_joined(each.requires)} of down)" if each.requires else each.plan
                for each in band.plans
            )
            yield _row(_range(band.low, band.high), ", then ".join(taken))


def _contract(report: ContractReport) -> Iterator[str]:
    yield f"contract {report.name} of spec {_joined(report.specs)}, digest {report.digest}"
    yield from _axes(report.axes)
    yield ""
    for each in report.spaces:
        yield from _space(each)
        yield ""
    yield "ranked for these shapes, at their largest calls"
    yield from (f"  {_sizes(shape)}" for shape in report.ranked_for)
    if report.problem:
        yield ""
        yield from _problem(report.problem)
    for target in report.targets:
        yield ""
        yield from _target(target, report)


def _target(facts: TargetFacts, report: ContractReport) -> Iterator[str]:
    yield (
        f"{facts.target}: {facts.enumerated} designs enumerated, {facts.legal} legal,"
        f" {len(facts.kept)} kept"
    )
    yield from _rules(facts.rejected)
    for proof in facts.proofs:
        differing = f" ({_joined(proof.designs)})" if len(facts.proofs) > 1 else ""
        yield _row("proof", f"{proof.proof}{differing}")
        if proof.cut:
            yield _row("", f"  {proof.cut}")
    if not facts.kept:
        yield _row("kept", f"nothing: {UNUSED}")
    elif not facts.proofs:
        yield _row("proof", "none is needed: no integers are summed")
    for kept in facts.kept:
        figures = f"{kept.shared_bytes} bytes of shared memory"
        if kept.held_registers:
            figures += (
                f", {kept.held_registers} registers of sums + {kept.beside_registers}"
                f" <= {kept.registers} a thread, foretold"
            )
        yield _row("kept", f"{kept.design}: {figures}")
        yield _row("", f"  requires {_joined(kept.requires)}")
        for one in kept.compiled:
            yield _row("", f"  {one.target}, Triton {one.triton}: {compiled(one.figures)}")
    for band in facts.bands:
        if facts.kept:
            unused = "" if band.used else f" ({unused_tile(band.block_m)})"
            yield _row(_range(band.low, band.high), f"{_joined(band.designs)}{unused}")
    if facts.choice:
        yield from _choice(facts.choice)


def _choice(choice: ChoiceFacts) -> Iterator[str]:
    yield _row(
        "problem",
        f"modelled as {choice.owners} experts, rows per expert {choice.rows_per_expert}:"
        f" band {_range(choice.low, choice.high)}",
    )
    if choice.design is None:
        yield _row("chosen", f"nothing: {choice.nothing}")
    else:
        rank = f", rank {choice.rank} of {choice.ranked}" if choice.rank else ""
        yield _row("chosen", f"{choice.design}{rank}")
        assert choice.cost is not None
        yield _row("", f"  {_cost(choice.cost)}")
    for each in choice.others:
        yield _row("not", _other(each))
    if choice.cheaper:
        yield _row(
            "cheaper",
            f"{choice.cheaper} of {choice.accepting} legal designs that accept it, by the model;"
            f" the cheapest is {choice.cheapest}, {choice.cheapest_us:.2f} us",
        )
    yield _row("tuning", choice.tuning)


def _cost(cost: CostFacts) -> str:
    terms = ", ".join(f"{term} {getattr(cost, f'{term}_us'):.2f}" for term in TERMS)
    return f"{cost.total_us:.2f} us by the model, most of it {TERMS[cost.most]} ({terms})"


def _other(each: OtherFacts) -> str:
    rank = f", rank {each.rank}" if each.rank else ""
    cost = f" {each.cost.total_us:.2f} us;" if each.cost else ""
    return f"{each.design}{rank}:{cost} {each.why}"


def compiled(figures: Figures) -> str:
    """What a compiler made of a variant, on one line."""
    matrix = _joined(figures.matrix) or "no matrix instruction"
    return f"{figures}; {matrix}"
