"""Lower one contract on one target: enumerate, prune, prove, rank, keep.

Contracts that move and multiply alike (`GemmContract.geometry`) are judged once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

from generator.errors import BuildError, Finding
from generator.lower.bands import ANY, ROW_WISE, Band, bands
from generator.lower.contract import Contract, GemmContract
from generator.lower.cost import Shape, cost
from generator.lower.enumerate import designs, space
from generator.lower.measured import UNMEASURED, Measured, alike
from generator.lower.prune import Rejection, reject_design, reject_recorded, reject_variant
from generator.lower.tuned import UNTUNED, Tuned
from generator.lower.variant import Design, Variant
from generator.spec.model import Frozen, Limits, Spec, Target


@dataclass(frozen=True, slots=True)
class RankedBand:
    """The kept designs of one band, cheapest first."""

    band: Band
    designs: tuple[Design, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What lowering decided for one contract on one target."""

    contract: Contract
    target: Target
    enumerated: int
    legal: int
    kept: tuple[Variant, ...]  # in order of first use
    bands: tuple[RankedBand, ...]
    rejections: tuple[Rejection, ...]
    tuned: tuple[Tuned, ...] = UNTUNED  # of kept designs alone

    def rejected_by(self) -> dict[str, int]:
        """Rejections of each rule that fired."""
        counts: dict[str, int] = {}
        for each in self.rejections:
            counts[each.rule.name] = counts.get(each.rule.name, 0) + 1
        return counts

    def within(self, wanted: Sequence[Band]) -> Plan:
        """The plan with the designs alone that serve some bands: those of their row tiles."""
        tiles = {band.block_m for band in wanted}
        kept = tuple(v for v in self.kept if v.design.block_m in tiles)
        own = {v.design for v in kept}
        ranked = tuple(
            RankedBand(each.band, tuple(d for d in each.designs if d in own)) for each in self.bands
        )
        names = {design.name for design in own}
        tables = tuple(
            replace(each, buckets=tuple(b for b in each.buckets if b.design in names))
            for each in self.tuned
        )
        tables = tuple(each for each in tables if each.buckets)
        return replace(self, kept=kept, bands=ranked, tuned=tables)


@dataclass(frozen=True, slots=True)
class ShapeSource:
    """A real layer's GEMM, before its rows are known."""

    experts: int
    n: int
    k: int
    rows: int  # of its largest call

    def at(self, rows_per_expert: int) -> Shape:
        return Shape(self.experts, rows_per_expert, self.n, self.k)

    def sizes(self) -> dict[str, int]:
        """Of its largest call, by the names that conditions use."""
        return {"rows": self.rows, "N": self.n, "K": self.k, "experts": self.experts}


@dataclass(frozen=True, slots=True)
class Judged:
    """A whole design space after pruning."""

    enumerated: int
    legal: tuple[Variant, ...]
    rejections: tuple[Rejection, ...]


def lower(
    spec: Spec,
    contract: Contract,
    target: Target,
    sources: Sequence[ShapeSource],
    measured: Measured = UNMEASURED,
    rivals: int = 0,
    tunings: tuple[Tuned, ...] = UNTUNED,
) -> Plan:
    """Choose the variants of one contract on one target.

    `sources` are the shapes to rank for, `measured` is what is on record of compiled variants,
    `tunings` what was chosen by timing. With `rivals` keep so many tiles of a GEMM a band and
    shape, in all their traits: what a tuner times.

    Raises BuildError, with every rule's first example, where no design is legal.
    """
    listed = space(spec, contract.operation)
    geometry = contract.geometry if isinstance(contract, GemmContract) else contract
    judged = _judge(geometry, listed, target, spec.limits)
    recorded = _recorded(geometry, listed, target, spec.limits, measured)
    rejections = judged.rejections + recorded
    legal = len(judged.legal) - len(recorded)
    if not legal:
        raise BuildError(_no_legal(contract, target, rejections))
    banned = frozenset(each.design for each in recorded)
    given = (geometry, listed, target, spec.limits, tuple(sources), banned)
    if rivals and isinstance(contract, GemmContract):
        chosen, ranked = _choose_rivals(*given, most=rivals)
    else:
        chosen, ranked = _choose(*given)
    tables: tuple[Tuned, ...] = ()
    if tunings and not rivals:
        by_name = _by_name(geometry, listed, target, spec.limits, banned)
        tables = tuple(_legal_buckets(each, by_name) for each in tunings)
        timed = [by_name[bucket.design] for table in tables for bucket in table.buckets]
        chosen = tuple(dict.fromkeys([*timed, *chosen]))
    if not chosen:
        shapes = ", ".join(f"N={each.n} K={each.k}" for each in sources)
        what = f"no legal design accepts any of the shapes it is ranked for: {shapes}"
        raise BuildError(
            Finding(f"{contract.name} on {target.name}", what, "add smaller tiles to the spec")
        )
    kept = tuple(Variant(contract, design, target, spec.limits) for design in chosen)
    whole = tuple(each for each in tables if each.buckets)
    return Plan(contract, target, judged.enumerated, legal, kept, ranked, rejections, whole)


