"""Layers take turns, whichever batch, and are told apart by their order."""

from __future__ import annotations

import pytest
import torch

from benchmarks import by_turns
from benchmarks.by_turns import line, named
from generator.errors import LaunchError
from generator.runtime.manifest import Layer, Manifest, Model, load
from generator.tune.calls import random_tokens
from generator.tune.cases import Batch, Setup
from generator.tune.rotation import Memory
from generator.tune.timing import Sample
from generator.verify.inputs import Tokens
from tests.tune.clocks import ToldTimer
from tests.tune.small import CHANNEL, CPU, GROUPS, model

MANIFEST: Manifest = load()
BATCHES = (Batch(3, "uniform"), Batch(5, "uniform"))
ASKED = [Setup(model(CHANNEL, GROUPS), MANIFEST.layers[n], BATCHES) for n in (CHANNEL, GROUPS)]


def test_layers_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_turns, "calls_of", lambda copies, floor: 1)
    timer = ToldTimer()
    found = list(by_turns.beside(MANIFEST, ASKED, timer, CPU, repeat=2))
    assert [batch for batch, _ in found] == list(BATCHES)
    assert timer.log == ["graph 1", "graph 2"] * 2 + ["graph 3", "graph 4"] * 2
    assert [[each.median for each in own] for _, own in found] == [[100.5, 200.5], [300.5, 400.5]]


def test_layers_get_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many draws each, whatever their own bytes would ask for."""
    floors = iter([3.0, 2.0])
    monkeypatch.setattr(by_turns, "floor_us", lambda work, read: next(floors))
    monkeypatch.setattr(by_turns, "calls_of", lambda copies, floor: round(floor))
    drawn: dict[str, list[int]] = {}

    def watched(own: Model, layer: Layer, batch: Batch, device: torch.device, seed: int) -> Tokens:
        drawn.setdefault(layer.name, []).append(seed)
        return random_tokens(own, layer, batch, device, seed)

    monkeypatch.setattr(by_turns, "random_tokens", watched)
    next(by_turns.beside(MANIFEST, ASKED, ToldTimer(), CPU, repeat=1))
    assert drawn == {CHANNEL: [0, 1], GROUPS: [0, 1]}


def test_copies_that_have_no_room_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_turns, "memory_of", lambda device: Memory(cache=1 << 22, free=0))
    with pytest.raises(LaunchError, match="3 tokens: there is no memory for copies"):
        next(by_turns.beside(MANIFEST, ASKED, ToldTimer(), CPU, repeat=1))


def test_without_a_gpu_there_is_nothing_to_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_turns, "here", lambda: CPU)
    with pytest.raises(LaunchError, match="there is no GPU"):
        by_turns.gpu()


def test_a_line_tells_how_far_from_the_first() -> None:
    samples = [Sample(200.0, 1.0, 3), Sample(198.0, 2.0, 3), Sample(210.0, 0.0, 3)]
    assert line(BATCHES[0], samples) == (
        "| 3 | 200.0 (1.0) | 198.0 (2.0) | 210.0 (0.0) | -1.0 % | +5.0 % |"
    )


def test_layers_come_as_they_were_named() -> None:
    names = list(MANIFEST.models["seed-large"].layers)[:2][::-1]
    assert [each.layer.name for each in named(MANIFEST, "seed-large", names, [7])] == names
    with pytest.raises(LaunchError, match="layer_none: is no layer of seed-large") as error:
        named(MANIFEST, "seed-large", ["layer_none", names[0]], [7])
    assert names[1] in str(error.value)
