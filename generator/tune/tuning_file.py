"""specs/tuning/<device>.yaml as text: what was chosen, and on what it was measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from generator.tune.choose import TOLERANCE, UNIFORM, Bucket, Shape
from generator.tune.environment import Environment

SCHEMA = 1


def text(on: Environment, target: str, shapes: Sequence[Shape]) -> str:
    """YAML that `generator/spec/` reads."""
    return "\n".join(_lines(on, target, shapes)) + "\n"


def _lines(on: Environment, target: str, shapes: Sequence[Shape]) -> Iterator[str]:
    yield "# yaml-language-server: $schema=../schema.json"
    yield "#"
    yield "# Written by `python -m generator tune`: measure again, do not edit."
    yield "# us: the median of a launch, graph replays, weights not in the L2 cache; iqr: between"
    yield "# its quartiles; fastest: of all designs of the layer's row tile, which is that of the"
    yield "# fastest layer, or of up and down; rivals: designs timed."
    yield f"# reason: the design is the `fastest` of those, or `shared`: within {TOLERANCE:.0%} and"
    yield "# taken because other buckets of the contract take it too, so that few are emitted."
    yield "# routings: how tokens chose experts, where not `uniform` alone. us, iqr and fastest are"
    yield "# of the first; the fastest design has the least sum over all of us / the least us."
    yield f"schema: {SCHEMA}"
    yield f"device: {json.dumps(on.device)}"  # a string of JSON is one of YAML, whatever is in it
    yield f"target: {target}"
    yield f"driver: {json.dumps(on.driver)}"
    yield f"triton: {json.dumps(on.triton)}"
    yield f"torch: {json.dumps(on.torch)}"
    yield f"date: {json.dumps(on.date)}"
    yield "shapes:"
    for shape in shapes:
        yield f"  - contract: {shape.contract}"
        yield f"    n: {shape.n}"
        yield f"    k: {shape.k}"
        yield f"    experts: {shape.experts}"
        yield "    buckets:"
        for each in shape.buckets:
            yield f"      - {{ {', '.join(_facts(each))} }}"


def _facts(bucket: Bucket) -> Iterator[str]:
    yield f"rows: {bucket.rows}"
    yield f"design: {bucket.design}"
    yield f"us: {bucket.us:.2f}"
    yield f"iqr: {bucket.iqr:.2f}"
    yield f"fastest: {bucket.fastest_us:.2f}"
    yield f"rivals: {bucket.rivals}"
    yield f"reason: {bucket.reason}"
    if bucket.routings != (UNIFORM,):
        yield f"routings: [{', '.join(bucket.routings)}]"
