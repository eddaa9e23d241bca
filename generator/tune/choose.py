"""From measurements to the designs that a build emits: a pure function of what was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from generator.errors import Finding, LaunchError
from generator.tune.measured import LAYER, Measurement, wrong

# A design that is slower than the fastest by less is as good: fewer designs are emitted then.
TOLERANCE = 0.03
UNIFORM = "uniform"  # the routing whose times are written, where it was timed


@dataclass(frozen=True, slots=True)
class Bucket:
    """What is taken for a number of routed rows, and for calls of rows near them."""

    rows: int
    design: str
    us: float  # this and the next two under the first of the routings
    iqr: float
    fastest_us: float  # of any design that shares the layer's row tile
    rivals: int  # designs that were timed
    reason: str  # fastest, or shared: as good, and taken for other buckets too
    routings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """One GEMM contract at one shape."""

    contract: str
    n: int
    k: int
    experts: int
    buckets: tuple[Bucket, ...]


Key = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True)
class _Rival:
    """A design on one batch of a layer, timed under every routing of the batch, in its order."""

    trials: tuple[Measurement, ...]

    @property
    def design(self) -> str:
        return self.trials[0].design

    @property
    def block_m(self) -> int:
        return self.trials[0].block_m

    @property
    def times(self) -> tuple[float, ...]:
        return tuple(each.us for each in self.trials)


@dataclass(frozen=True, slots=True)
class _Batch:
    """A number of rows of a model's layer."""

    model: str
    layer: str
    rows: int
    routings: tuple[str, ...]
    rivals: Mapping[str, Sequence[_Rival]]  # by operation
    layers: Sequence[_Rival]  # whole ones, by row tiles


@dataclass(frozen=True, slots=True)
class _Good:
    """A rival that is as fast as any of its row tile."""

    rival: _Rival
    slower: float  # than the best: 1 to 1 + TOLERANCE

    @property
    def design(self) -> str:
        return self.rival.design


@dataclass(frozen=True, slots=True)
class _Place:
    """A number of rows of a shape, for which one design is taken."""

    key: Key
    rows: int
    routings: tuple[str, ...]
    rivals: int
    fastest_us: float
    good: tuple[_Good, ...]  # the best first


def chosen(measurements: Iterable[Measurement]) -> tuple[Shape, ...]:
    """For each batch the row tile that makes the layer fastest, or up and down together where no
    layers were timed by several; for it the designs that are as fast as any, and of these as few
    for all batches as will do.

    Under several routings the fastest has the least sum of its times, each divided by the least
    under its routing. A design that some of them lack compares with none, and is left out, as is
    one whose result was not the oracle's on any batch.

    Of layers that share a GEMM's contract, shape and rows one counts: of those with the most
    routings the first by the names of model and layer. Raises LaunchError where up and down were
    timed by no common row tile.
    """
    every = tuple(measurements)
    banned = wrong(every)
    right = (each for each in every if (each.contract, each.design) not in banned)
    fit: dict[str, dict[tuple[Key, int], _Place]] = {}
    for batch in sorted(_batches(right), key=_precedence):
        tile = _row_tile(batch)
        for rivals in batch.rivals.values():
            place = _place(batch, rivals, tile)
            fit.setdefault(place.key[0], {}).setdefault((place.key, place.rows), place)
    shapes: dict[Key, list[Bucket]] = {}
    for places in fit.values():
        for place, good in _taken(tuple(places.values())):
            shapes.setdefault(place.key, []).append(_bucket(place, good))
    return tuple(
        Shape(*key, tuple(sorted(shapes[key], key=lambda each: each.rows)))
        for key in sorted(shapes)
    )


def _batches(measurements: Iterable[Measurement]) -> list[_Batch]:
    """The rivals of each layer and number of rows."""
    by_batch: dict[tuple[str, str, int], list[Measurement]] = {}
    for each in measurements:
        by_batch.setdefault((each.model, each.layer, each.rows), []).append(each)
    return [_batch(each) for each in by_batch.values()]


def _batch(measurements: Sequence[Measurement]) -> _Batch:
    """All that was measured of one layer at one number of rows."""
    routings = sorted({each.routing for each in measurements}, key=lambda r: (r != UNIFORM, r))
    trials: dict[str, dict[str, dict[str, Measurement]]] = {}
    for each in measurements:
        by_design = trials.setdefault(each.operation, {})
        by_design.setdefault(each.design, {})[each.routing] = each
    rivals = {
        operation: [
            _Rival(tuple(by_routing[routing] for routing in routings))
            for by_routing in by_design.values()
            if len(by_routing) == len(routings)
        ]
        for operation, by_design in trials.items()
    }
    one, layers = measurements[0], rivals.pop(LAYER, [])
    return _Batch(one.model, one.layer, one.rows, tuple(routings), rivals, layers)


