"""A random layer, batch and way in, compared with the oracle stage by stage.

Layers are read off a manifest: GPU machines run this without a spec.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st

from generator.runtime.layer import run_rows, run_tokens
from generator.runtime.manifest import Layer, Manifest
from generator.runtime.pack import pack
from generator.verify.cases import Shape, turn_of
from generator.verify.inputs import Tokens, seed_state, sorted_rows, tokens
from generator.verify.stages import Checked, check_stages, poisoned

EXAMPLES = int(os.environ.get("GROUPWISE_EXAMPLES", "10000"))  # of the nightly tests
ROUTINGS = ("uniform", "one_hot", "half_idle", "anywhere", "twice", "none")
WEIGHTS = ("normalized", "zeros", "negative", "nan", "infinite")
ROWS = ("normal", "zeros", "huge", "tiny", "nan", "infinite", "one value")
LONGEST = 192  # of H and I: three K_UNITs, so that groups of 128 leave a tail


@dataclass(frozen=True)
class RandomLayer:
    """One example. It reads as a call, so that a failure can be typed in."""

    layer: str
    plan: str | None
    start: str
    shape: Shape
    first_expert: int
    routing: str
    weights: str
    rows: str
    int32_ids: bool
    seed: int


def lengths(layer: Layer, group: int | None) -> st.SearchStrategy[int]:
    """Of K: mostly short, sometimes about one turn of the loop over groups, a tail behind it."""
    turn = max(LONGEST, turn_of(layer, group))
    short = st.integers(2, LONGEST)
    about_a_turn = st.integers(-2, 66).map(lambda more: turn + more)
    return st.integers(0, 3).flatmap(lambda pick: short if pick else about_a_turn)


@st.composite
def random_layers(draw: st.DrawFn, manifest: Manifest, most_tokens: int = 5) -> RandomLayer:
    """A few tokens two times in three, else up to `most_tokens`."""
    layer = manifest.layer(draw(st.sampled_from(sorted(manifest.layers))))
    experts = draw(st.integers(1, 4))
    everywhere = experts + draw(st.integers(0, 2))
    hidden = draw(lengths(layer, layer.up_group))
    shape = Shape(
        experts=experts,
        global_experts=everywhere,
        top_k=draw(st.integers(1, min(3, everywhere))),
        hidden=hidden + hidden % 2 if layer.weights == "int4" else hidden,
        intermediate=draw(lengths(layer, layer.down_group)),
        tokens=draw(st.integers(1, most_tokens if draw(st.integers(0, 2)) == 0 else 5)),
    )
    return RandomLayer(
        layer=layer.name,
        plan=draw(st.sampled_from([None, *(plan.name for plan in layer.plans)])),
        start=draw(st.sampled_from(["tokens", "rows"])),
        shape=shape,
        first_expert=draw(st.sampled_from([0, 0, 1, 7])),
        routing=draw(st.sampled_from(ROUTINGS)),
        weights=draw(st.sampled_from(WEIGHTS)),
        rows=draw(st.sampled_from(ROWS)),
        int32_ids=draw(st.booleans()),
        seed=draw(st.integers(0, 2**16)),
    )


def batch_of(case: RandomLayer, layer: Layer, device: torch.device) -> Tokens:
    """The batch with its ids, weights and rows bent as the case says; ids start at 0 here."""
    batch, shape = tokens(layer, case.shape, device, case.seed), case.shape
    random = torch.Generator(device).manual_seed(case.seed + 2)
    ids, weights, hidden = batch.ids.clone(), batch.weights.clone(), batch.hidden.clone()
    match case.routing:
        case "one_hot":
            ids.fill_(case.seed % shape.experts)
        case "half_idle":
            ids = torch.where(ids < shape.experts, ids // 2 * 2, ids)
        case "anywhere":
            ids = torch.randint(-3, shape.experts + 3, ids.shape, device=device, generator=random)
        case "twice":
            ids[:] = ids[:, :1].clone()
        case "none":
            ids.fill_(shape.experts)
    match case.weights:
        case "zeros":
            weights[0] = 0.0
        case "negative":
            weights.neg_()
        case "nan":
            weights[0, 0] = float("nan")
        case "infinite":
            weights[0, 0] = float("inf")
    match case.rows:
        case "zeros":
            hidden[0] = 0.0
        case "huge":
            hidden[0] = torch.finfo(hidden.dtype).max
        case "tiny":
            hidden[0] *= 1e-7
        case "nan":
            hidden[0, -1] = float("nan")
        case "infinite":
            hidden[0, 0] = float("-inf")
        case "one value":
            hidden.fill_(-1.0)
    return Tokens(hidden, ids.contiguous(), weights)


def check_random_layer(case: RandomLayer, manifest: Manifest, device: torch.device) -> None:
    """Every stage has the oracle's bits, and the result no byte that was there before."""
    layer = manifest.layer(case.layer)
    packed = pack(seed_state(layer, case.shape, device, case.seed), layer)
    batch = batch_of(case, layer, device)
    if case.start == "tokens":
        ids = batch.ids + case.first_expert
        ids = ids.to(torch.int32) if case.int32_ids else ids
        run = run_tokens(
            packed,
            batch.hidden,
            ids,
            batch.weights,
            manifest,
            first_expert=case.first_expert,
            out=poisoned(batch.hidden),
            plan=case.plan,
        )
        checked = Checked(
            packed,
            layer,
            run,
            batch.hidden,
            ids=ids,
            weights=batch.weights,
            first_expert=case.first_expert,
        )
    else:
        local = replace(batch, ids=torch.where(batch.ids < 0, case.shape.experts, batch.ids))
        hidden, counts = sorted_rows(local, case.shape.experts)
        out = poisoned(hidden)
        run = run_rows(packed, hidden, counts, manifest, out=out, plan=case.plan)
        checked = Checked(packed, layer, run, hidden, counts=counts)
    wrong = [each for each in check_stages(checked) if each.different]
    assert not wrong, f"{case}: {wrong}"
    assert case.plan in (None, run.choice.plan.name)
