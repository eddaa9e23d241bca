"""Which designs of an operation's space are legal for a contract on a target, and why not the rest.

Contracts that move and multiply alike (`GemmContract.geometry`) are judged once. What is on record
of a variant speaks of its own order of programs, so `recorded` is asked of designs in the order in
which they would be built.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

from generator.errors import Finding
from generator.lower.contract import Contract, GemmContract
from generator.lower.design import Design
from generator.lower.enumerate import designs, in_every_order, space
from generator.lower.measured import Measured
from generator.lower.prune import reject_design, reject_recorded, reject_variant
from generator.lower.rule import Rejection
from generator.lower.variant import Variant
from generator.spec.model import Frozen, Limits, Spec, Target


@dataclass(frozen=True, slots=True)
class Question:
    """What a space of designs is judged for."""

    geometry: Contract
    listed: Frozen  # the axes of the space
    target: Target
    limits: Limits

    @staticmethod
    def of(spec: Spec, contract: Contract, target: Target) -> Question:
        geometry = contract.geometry if isinstance(contract, GemmContract) else contract
        return Question(geometry, space(spec, contract.operation), target, spec.limits)

    def variant(self, design: Design) -> Variant:
        return Variant(self.geometry, design, self.target, self.limits)


@dataclass(frozen=True, slots=True)
class Judged:
    """A whole design space after pruning."""

    legal: tuple[Variant, ...]
    rejections: tuple[Rejection, ...]

    @property
    def enumerated(self) -> int:
        return len(self.legal) + len(self.rejections)


@cache
def judged(asked: Question) -> Judged:
    """By every rule but those of the record."""
    sound, unsound = _sound(asked.listed, asked.target)
    promises = asked.target.accept_multiples != "none"
    legal, rejections = [], list(unsound)
    known: list[Rejection | None] = []
    for index, (design, twin) in enumerate(sound):
        # How wide offsets are, rules ask of targets alone that promise to run every layer.
        if promises or twin == index:
            variant = asked.variant(design)
            rejection = reject_variant(variant)
            known.append(rejection)
            if rejection is None:
                legal.append(variant)
            else:
                rejections.append(rejection)
            continue
        told = known[twin]
        known.append(told)
        if told is None:
            legal.append(asked.variant(design))
        else:
            rejections.append(Rejection(design, told.rule, told.reason))
    return Judged(tuple(legal), tuple(rejections))


@cache
def _sound(
    listed: Frozen, target: Target
) -> tuple[tuple[tuple[Design, int], ...], tuple[Rejection, ...]]:
    """The designs that break no rule of designs, each with the place of the first that differs from
    it in offsets alone; and the rejections of the others. Strategies that the space does not list
    are no competition.
    """
    dots = tuple(dot for dot in target.dots if dot in getattr(listed, "dot", target.dots))
    within = target.model_copy(update={"dots": dots}) if dots else target
    sound: list[tuple[Design, int]] = []
    rejections = []
    known: dict[object, Rejection | None] = {}  # by all that these rules ask
    first: dict[object, int] = {}
    for design in designs(listed, target):
        key = (
            *(design.dot, design.unpack, design.block_m, design.operands, design.gates),
            *(design.roles, *((design.row, design.block_k) if design.row else ())),
        )
        if key not in known:
            known[key] = reject_design(design, within)
        rejection = known[key]
        if rejection is None:
            sound.append((design, first.setdefault(_without_offsets(design), len(sound))))
        else:
            rejections.append(Rejection(design, rejection.rule, rejection.reason))
    return tuple(sound), tuple(rejections)


def _without_offsets(design: Design) -> object:
    return (
        *(design.block_m, design.block_n, design.block_k, design.warps, design.stages, design.dot),
        *(design.unpack, design.tail, design.operands, design.gates, design.row),
        design.roles,
    )


@cache
def on_record(asked: Question, measured: Measured) -> tuple[Rejection, ...]:
    """What the record holds against designs that rules find legal. Keys of the cache are compared:
    ask by what is faulty alone, `Measured.faulty`.
    """
    return recorded(judged(asked).legal, asked, measured)


def recorded(
    variants: Iterable[Variant], asked: Question, measured: Measured
) -> tuple[Rejection, ...]:
    """What it holds against some of the variants of a question."""
    if not measured.any_faulty(asked.geometry, asked.target.name):
        return ()
    return tuple(filter(None, (reject_recorded(each, measured) for each in variants)))


def in_orders(variants: Iterable[Variant]) -> Iterator[Variant]:
    """Legal GEMMs with every order of programs, which no rule but those of the record asks for."""
    for variant in variants:
        for design in in_every_order(variant.design, variant.target):
            yield replace(variant, design=design)


def no_legal(contract: Contract, target: Target, rejections: Sequence[Rejection]) -> list[Finding]:
    """Every rule's first example, where no design is legal."""
    first: dict[str, Rejection] = {}
    counts: dict[str, int] = {}
    for each in rejections:
        first.setdefault(each.rule.name, each)
        counts[each.rule.name] = counts.get(each.rule.name, 0) + 1
    return [
        Finding(
            f"{contract.name} on {target.name}",
            f"no legal design: {name} rejects {counts[name]} of {len(rejections)},"
            f" such as {each.design.name}: {each.what}",
            "widen the design space of the spec, or mend the target's limits",
            each.rule.why,
        )
        for name, each in first.items()
    ]