@cache
def _by_name(
    geometry: Contract, listed: Frozen, target: Target, limits: Limits, banned: frozenset[Design]
) -> Mapping[str, Design]:
    """Every legal design."""
    legal = (each.design for each in _judge(geometry, listed, target, limits).legal)
    return {design.name: design for design in legal if design not in banned}


def _legal_buckets(table: Tuned, by_name: Mapping[str, Design]) -> Tuned:
    """Without designs that a rule has come to reject since: their rows go to the nearest others."""
    return replace(table, buckets=tuple(b for b in table.buckets if b.design in by_name))


@cache
def _sound(listed: Frozen, target: Target) -> tuple[tuple[Design, ...], tuple[Rejection, ...]]:
    """The designs that break no rule of designs, and the rejections of the others. Strategies that
    the space does not list are no competition.
    """
    dots = tuple(dot for dot in target.dots if dot in getattr(listed, "dot", target.dots))
    within = target.model_copy(update={"dots": dots}) if dots else target
    judged = [(design, reject_design(design, within)) for design in designs(listed, target)]
    return (
        tuple(design for design, rejection in judged if rejection is None),
        tuple(rejection for _, rejection in judged if rejection is not None),
    )


@cache
def _judge(geometry: Contract, listed: Frozen, target: Target, limits: Limits) -> Judged:
    sound, unsound = _sound(listed, target)
    legal, rejections = [], list(unsound)
    rejection: Rejection | None = None
    for design in sound:
        variant = Variant(geometry, design, target, limits)
        # No rule of variants asks which programs follow one another, and orders go round fastest.
        if design.order in (None, target.orders[0]):
            rejection = reject_variant(variant)
        if rejection is None:
            legal.append(variant)
        else:
            rejections.append(Rejection(design, rejection.rule, rejection.reason))
    return Judged(len(legal) + len(rejections), tuple(legal), tuple(rejections))


@cache
def _recorded(
    geometry: Contract, listed: Frozen, target: Target, limits: Limits, measured: Measured
) -> tuple[Rejection, ...]:
    """What the record holds against designs that rules find legal."""
    if not measured.any_spills(tuple(f"{name}_{target.name}_" for name in alike(geometry))):
        return ()
    legal = _judge(geometry, listed, target, limits).legal
    return tuple(filter(None, (reject_recorded(each, measured) for each in legal)))


@cache
def _choose(
    geometry: Contract,
    listed: Frozen,
    target: Target,
    limits: Limits,
    sources: tuple[ShapeSource, ...],
    banned: frozenset[Design],
) -> tuple[tuple[Design, ...], tuple[RankedBand, ...]]:
    """The cheapest designs of each band; every band then ranks all that were kept."""
    judged = _judge(geometry, listed, target, limits).legal
    # The cost model tells orders of programs not apart, so that the target's first stands for all.
    legal = [
        variant
        for variant in judged
        if variant.design.order in (None, target.orders[0]) and variant.design not in banned
    ]
    tiles = {v.design.block_m for v in legal if v.gemm and v.design.block_m}
    every_band = bands(tiles) if tiles else _row_bands(geometry)
    kept: list[Variant] = []
    ranked: list[RankedBand] = []
    for band in every_band:
        if tiles:
            in_band = [v for v in legal if band.block_m == v.design.block_m]
            kept += _covering(in_band, sources, band)
        else:
            own = _reaching(legal, sources, band)
            kept += own
            ranked.append(RankedBand(band, tuple(v.design for v in own)))
    kept = list(dict.fromkeys(kept))
    if tiles:
        ranked = [
            RankedBand(band, tuple(v.design for v in _order(kept, sources, band)))
            for band in every_band
        ]
    return tuple(v.design for v in kept), tuple(ranked)


