"""Rivals are timed on what the seed draws, and a layer without any is told. By the interpreter, on
the portable modules, with a device that a test speaks for.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from generator.errors import LaunchError
from generator.runtime.entry import Entry
from generator.runtime.manifest import load
from generator.tune import trials, tuner
from generator.tune.cases import Batch, Setup
from generator.tune.tuner import GEMMS, Tuner
from tests.tune.clocks import ToldTimer
from tests.tune.small import CHANNEL, CPU, model

SETUP = Setup(model(CHANNEL), load().layers[CHANNEL], (Batch(3, "uniform"),))


def portable(seed: int = 0) -> Tuner:
    manifest = load()
    own: dict[str, list[Entry]] = {}
    for each in manifest.entries:
        if each.target == "portable" and manifest.contracts[each.contract]["operation"] in GEMMS:
            own.setdefault(each.contract, []).append(each)
    return Tuner(manifest, own, CPU, ToldTimer(), seed)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "LOOKS", 1)
    monkeypatch.setattr(trials, "FINAL_LOOKS", 1)
    monkeypatch.setattr(tuner, "calls_of", lambda copies, floor: 1)


def test_both_gemms_are_timed_at_their_stored_shape() -> None:
    [(batch, found)] = list(portable().measurements(SETUP))
    assert batch == SETUP.batches[0]
    shapes = {(each.operation, each.n, each.k, each.experts, each.rows) for each in found}
    assert shapes == {("up", 128, 128, 4, 6), ("down", 128, 128, 4, 6)}
    assert all(each.us >= 100 and each.block_m > 0 for each in found)


def test_tokens_are_drawn_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[torch.Tensor] = []
    real = tuner.prepare

    def watched(manifest: Any, layer: Any, own: Any, tokens: Any) -> Any:
        drawn.append(tokens[0].hidden)
        return real(manifest, layer, own, tokens)

    monkeypatch.setattr(tuner, "prepare", watched)
    for seed in (0, 1, 1):
        next(portable(seed).measurements(SETUP))
    assert not torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[1], drawn[2])


def test_a_gemm_without_rival_is_told() -> None:
    nobody = Tuner(load(), {}, CPU, ToldTimer(), seed=0)
    with pytest.raises(LaunchError) as error:
        next(nobody.measurements(SETUP))
    assert str(error.value) == (
        "[launch] up_w8gn_a8_swiglu_bf16_v1: no module that can be timed accepts"
        " rows=6, N=128, K=128, experts=4;"
        " leave the layer out by --contract, or build more --rivals"
    )
