"""specs/tuning/<device>.yaml as text: what was chosen, and on what it was measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from generator.tune.choose import TOLERANCE, Shape
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
    yield "# its quartiles; fastest: of all designs of the layer's row tile; rivals: designs timed."
    yield f"# As few designs are taken as are within {TOLERANCE:.0%} of the fastest everywhere."
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
            yield (
                f"      - {{ rows: {each.rows}, design: {each.design}, us: {each.us:.2f},"
                f" iqr: {each.iqr:.2f}, fastest: {each.fastest_us:.2f}, rivals: {each.rivals} }}"
            )