def _choose_rivals(
    geometry: Contract,
    listed: Frozen,
    target: Target,
    limits: Limits,
    sources: tuple[ShapeSource, ...],
    banned: frozenset[Design],
    *,
    most: int,
) -> tuple[tuple[Design, ...], tuple[RankedBand, ...]]:
    """For each band and shape the `most` cheapest tiles, warps and stages, each with every order
    of operands and programs, and the cheapest of its other traits.
    """
    judged = _judge(geometry, listed, target, limits).legal
    legal = [variant for variant in judged if variant.design not in banned]
    kept: dict[Design, None] = {}
    for band in bands({v.design.block_m for v in legal if v.design.block_m}):
        in_band = [
            v
            for v in legal
            if v.design.block_m == band.block_m and v.design.order == target.orders[0]
        ]
        for source, rows in product(sources, band.samples):
            accepting = [variant for variant in in_band if _accepts(variant, source)]
            shape = source.at(rows)
            costs = {v.design: cost(v, shape).total_us for v in accepting}
            cheapest = sorted(costs, key=lambda each: (_simple(each), costs[each], each.name))
            tiles: dict[tuple[object, ...], dict[tuple[object, ...], Design]] = {}
            for design in cheapest:
                tile = (design.block_m, design.block_n, design.block_k, design.warps, design.stages)
                if tile in tiles or len(tiles) < most:
                    schedule = (design.operands, design.gates)
                    tiles.setdefault(tile, {}).setdefault(schedule, design)
            for chosen in tiles.values():
                for design, order in product(chosen.values(), target.orders):
                    kept.setdefault(replace(design, order=order))
    every = tuple(design for design in kept if design not in banned)
    return every, (RankedBand(ANY, every),)


def _simple(design: Design) -> int:
    """Designs with a tail or wide offsets come after all that have none."""
    return (design.tail == "any") + (design.offsets == "int64")


def _row_bands(contract: Contract) -> tuple[Band, ...]:
    """Routing does the same work, whoever owns the rows."""
    row_wise = contract.operation in ("quantize", "requantize", "combine")
    return ROW_WISE if row_wise else (ANY,)


def _reaching(variants: list[Variant], sources: Sequence[ShapeSource], band: Band) -> list[Variant]:
    """The cheapest row-wise design of each reach that a shape needs, and of the longest, which
    takes every layer. A design that reaches further does more work, so the shorter goes first.
    """
    reaches = sorted({_reach(each) for each in variants})
    users: dict[tuple[int, int], list[ShapeSource]] = {reaches[-1]: []}
    for source in sources:
        for reach in reaches:
            if _within(source, reach):
                users.setdefault(reach, []).append(source)
                break
    chosen = []
    for reach, own_sources in sorted(users.items()):
        own = [each for each in variants if _reach(each) == reach]
        within = own_sources or [each for each in sources if _within(each, reach)]
        chosen.append(_order(own, within, band)[0])
    return chosen


def _reach(variant: Variant) -> tuple[int, int]:
    """The longest row and the most experts that a design takes."""
    most = {each.of: each.bound for each in variant.bounds}
    return most.get("K", 0), most.get("experts", 0)


def _within(source: ShapeSource, reach: tuple[int, int]) -> bool:
    longest, experts = reach
    return (not longest or source.k <= longest) and (not experts or source.experts <= experts)


def _covering(variants: list[Variant], sources: Sequence[ShapeSource], band: Band) -> list[Variant]:
    """The cheapest design that accepts every shape, or as few as accept them all.

    Tails and wide offsets are emitted only for shapes that nothing simpler accepts.
    """
    chosen: list[Variant] = []
    open_sources = list(sources)
    for traits in (0, 1, 2):
        simple = [v for v in variants if _simple(v.design) == traits]
        while open_sources and simple:
            reach = {id(v): sum(_accepts(v, s) for s in open_sources) for v in simple}
            widest = max(reach.values())
            if widest == 0:
                break
            best = _order([v for v in simple if reach[id(v)] == widest], open_sources, band)[0]
            chosen.append(best)
            open_sources = [s for s in open_sources if not _accepts(best, s)]
    return chosen  # the portable variant serves shapes that are left


def _accepts(variant: Variant, source: ShapeSource) -> bool:
    sizes = source.sizes()
    return all(each.holds(sizes) for each in variant.requires)


def _order(variants: list[Variant], sources: Sequence[ShapeSource], band: Band) -> list[Variant]:
    """The band's own row tile first, then by shapes refused, then by mean cost; ties by name.

    The cost of a shape is relative to the best variant for it, so that no shape outweighs another.
    """
    costs: list[list[float]] = [[] for _ in variants]
    for source in sources:
        accepting = [i for i, variant in enumerate(variants) if _accepts(variant, source)]
        for rows in band.samples if accepting else ():
            shape = source.at(rows)
            here = {index: cost(variants[index], shape).total_us for index in accepting}
            least = min(here.values())
            for index, each in here.items():
                costs[index].append(each / least)
    samples = len(sources) * len(band.samples)

    def key(index: int) -> tuple[bool, int, float, str]:
        own, design = costs[index], variants[index].design
        mean = round(sum(own) / len(own), 6) if own else 0.0
        foreign = band.block_m is not None and design.block_m != band.block_m
        return (foreign, samples - len(own), mean, design.name)

    return [variants[index] for index in sorted(range(len(variants)), key=key)]


def _no_legal(contract: Contract, target: Target, rejections: Sequence[Rejection]) -> list[Finding]:
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