def _precedence(batch: _Batch) -> tuple[int, str, str]:
    return (-len(batch.routings), batch.model, batch.layer)


def _row_tile(batch: _Batch) -> int:
    """Up and down read one tile map, so the time of the layer counts, or else the sum of both: by
    each tile's best designs.
    """
    whole: dict[int, tuple[float, ...]] = {}
    for tile in {rival.block_m for own in batch.rivals.values() for rival in own}:
        of_tile = [[r for r in own if r.block_m == tile] for own in batch.rivals.values()]
        if all(of_tile):
            best = [_by_slowness(own)[0].rival.times for own in of_tile]
            whole[tile] = tuple(sum(us) for us in zip(*best, strict=True))
    if not whole:
        what = (
            f"{batch.layer} of {batch.model} at {batch.rows} rows: no row tile of both up and down"
        )
        if len(batch.routings) > 1:
            what += f" under all of {', '.join(batch.routings)}"
        raise LaunchError(Finding("--trials", what, "name another file, and time them anew"))
    layers = {each.block_m: each.times for each in batch.layers if each.block_m in whole}
    whole = layers if len(layers) > 1 else whole
    least = _least(whole.values())
    return min(whole, key=lambda tile: (_ratios(whole[tile], least), tile))


def _place(batch: _Batch, rivals: Sequence[_Rival], tile: int) -> _Place:
    """What may be taken of a GEMM on a batch, by a row tile that it was timed by."""
    own = [each for each in rivals if each.block_m == tile]
    good = tuple(each for each in _by_slowness(own) if each.slower <= 1 + TOLERANCE)
    one = own[0].trials[0]
    return _Place(
        key=(one.contract, one.n, one.k, one.experts),
        rows=batch.rows,
        routings=batch.routings,
        rivals=len(rivals),
        fastest_us=_least(each.times for each in own)[0],
        good=good,
    )


def _by_slowness(rivals: Sequence[_Rival]) -> list[_Good]:
    """All of them, each with how much slower it is than the best, which comes first."""
    least = _least(each.times for each in rivals)
    sums = {each.design: _ratios(each.times, least) for each in rivals}
    best = min(sums.values())
    found = [_Good(each, sums[each.design] / best) for each in rivals]
    return sorted(found, key=lambda each: (each.slower, each.design))


def _least(times: Iterable[Sequence[float]]) -> tuple[float, ...]:
    """Of times by routing the least under each."""
    return tuple(min(each) for each in zip(*times, strict=True))


def _ratios(times: Sequence[float], least: Sequence[float]) -> float:
    """What is minimised: no routing counts for more because its calls take longer."""
    return sum(us / of for us, of in zip(times, least, strict=True))


def _taken(places: Sequence[_Place]) -> list[tuple[_Place, _Good]]:
    """For each place one of its good designs. One that a single place would take saves no design:
    the place takes its fastest instead.
    """
    few = _cover(places)
    taken = [next(good for good in each.good if good.design in few) for each in places]
    users = Counter(good.design for good in taken)
    return [
        (place, good if users[good.design] > 1 else place.good[0])
        for place, good in zip(places, taken, strict=True)
    ]


def _cover(places: Sequence[_Place]) -> set[str]:
    """Few designs, one of them among the good ones of every place: greedily, the one of most
    places first.
    """
    few: set[str] = set()
    left = list(places)
    while left:
        counts: dict[str, list[float]] = {}
        for place in left:
            for good in place.good:
                counts.setdefault(good.design, []).append(good.slower)
        best = min(counts, key=lambda name: (-len(counts[name]), sum(counts[name]), name))
        few.add(best)
        left = [place for place in left if all(g.design != best for g in place.good)]
    return few


def _bucket(place: _Place, good: _Good) -> Bucket:
    first = good.rival.trials[0]
    return Bucket(
        rows=place.rows,
        design=first.design,
        us=first.us,
        iqr=first.iqr,
        fastest_us=place.fastest_us,
        rivals=place.rivals,
        reason="fastest" if good.slower == 1 else "shared",
        routings=place.routings,
    )
