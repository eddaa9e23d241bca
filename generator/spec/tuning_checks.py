"""Rules on one file specs/tuning/<device>.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from generator.spec.check import Check, Defect, distinct, nearest
from generator.spec.model import SpecSet, Tuning


def _tuned_target(tuning: Tuning, _: Path, everything: SpecSet) -> Iterator[Defect]:
    known = [target.name for target in everything.targets]
    if tuning.target not in known and tuning.target not in everything.broken:
        fix = nearest(tuning.target, known)
        yield Defect(("target",), f"no file targets/{tuning.target}.yaml", fix)
    same = [each.device for each in everything.tunings if each.target == tuning.target]
    if len(same) > 1:
        what = f"{' and '.join(same)} are both {tuning.target}"
        yield Defect(("target",), what, "keep one of the files")


def _tuned_shapes(tuning: Tuning, _: Path, __: SpecSet) -> Iterator[Defect]:
    seen: set[tuple[str, int, int, int]] = set()
    for index, shape in enumerate(tuning.shapes):
        key = (shape.contract, shape.n, shape.k, shape.experts)
        if key in seen:
            what = f"{shape.contract} at N={shape.n} K={shape.k} E={shape.experts} stands twice"
            yield Defect(("shapes", index, "contract"), what, "remove one")
        seen.add(key)
        rows = [each.rows for each in shape.buckets]
        if rows != sorted(set(rows)):
            what = f"rows {', '.join(str(each) for each in rows)} do not ascend"
            yield Defect(("shapes", index, "buckets"), what, "sort them, each once")


def _tuned_routings(tuning: Tuning, _: Path, __: SpecSet) -> Iterator[Defect]:
    for number, shape in enumerate(tuning.shapes):
        for index, bucket in enumerate(shape.buckets):
            at = ("shapes", number, "buckets", index, "routings")
            yield from distinct(at, bucket.routings)
            if "uniform" in bucket.routings and bucket.routings[0] != "uniform":
                yield Defect(at, "`uniform` does not stand first", "sort it to the front")


TUNING_CHECKS: tuple[Check[Tuning], ...] = (
    Check("tuned_target", "a target's table is one device's", _tuned_target),
    Check("tuned_shapes", "selection looks the nearest rows up", _tuned_shapes),
    Check("tuned_routings", "a bucket's figures are its first routing's", _tuned_routings),
)
