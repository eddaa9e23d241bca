"""Rivals are timed on what the seed draws, and a layer without any is told. By the interpreter, on
the portable modules, with a device that a test speaks for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from generator.errors import LaunchError
from generator.lower import enumerate as lowering
from generator.runtime.entry import Entry
from generator.runtime.manifest import load
from generator.tune import trials, tuner
from generator.tune.cases import Batch, Setup
from generator.tune.choose import chosen
from generator.tune.measured import Measurement
from generator.tune.stages import GEMMS
from generator.tune.timing import Sample
from generator.tune.tuner import Tuner, first_orders
from generator.verify import stages
from tests.tune.clocks import ToldTimer
from tests.tune.small import CHANNEL, CPU, model

SETUP = Setup(model(CHANNEL), load().layers[CHANNEL], (Batch(3, "uniform"),))


def portable(seed: int = 0) -> Tuner:
    manifest = load()
    own: dict[str, list[Entry]] = {}
    for each in manifest.entries:
        if each.target == "portable" and manifest.contracts[each.contract]["operation"] in GEMMS:
            own.setdefault(each.contract, []).append(each)
    return Tuner(manifest, own, list, CPU, ToldTimer(), seed, print)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "LOOKS", 1)
    monkeypatch.setattr(trials, "FINAL_LOOKS", 1)
    monkeypatch.setattr(tuner, "calls_of", lambda copies, floor: 1)


def measured(
    tuner: Tuner, setup: Setup = SETUP, known: Sequence[Measurement] = ()
) -> list[tuple[Batch, list[Measurement]]]:
    """What is measured of each batch, after the first rounds of all."""
    steps = list(tuner.measurements(setup, known))
    half = len(setup.batches)
    assert [found for _, found in steps[:half]] == [None] * half
    assert [batch for batch, _ in steps] == [*setup.batches] * 2
    return [(batch, found) for batch, found in steps[half:] if found is not None]


def test_both_gemms_are_timed_at_their_stored_shape() -> None:
    [(batch, found)] = measured(portable())
    assert batch == SETUP.batches[0]
    shapes = {(each.operation, each.n, each.k, each.experts, each.rows) for each in found}
    assert shapes == {("up", 128, 128, 4, 6), ("down", 128, 128, 4, 6)}
    assert all(each.us >= 100 and each.block_m > 0 for each in found)


WRONG = "wrong"


@pytest.fixture
def erring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of designs of this name do nothing: no bit of their results is written."""
    real = stages.relaunch

    def relaunch(checked: Any, entry: Entry, operation: str, got: Any) -> None:
        if entry.design != WRONG:
            real(checked, entry, operation, got)

    monkeypatch.setattr(stages, "relaunch", relaunch)


def miscompiled(entry: Entry) -> Entry:
    return replace(entry, design=WRONG, symbol=f"{entry.symbol}_{WRONG}")


@pytest.mark.usefixtures("erring")
def test_a_rival_whose_result_is_not_the_oracles_is_left_out_and_told() -> None:
    said: list[str] = []
    real = portable()
    rivals = [miscompiled(real.entries[DOWN][0]), *real.entries[DOWN]]
    tuner = replace(real, entries={**real.entries, DOWN: rivals}, say=said.append)
    assert down_of(tuner) == {WRONG} | down_of(real)
    [(_, found)] = measured(tuner)
    assert {each.us for each in found if each.design == WRONG} == {math.inf}
    told, again = said
    assert told == again
    found = re.fullmatch(
        f"not timed: {rivals[0].symbol}: (\\d+) of (\\d+) bits differ from the oracle's", told
    )
    assert found is not None
    count, of = found.groups()
    assert 0 < int(count) < int(of) and int(of) % (128 * 16) == 0


