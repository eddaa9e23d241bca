"""A stage that is launched again does its work again, and nothing else."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from generator.runtime.manifest import load
from generator.tune import rotation
from generator.tune.stages import GEMMS, again, designs, finished, launches, stage_subjects
from generator.verify.stages import check_stages, poisoned
from tests.tune.small import GROUPS, INT4, prepared


@pytest.mark.parametrize("plan", ["separate", "folded"])
@pytest.mark.parametrize("name", [GROUPS, INT4])
def test_every_stage_again_writes_the_same_bits(name: str, plan: str) -> None:
    call = prepared(load(), name, plan=plan)
    checked = finished(call)
    chosen = checked.run.choice
    assert chosen.plan.name == plan and ("requantize" in chosen.stages) == (plan == "separate")
    written = {
        operation: [got for got, _ in checked.pairs(operation, checked.written(), chosen.block_m)]
        for operation in chosen.stages
    }
    want = {operation: [each.clone() for each in own] for operation, own in written.items()}
    for operation, choice in chosen.stages.items():
        for got in written[operation]:
            if operation != "up" or got.dtype != torch.int32:  # amax is raised, never lowered
                got.copy_(poisoned(got))
        again(checked, operation, choice.entry)
        for got, before in zip(written[operation], want[operation], strict=True):
            assert torch.equal(got, before), operation
    assert sum(each.different for each in check_stages(checked)) == 0


def test_a_finished_call_is_not_overwritten_by_the_next() -> None:
    call = prepared(load(), calls=2)
    checked = finished(call)
    before = {name: each.clone() for name, each in checked.run.buffers.items()}
    call.run(1)
    for name, each in checked.run.buffers.items():
        assert torch.equal(each, before[name]), name


def test_subjects_are_the_stages_on_every_copy() -> None:
    call = prepared(load(), calls=4, places=2)
    checked = finished(call)
    subjects = stage_subjects(call, checked)
    assert [each.name for each in subjects] == [f"stage {one}" for one in designs(checked.run)]
    [up] = [each for each in subjects if each.name == "stage up"]
    parts = [each for each in up.calls if isinstance(each, partial)]
    used = [part.args[0].packed.up_weight.data_ptr() for part in parts]
    assert used == [call.copies[i % 2].up_weight.data_ptr() for i in range(4)]


def test_a_graph_of_a_stage_that_may_be_short_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "REPLAY_US", 13 * rotation.LEAST_STAGE_US)
    call = prepared(load(), calls=4, places=2)
    lengths = {each.name: len(each.calls) for each in stage_subjects(call, finished(call))}
    assert {lengths.pop(f"stage {each}") for each in GEMMS} == {4}
    assert lengths and set(lengths.values()) == {16}


def test_launches_count_the_copies_of_a_padded_hidden_size() -> None:
    plain, wide = (finished(prepared(load(), hidden=size)).run for size in (128, 80))
    assert launches(plain) == len(plain.choice.stages)
    assert launches(wide) == len(wide.choice.stages) + 3
