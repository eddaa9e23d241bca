"""What `tune` refuses before it compiles and times for hours, and what it goes on with: by a device
and a tuner that tests speak for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from generator import cli
from generator.arguments import parser
from generator.errors import LaunchError
from generator.runtime.entry import Entry
from generator.runtime.manifest import load
from generator.tune import measured, tune_command
from generator.tune.cases import Batch, Setup
from generator.tune.measured import Conditions, Measurement
from generator.tune.routing import ROUTINGS
from generator.tune.trials import unordered
from generator.tune.tune_command import Options, tune
from tests.tune.reports import ON
from tests.tune.small import CHANNEL, CPU, GROUPS, model

TIMES = {"uniform": {"a": 10.0, "b": 12.0}, "zipf": {"a": 30.0, "b": 20.0}}


@dataclass(frozen=True)
class Told:
    """A tuner that knows the times."""

    asked: list[tuple[str, int, str]]
    seen: list[int]  # measurements of earlier runs that it was given

    def measurements(
        self, setup: Setup, known: Sequence[Measurement]
    ) -> Iterator[tuple[Batch, list[Measurement] | None]]:
        self.seen.append(len(known))
        for batch in setup.batches:
            yield batch, None
        for batch in setup.batches:
            self.asked.append((setup.layer.name, batch.tokens, batch.routing))
            yield (
                batch,
                [timed(setup, batch, name, us) for name, us in TIMES[batch.routing].items()],
            )


def timed(setup: Setup, batch: Batch, design: str, us: float) -> Measurement:
    return Measurement(
        model=setup.model.name,
        layer=setup.layer.name,
        operation="down",
        contract=f"down_of_{setup.layer.name}",
        n=128,
        k=128,
        experts=4,
        rows=batch.tokens * setup.model.top_k,
        routing=batch.routing,
        design=design,
        block_m=16,
        us=us,
        iqr=0.1,
        looks=5,
    )


@dataclass(frozen=True)
class Lab:
    """`tune` of two layers of one model on a device that is not there."""

    trials: Path
    out: Path
    tuner: Told
    lines: list[str]

    def tune(
        self, *routings: str, tokens: Sequence[int] = (3,), leave_out: Sequence[str] = ()
    ) -> list[tuple[str, int, str]]:
        """What was timed."""
        self.tuner.asked.clear()
        options = Options(
            models=(),
            contract=None,
            tokens=tokens,
            routings=routings,
            generated=Path("nowhere"),
            trials=self.trials,
            leave_out=leave_out,
            out=self.out,
            jobs=1,
            seed=0,
            command="as typed",
        )
        assert tune(options, self.lines.append, self.lines.append) == 0
        return list(self.tuner.asked)

    @property
    def buckets(self) -> list[dict[str, Any]]:
        shapes = yaml.safe_load(self.out.read_text())["shapes"]
        return [bucket for shape in shapes for bucket in shape["buckets"]]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    shipped = load()
    own = replace(shipped, models={"tiny": model(CHANNEL, GROUPS)})
    found = Lab(tmp_path / "trials", tmp_path / "out.yaml", Told([], []), [])

    @contextmanager
    def open_gates(*_: object) -> Iterator[object]:
        yield SimpleNamespace(passing=list)

    monkeypatch.setattr(tune_command, "here", lambda: torch.device("cuda"))
    monkeypatch.setattr(tune_command, "load", lambda directory: own)
    monkeypatch.setattr(tune_command, "targets_for", lambda device, manifest: ("sm_90",))
    monkeypatch.setattr(tune_command, "environment", lambda device, command, generated: ON)
    monkeypatch.setattr(tune_command, "gates", open_gates)
    monkeypatch.setattr(tune_command, "timer_for", lambda device: None)
    monkeypatch.setattr(tune_command, "Tuner", lambda *_: found.tuner)
    return found


def test_all_that_cannot_be_done_is_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing" / "file"
    where = ("--generated", "nowhere", "--trials", str(tmp_path), "--out", str(missing))
    assert cli.main(["tune", *where]) == 2
    assert capsys.readouterr().err == (
        "[launch] tune: there is no GPU, and the CPU interpreter's times say nothing of one;"
        " run it on the device that is to serve\n"
        f"[launch] --trials {tmp_path}: is a folder; name a file\n"
        f"[launch] --out {missing}: there is no folder {missing.parent};"
        " make it, or name another file\n"
    )


def test_a_gpu_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ("--trials", str(tmp_path / "trials"), "--out", str(tmp_path / "out"))
    assert cli.main(["tune", "--generated", "nowhere", *files, "--device", "7"]) == 2
    assert capsys.readouterr().err.startswith("[launch] --device 7: this process sees ")


def test_a_device_without_target_is_not_tuned_as_another(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = load()
    monkeypatch.setattr(tune_command, "targets_for", lambda device, manifest: ("portable",))
    with pytest.raises(LaunchError, match="no target of its manifest describes this device"):
        tune_command._target(CPU, manifest)
    monkeypatch.setattr(tune_command, "targets_for", lambda device, manifest: ("sm_90", "portable"))
    assert tune_command._target(CPU, replace(manifest)).name == "sm_90"


def test_every_batch_is_timed_under_every_routing(lab: Lab) -> None:
    timed = lab.tune("uniform", "zipf", tokens=(3, 5))
    assert timed == [
        (layer, count, routing)
        for layer in (CHANNEL, GROUPS)
        for count in (3, 5)
        for routing in ("uniform", "zipf")
    ]
    progress = [line.partition(", ")[0] for line in lab.lines[1:-1]]
    assert progress[7] == f"[8/16] tiny {CHANNEL} 5 tokens zipf: 2 timings"
    assert progress[8] == f"[9/16] tiny {GROUPS} 3 tokens uniform: first round"
    assert progress[15] == f"[16/16] tiny {GROUPS} 5 tokens zipf: 2 timings"
    assert lab.lines[-1] == f"{lab.out}: 2 shapes, 4 buckets, 2 designs"


def test_another_routing_times_only_what_is_missing(lab: Lab) -> None:
    layers = (CHANNEL, GROUPS)
    assert lab.tune("uniform") == [(layer, 3, "uniform") for layer in layers]
    assert [(b["design"], b.get("routings")) for b in lab.buckets] == [("a", None)] * 2

    assert lab.tune("uniform", "zipf") == [(layer, 3, "zipf") for layer in layers]
    both = [("b", 12.0, ["uniform", "zipf"])] * 2
    assert [(b["design"], b["us"], b["routings"]) for b in lab.buckets] == both
    assert lab.tuner.seen == [0, 0, 4, 4]  # two designs of each layer

    assert lab.tune("uniform") == []  # and what is in the file stays in it
    assert [(b["design"], b["us"], b["routings"]) for b in lab.buckets] == both
    kept = measured.read(lab.trials, Conditions.of(ON))
    assert [each.routing for each in kept] == ["uniform"] * 4 + ["zipf"] * 4


def test_modules_are_compiled_in_one_order_each_before_the_clock_runs(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Entry] = []

    @contextmanager
    def watching(*_: object) -> Iterator[object]:
        def passing(entries: Sequence[Entry]) -> list[Entry]:
            assert not lab.tuner.asked
            compiled.extend(entries)
            return list(entries)

        yield SimpleNamespace(passing=passing)

    monkeypatch.setattr(tune_command, "gates", watching)
    lab.tune("uniform")
    assert {each.target for each in compiled} == {"sm_90"}
    designs = [(each.contract, unordered(each)) for each in compiled]
    assert len(set(designs)) == len(designs)
    assert (
        lab.lines[0] == f"{len(designs)} modules of sm_90 to be compiled, others as they are timed"
    )


def test_what_is_left_out_is_neither_compiled_nor_timed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, list[Entry]]] = []

    def told(manifest: object, entries: dict[str, list[Entry]], *_: object) -> Told:
        given.append(entries)
        return lab.tuner

    monkeypatch.setattr(tune_command, "Tuner", told)
    lab.tune("uniform", leave_out=["down_w8gn_*_blocks", "up_w8g128_*w4*"])
    lab.trials.unlink()
    lab.tune("uniform")
    few, every = ({each.symbol for own in one.values() for each in own} for one in given)
    gone = every - few
    assert gone and few
    assert all(each.startswith("down_w8gn_") or "w4" in each for each in gone)
    assert not any(each.startswith("down_w8gn_") and each.endswith("_blocks") for each in few)
    for again in (False, True):  # globs are looked at even where nothing is left to be timed
        with pytest.raises(LaunchError, match="--leave-out up_w9: matches no module of sm_90"):
            lab.tune("uniform", leave_out=["up_w9"])
        if not again:
            lab.tune("uniform")


def test_what_is_left_out_is_not_chosen_for_what_it_was_timed_on(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.tune("uniform")
    assert {bucket["design"] for bucket in lab.buckets} == {"a"}
    monkeypatch.setattr(tune_command, "_refuse_globs", lambda *_: None)  # nothing is called so
    assert lab.tune("uniform", leave_out=["*_sm_90_a"]) == []
    assert {bucket["design"] for bucket in lab.buckets} == {"b"}


def test_the_parser_offers_every_routing() -> None:
    files = ("--generated", "DIR", "--trials", "FILE", "--out", "FILE")
    assert parser("").parse_args(["tune", *files]).routing == ["uniform"]
    asked = parser("").parse_args(["tune", *files, "--routing", *ROUTINGS])
    assert tuple(asked.routing) == ROUTINGS
