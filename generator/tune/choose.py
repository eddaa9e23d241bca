"""From measurements to the designs that a build emits: a pure function of what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from generator.errors import Finding, LaunchError
from generator.tune.measured import Measurement

# A design that is slower than the fastest by less is as good: fewer designs are emitted then.
TOLERANCE = 0.02


@dataclass(frozen=True, slots=True)
class Bucket:
    """What is taken for a number of routed rows, and for calls of rows near them."""

    rows: int
    design: str
    us: float
    iqr: float
    fastest_us: float  # of any design that shares the layer's row tile
    rivals: int  # designs that were timed


@dataclass(frozen=True, slots=True)
class Shape:
    """One GEMM contract at one shape."""

    contract: str
    n: int
    k: int
    experts: int
    buckets: tuple[Bucket, ...]


Key = tuple[str, int, int, int]


def chosen(measurements: Iterable[Measurement]) -> tuple[Shape, ...]:
    """For each batch the row tile that makes up and down together fastest, for it the designs that
    are as fast as any, and of these as few for all batches as will do.

    Of layers that share a GEMM's contract, shape and rows the first counts. Raises LaunchError
    where up and down were timed by no common row tile.
    """
    fit: dict[str, dict[tuple[Key, int], list[Measurement]]] = {}
    rivals: dict[tuple[Key, int], int] = {}
    for batch in _batches(measurements):
        tile = _row_tile(batch)
        for trials in batch.values():
            own = [each for each in trials if each.block_m == tile]
            least = min(each.us for each in own)
            good = [each for each in own if each.us <= least * (1 + TOLERANCE)]
            place = (_key(good[0]), good[0].rows)
            if place not in rivals:
                rivals[place] = len(trials)
                fit.setdefault(good[0].contract, {})[place] = good
    shapes: dict[Key, list[Bucket]] = {}
    for places in fit.values():
        few = _cover(places)
        for place, good in places.items():
            taken = min((each for each in good if each.design in few), key=_time)
            fastest = min(each.us for each in good)
            bucket = Bucket(taken.rows, taken.design, taken.us, taken.iqr, fastest, rivals[place])
            shapes.setdefault(place[0], []).append(bucket)
    return tuple(
        Shape(*key, tuple(sorted(shapes[key], key=lambda each: each.rows)))
        for key in sorted(shapes)
    )


def _batches(measurements: Iterable[Measurement]) -> list[dict[str, list[Measurement]]]:
    """The trials of each layer and number of rows, by operation."""

    def batch(each: Measurement) -> tuple[str, str, int]:
        return (each.model, each.layer, each.rows)

    found = []
    for _, group in groupby(sorted(measurements, key=batch), batch):
        by_operation: dict[str, list[Measurement]] = {}
        for each in group:
            by_operation.setdefault(each.operation, []).append(each)
        found.append(by_operation)
    return found


def _row_tile(batch: Mapping[str, Sequence[Measurement]]) -> int:
    """Up and down read one tile map, so the sum of both counts."""
    sums: dict[int, list[float]] = {}
    for trials in batch.values():
        least: dict[int, float] = {}
        for each in trials:
            least[each.block_m] = min(least.get(each.block_m, each.us), each.us)
        for tile, us in least.items():
            sums.setdefault(tile, []).append(us)
    whole = {tile: sum(each) for tile, each in sums.items() if len(each) == len(batch)}
    if not whole:
        one = next(iter(batch.values()))[0]
        what = f"{one.layer} of {one.model} at {one.rows} rows: no row tile of both up and down"
        raise LaunchError(Finding("--trials", what, "name another file, and time them anew"))
    return min(whole, key=lambda tile: (whole[tile], tile))


def _cover(places: Mapping[tuple[Key, int], Sequence[Measurement]]) -> set[str]:
    """Few designs, one of them among the good ones of every place: greedily, the one of most
    places first.
    """
    few: set[str] = set()
    left = dict(places)
    while left:
        counts: dict[str, list[float]] = {}
        for good in left.values():
            least = min(each.us for each in good)
            for each in good:
                counts.setdefault(each.design, []).append(each.us / least)
        best = min(counts, key=lambda name: (-len(counts[name]), sum(counts[name]), name))
        few.add(best)
        left = {
            place: good for place, good in left.items() if all(each.design != best for each in good)
        }
    return few


def _key(each: Measurement) -> Key:
    return (each.contract, each.n, each.k, each.experts)


def _time(each: Measurement) -> tuple[float, str]:
    return (each.us, each.design)