@pytest.mark.usefixtures("erring")
def test_what_was_wrong_once_is_not_tried_again() -> None:
    """Nor is it chosen for the batches that it was timed on before."""
    said: list[str] = []
    real = portable()
    rivals = [miscompiled(real.entries[DOWN][0]), *real.entries[DOWN]]
    tuner = replace(real, entries={**real.entries, DOWN: rivals}, say=said.append)
    [(_, first)] = measured(tuner)
    longer = replace(SETUP, batches=(Batch(5, "uniform"),))
    [(_, second)] = measured(tuner, longer, first)
    assert WRONG not in {each.design for each in second}
    assert len(said) == 1
    right = replace(next(e for e in first if e.design == WRONG), rows=second[0].rows, us=1e-3)
    taken = [
        bucket.design for shape in chosen([*first, *second, right]) for bucket in shape.buckets
    ]
    assert taken and WRONG not in taken


@pytest.mark.parametrize("wrong", ["a_columns", "b", "b_columns"])
def test_what_was_wrong_on_a_batch_is_not_tried_on_the_next(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is timed in the first round or, in another order, in the second."""
    tuner, _ = told(monkeypatch, {"a_columns": 5.0, "b_columns": 6.0}, broken=set())
    tried: list[str] = []

    def is_right(contest: trials.Contest, entry: Entry) -> bool:
        tried.append(entry.design)
        return entry.design != wrong

    monkeypatch.setattr(trials.Contest, "is_right", is_right)
    both = replace(SETUP, batches=(*SETUP.batches, Batch(5, "uniform")))
    assert len(measured(tuner, both)) == 2
    right = "b_columns" if wrong == "a_columns" else "a_columns"
    assert (tried.count(wrong), tried.count(right)) == (1, 2)


@pytest.mark.usefixtures("erring")
def test_where_no_result_is_the_oracles_the_layer_is_told() -> None:
    real = portable()
    wrong = [miscompiled(each) for each in real.entries[DOWN]]
    tuner = replace(real, entries={**real.entries, DOWN: wrong})
    with pytest.raises(LaunchError, match=f"{DOWN}: no module's result is the oracle's"):
        down_of(tuner)


@pytest.mark.parametrize("where", ["is_right", "_replay"])
@pytest.mark.parametrize(
    ("said", "told"), [("CUDA error: a stop\nmore", "CUDA error: a stop"), ("", "RuntimeError")]
)
def test_what_the_device_stops_at_is_named_with_the_way_on(
    where: str, said: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops(contest: object, entry: Entry) -> bool:
        raise RuntimeError(said)

    monkeypatch.setattr(trials.Contest, where, stops)
    with pytest.raises(LaunchError) as error:
        down_of(portable())
    assert str(error.value).startswith("[launch] up_w8gn_a8_swiglu_bf16_v1_portable_")
    assert str(error.value).endswith(
        f": does not run: {told};"
        " start again with --leave-out and its name, or a glob: it goes on from --trials"
    )


def test_a_layer_that_the_device_stops_at_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(prepared: object) -> object:
        raise RuntimeError("CUDA error: a stop")

    monkeypatch.setattr(tuner, "finished", stops)
    with pytest.raises(LaunchError) as error:
        down_of(portable())
    assert str(error.value) == (
        f"[launch] {CHANNEL} on 3 tokens: does not run: CUDA error: a stop;"
        " leave the layer out by --contract: it goes on from --trials"
    )


def test_a_full_device_is_no_modules_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(contest: object, entry: Entry) -> bool:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(trials.Contest, "is_right", full)
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        down_of(portable())


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
    nobody = Tuner(load(), {}, list, CPU, ToldTimer(), seed=0, say=print)
    with pytest.raises(LaunchError) as error:
        next(nobody.measurements(SETUP))
    assert str(error.value) == (
        "[launch] up_w8gn_a8_swiglu_bf16_v1: no module that can be timed accepts"
        " rows=6, N=128, K=128, experts=4;"
        " leave the layer out by --contract, or build more --rivals"
    )


ORDERS = {"tiles": "", "columns": "_columns", "blocks": "_blocks"}
DOWN = "down_w8gn_a8_bf16_v1"


def in_every_order(entry: Entry, name: str) -> list[Entry]:
    """Entries of a design `name` that are nowhere on disk."""
    return [
        replace(entry, design=name + end, symbol=f"{entry.contract}_{name}{end}", order=order)
        for order, end in ORDERS.items()
    ]


def a_gemm(block_m: int) -> Entry:
    found = next(e for e in load().by_contract[DOWN] if e.target == "portable")
    return replace(found, block_m=block_m)


def test_finals_are_of_every_row_tile_that_is_near() -> None:
    """The first few of each, and none that is hopeless."""
    times = {16: (8.0, 9.0, 9.1, 9.2, 9.3), 32: (9.5, 10.0, 10.1), 64: (10.2,)}
    tried = [
        trials.Trial(replace(a_gemm(block_m), design=f"m{block_m}_{us}"), Sample.of([us]))
        for block_m, own in times.items()
        for us in reversed(own)
    ]
    taken = [each.entry.design for each in trials.finalists(tried)]
    assert taken == ["m16_8.0", "m16_9.0", "m16_9.1", "m16_9.2", "m32_9.5", "m32_10.0"]


@dataclass(frozen=True)
class Known:
    """A graph whose time is known."""

    us: float

    def sample(self) -> float:
        return self.us


@dataclass
class Gate:
    """Lets pass all but some designs, and remembers what it was asked."""

    broken: set[str]
    asked: list[list[str]]

    def passing(self, entries: Sequence[Entry]) -> list[Entry]:
        down = [each.design for each in entries if each.contract == DOWN]
        self.asked += [down] if down else []
        return [each for each in entries if each.design not in self.broken]


def told(
    monkeypatch: pytest.MonkeyPatch, us: dict[str, float], broken: set[str]
) -> tuple[Tuner, Gate]:
    """A tuner of the down GEMM's designs, in every order, each with the time of its design."""
    gate, real = Gate(broken, []), portable()
    names = sorted({name.removesuffix("_columns").removesuffix("_blocks") for name in us})
    down = [each for name in names for each in in_every_order(a_gemm(32), name)]
    monkeypatch.setattr(
        trials.Contest, "_replay", lambda contest, entry: Known(us.get(entry.design, 50.0))
    )
    monkeypatch.setattr(trials.Contest, "is_right", lambda contest, entry: True)
    return replace(real, entries={**real.entries, DOWN: down}, passing=gate.passing), gate


def down_of(tuner: Tuner, setup: Setup = SETUP, known: Sequence[Measurement] = ()) -> set[str]:
    """The down GEMM's designs that were timed on the last batch."""
    *_, (_, found) = measured(tuner, setup, known)
    return {each.design for each in found if each.operation == "down"}


def test_an_order_that_breaks_a_gate_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it would be the fastest by far, and its design passes in the first order."""
    us = {"a": 9.0, "a_columns": 5.0, "a_blocks": 1.0}
    tuner, gate = told(monkeypatch, us, broken={"a_blocks"})
    assert down_of(tuner) == {"a", "a_columns"}
    assert gate.asked == [["a_columns"], ["a", "a_blocks"]]


def test_of_a_design_whose_first_order_breaks_a_gate_none_is_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    us = {"a_columns": 5.0, "b_columns": 1.0}
    tuner, gate = told(monkeypatch, us, broken={"b_columns"})
    assert down_of(tuner) == {"a", "a_columns", "a_blocks"}
    assert gate.asked == [["a_columns", "b_columns"], ["a", "a_blocks"]]


def test_where_every_design_breaks_a_gate_the_layer_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tuner, _ = told(monkeypatch, {"a": 1.0}, broken={"a_columns"})
    with pytest.raises(LaunchError, match=f"{DOWN}: no module that can be timed accepts"):
        down_of(tuner)


def test_other_orders_are_asked_of_the_best_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    us = {f"{name}_columns": 10.0 + index for index, name in enumerate("abcdef")}
    tuner, gate = told(monkeypatch, us, broken=set())
    assert len(down_of(tuner)) == 6 + 2 * trials.FINALISTS
    assert gate.asked[1] == [f"{name}{end}" for name in "abcd" for end in ("", "_blocks")]


def test_what_one_routing_timed_the_next_one_times_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Designs are compared that were timed under every routing. Under the second f is the best."""
    us = {f"{name}_columns": 10.0 + index for index, name in enumerate("abcdef")}
    tuner, _ = told(monkeypatch, us, broken=set())
    [(_, first)] = measured(tuner)
    before = {each.design for each in first if each.operation == "down"}
    zipf = replace(SETUP, batches=(Batch(3, "zipf"),))

    us["f_columns"] = 1.0
    assert "f" not in before and "d" in before
    assert down_of(tuner, zipf) == before - {"d", "d_blocks"} | {"f", "f_blocks"}
    assert down_of(tuner, zipf, first) == before | {"f", "f_blocks"}

    both = replace(SETUP, batches=(*SETUP.batches, *zipf.batches))
    uniform = iter([15.0])
    monkeypatch.setattr(
        trials.Contest,
        "_replay",
        lambda contest, entry: Known(
            next(uniform, 1.0) if entry.design == "f_columns" else us.get(entry.design, 50.0)
        ),
    )
    assert down_of(tuner, both) == before | {"f", "f_blocks"}


def test_what_all_batches_of_a_layer_need_is_compiled_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    us = {f"{name}_columns": 10.0 + index for index, name in enumerate("abcdef")}
    tuner, gate = told(monkeypatch, us, broken={"f_blocks"})
    times = iter([15.0])  # f is the last of three tokens, the first of five
    monkeypatch.setattr(
        trials.Contest,
        "_replay",
        lambda contest, entry: Known(
            next(times, 1.0) if entry.design == "f_columns" else us.get(entry.design, 50.0)
        ),
    )
    longer = replace(SETUP, batches=(*SETUP.batches, Batch(5, "uniform")))
    by_tokens = {
        batch.tokens: {each.design for each in found if each.operation == "down"}
        for batch, found in measured(tuner, longer)
    }
    first, again, others = gate.asked
    assert first == again == list(us)
    assert others == [f"{name}{end}" for name in "abcdabcf" for end in ("", "_blocks")]
    assert by_tokens[3] == {*us, *others} - {"f", "f_blocks"}
    assert by_tokens[5] == {*us, *others} - {"d", "d_blocks", "f_blocks"}


def test_measurements_of_other_batches_bring_no_design(monkeypatch: pytest.MonkeyPatch) -> None:
    us = {f"{name}_columns": 10.0 + index for index, name in enumerate("abcdef")}
    tuner, _ = told(monkeypatch, us, broken=set())
    [(_, found)] = measured(tuner)
    one = replace(next(each for each in found if each.operation == "down"), design="f")
    assert "f" in down_of(tuner, known=[one])
    for change in ({"model": "m"}, {"layer": "l"}, {"operation": "up"}, {"rows": one.rows + 1}):
        assert "f" not in down_of(tuner, known=[replace(one, **change)])


@pytest.mark.parametrize(("rows", "order"), [(64, "columns"), (128, "blocks")])
def test_short_row_tiles_go_along_columns_first_and_tall_ones_in_blocks(
    rows: int, order: str
) -> None:
    both = [each for name in "ab" for each in in_every_order(a_gemm(rows), name)]
    assert [each.design for each in first_orders(both)] == [f"a_{order}", f"b_{order}"]
    there = [each for each in both if each.order != order or not each.design.startswith("b")]
    assert [each.design for each in first_orders(there)] == [f"a_{order}", "b"]


def test_tall_means_what_it_means_to_lowering() -> None:
    assert tuner.TALL == lowering.TALL
