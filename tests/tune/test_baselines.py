"""Baselines compute the layer that they are compared with, or say why they do not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from generator.data import folder
from generator.emit.outputs import outputs
from generator.emit.sync import write
from generator.errors import LaunchError
from generator.lower.program import Selection, program
from generator.runtime.manifest import Manifest, load
from generator.spec.load import load as load_specs
from generator.tune import baselines
from generator.tune.baselines import Absent, Baseline, external, seed_baseline
from generator.tune.seed_layer import combined, seed_calls, seed_manifest
from generator.tune.torch_layer import random_torch_experts, torch_layer
from generator.tune.vllm_layer import unavailable
from generator.verify.compare import differing_bits
from tests.tune.small import CHANNEL, CPU, INT4, model, prepared

LAYERS = (CHANNEL, "layer_w4g512g320_a8_swiglu_bf16_v1")


@pytest.fixture(scope="module")
def ilu(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    out: Path = tmp_path_factory.mktemp("ilu")
    selection = Selection(contracts=LAYERS, targets=("ilu", "portable"))
    write(out, outputs(program(load_specs(folder("specs")), selection), folder("templates")))
    return seed_manifest(out)


@pytest.mark.parametrize("name", LAYERS)
def test_the_seed_has_the_bits_of_the_layer(ilu: Manifest, name: str) -> None:
    call = prepared(load(), name, calls=2, places=2, hidden=512, intermediate=320)
    calls = seed_calls(ilu, call.copies, call.tokens)
    for index, each in enumerate(calls):
        call.run(index)
        run = each.run_and_ask()
        assert {run.choice[stage].entry.dot for stage in ("up", "down")} == {"fp16_exact"}
        assert {run.choice[stage].entry.target for stage in ("up", "down")} == {"ilu"}
        assert differing_bits(combined(each, call.tokens[index]), call.outs[index]) == 0
    assert [each.packed.up_weight.data_ptr() for each in calls] == [
        each.up_weight.data_ptr() for each in call.copies
    ]


def test_the_seed_is_absent_without_modules_or_without_the_layer(ilu: Manifest) -> None:
    why = "pass --seed-modules DIR of `python -m generator build --target ilu --target portable"
    without = seed_baseline(prepared(load()), None)
    assert isinstance(without, Absent) and without.why.startswith(why)
    other = seed_baseline(prepared(load(), INT4), ilu)
    assert other == Absent("seed", "its modules hold no such layer")
    there = seed_baseline(prepared(load()), ilu)
    assert isinstance(there, Baseline) and there.subject.eager is not None


def test_modules_without_the_seeds_target_are_refused() -> None:
    with pytest.raises(LaunchError) as error:
        seed_manifest(load().directory)
    assert str(error.value) == (
        f"[launch] --seed-modules {load().directory}: holds no module for ilu;"
        " python -m generator build --target ilu --target portable --out DIR"
    )


def test_the_layer_in_torch_is_the_sum_over_its_slots() -> None:
    own = model()
    experts = random_torch_experts(own, CPU, seed=0)
    given = prepared(load(), tokens=9).tokens[0]
    want = torch.zeros(9, own.hidden)
    for token in range(9):
        for slot, expert in enumerate(given.ids[token].tolist()):
            if expert < own.experts:
                x = given.hidden[token].float()
                gate, up = (experts.up[expert].float() @ x).chunk(2)
                a = torch.nn.functional.silu(gate) * up
                want[token] += given.weights[token, slot] * (experts.down[expert].float() @ a)
    got = torch_layer(experts, given)
    assert got.dtype == torch.bfloat16 and want.abs().max() > 0.1
    assert torch.allclose(got.float(), want, atol=0.02 * float(want.abs().max()))


def test_vllm_says_why_it_has_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = load().layers
    assert unavailable(layers[INT4]) == "no such format: its W8A8 has int8 weights per channel"
    monkeypatch.setitem(sys.modules, "vllm", None)
    assert unavailable(layers[CHANNEL]) == "not installed"


def test_a_mistake_of_ours_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> torch.Tensor:
        raise KeyError("tokens")

    monkeypatch.setattr(baselines, "torch_layer", broken)
    with pytest.raises(KeyError):
        list(external(prepared(load()), model(), seed=0))


def test_a_baseline_that_fails_is_a_row_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> torch.Tensor:
        raise ValueError("strides\nand more")

    monkeypatch.setattr(baselines, "torch_layer", broken)
    monkeypatch.setattr(baselines, "unavailable", lambda layer: "not installed")
    assert list(external(prepared(load()), model(), seed=0)) == [
        Absent("bf16 torch", "failed: ValueError: strides"),
        Absent("vllm int8", "not installed"),
    ]
