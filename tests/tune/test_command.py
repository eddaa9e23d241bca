"""The verb from end to end: by the interpreter with its own clock, which no test reads, and with a
device that a test speaks for.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from generator import cli
from generator.arguments import parser
from generator.runtime.manifest import Manifest, load
from generator.tune import bench as measuring
from generator.tune import command, rotation
from generator.tune.bench import CHECKS, Bench
from generator.tune.cases import setups
from generator.tune.command import Options, bench
from generator.tune.routing import ROUTINGS
from tests.tune.clocks import ToldTimer
from tests.tune.reports import CEILINGS
from tests.tune.small import CHANNEL, CPU, GROUPS, INT4, model

ONE = ("--model", "seed-small", "--contract", CHANNEL, "--tokens", "1", "--repeat", "1")
SMALL = (*ONE, "--routing", "one-hot")  # of one token's two experts the first is local


def options(**changes: Any) -> Options:
    plain = Options(
        models=(),
        contract=None,
        tokens=(),
        routings=("uniform",),
        baselines=False,
        stages=False,
        generated=None,
        seed_modules=None,
        out=None,
        plots=False,
        repeat=2,
        check="sample",
        seed=0,
        command="as typed",
    )
    return replace(plain, **changes)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """The shipped modules, with one model of three small layers."""
    own = replace(load(), models={"tiny": model(CHANNEL, GROUPS, INT4)})
    monkeypatch.setattr(command, "load", lambda directory: own)
    return own


def test_the_command_line_measures_and_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = cli.main(["bench", *SMALL, "--stages", "--out", str(tmp_path), "--no-plots"])
    out, err = capsys.readouterr()
    assert code == 0, err
    assert out.rstrip().endswith(f"{512 * 16} bits compared, 0 different")
    assert err.startswith(f"[1/1] seed-small {CHANNEL} 1 tokens one-hot, ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.csv", "bench.json"]
    data = json.loads((tmp_path / "bench.json").read_text())
    assert f"bench {' '.join(SMALL)} --stages" in data["environment"]["command"]
    assert [row["subject"] for row in data["rows"]] == [
        "layer",
        *(f"stage {name}" for name in data["rows"][0]["designs"]),
    ]
    assert data["ceilings"] is None
    for row in data["rows"]:
        assert row["times"]["graph"] is None and row["times"]["eager"]["count"] == 1


@pytest.mark.parametrize("check", ["sample", "stages"])
def test_a_broken_module_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], check: str
) -> None:
    copied = Path(shutil.copytree(load().directory, tmp_path / "generated"))
    modules = list(copied.glob("combine/*/portable/*.py"))
    for path in modules:
        text = path.read_text()
        assert "tl.fma(weight," in text
        path.write_text(text.replace("tl.fma(weight,", "tl.fma(-weight,"))
    code = cli.main(["bench", *SMALL, "--check", check, "--generated", str(copied)])
    assert code == 1
    assert not capsys.readouterr().out.rstrip().endswith(" 0 different")


def test_without_a_check_nothing_is_compared(tiny: Manifest) -> None:
    said: list[str] = []
    asked = options(contract=CHANNEL, check="none")
    assert bench(asked, said.append, lambda line: None, ToldTimer()) == 0
    assert said[-1] == "0 bits compared, 0 different"


def test_every_batch_and_routing_is_measured_and_equal(tiny: Manifest) -> None:
    told: list[str] = []
    said: list[str] = []
    asked = options(contract="*w8g*", tokens=(1, 2), routings=("zipf", "half-empty"), repeat=1)
    assert bench(asked, said.append, told.append) == 0
    names = [line.partition("] ")[2].partition(", ")[0] for line in told]
    assert names == [
        f"tiny {layer} {count} tokens {routing}"
        for layer in (CHANNEL, GROUPS)
        for count in (1, 2)
        for routing in ("zipf", "half-empty")
    ]
    assert said[-1] == f"{2 * 2 * (1 + 2) * 128 * 16} bits compared, 0 different"


def test_a_run_that_is_cut_off_leaves_what_it_measured(
    tiny: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def progress(line: str) -> None:
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(line)

    asked = options(contract=CHANNEL, tokens=(1, 2, 3), out=tmp_path, repeat=1)
    with pytest.raises(KeyboardInterrupt):
        bench(asked, lambda line: None, progress)
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert [row["facts"]["tokens"] for row in rows] == [1]


def on_a_told_device(
    tiny: Manifest, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> tuple[ToldTimer, Bench]:
    """A bench whose device has graphs, a cache of 200 kB and the ceilings of an H200; as short as
    the interpreter needs it.
    """
    monkeypatch.setattr(measuring, "EAGER_CALLS", (1, 2))
    monkeypatch.setattr(rotation, "REPLAY_US", 16.0)
    memory = measuring.memory_of(CPU)
    monkeypatch.setattr(
        measuring, "memory_of", lambda device: replace(memory, cache=200_000, free=10**9)
    )
    timer = ToldTimer()
    plain = Bench(
        tiny,
        CPU,
        timer,
        CEILINGS,
        repeat=3,
        stages=False,
        baselines=False,
        seed_modules=None,
        check="sample",
        seed=0,
    )
    return timer, replace(plain, **changes)


def test_graphs_are_timed_by_turns_and_compared(
    tiny: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    timer, told = on_a_told_device(tiny, monkeypatch, stages=True)
    [setup] = setups(tiny, contract=CHANNEL)
    [(_, [layer, *stages])] = list(told.rows(setup))
    count = 1 + len(stages)
    assert timer.log == [f"graph {n}" for n in range(1, count + 1)] * 3
    # The n-th graph takes 100 n, then 1 more each time: the median of three is 100 n + 1.
    medians = [row.times.graph.median for row in (layer, *stages) if row.times.graph]
    assert medians == [100.0 * n + 1 for n in range(1, count + 1)]
    assert layer.share == pytest.approx(layer.facts.floor_us / 101.0)
    assert layer.times.eager and layer.times.eager.median == 50.0
    assert all(row.times.eager is None for row in stages)
    assert layer.compared and (layer.compared.bits, layer.compared.different) == (3 * 128 * 16, 0)
    # Two experts or more of 49920 bytes are hit, and four caches are to be read.
    assert layer.facts.copies > 1 and layer.facts.calls % layer.facts.copies == 0
    assert layer.facts.copies * 4 * 49920 >= 4 * 200_000


def test_what_is_compared_is_what_the_replay_wrote(
    tiny: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph that writes nothing is found, although eager calls wrote the right result."""

    class Idle(ToldTimer):
        def capture(self, calls: Any) -> Any:
            return super().capture([])

    _, told = on_a_told_device(tiny, monkeypatch, timer=Idle())
    [setup] = setups(tiny, contract=CHANNEL)
    [(_, [layer])] = list(told.rows(setup))
    assert layer.compared and layer.compared.different > 0


def test_baselines_are_rows_with_times_or_reasons(
    tiny: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoSecond(ToldTimer):
        """The second capture fails, as one does in which a value is read back."""

        def capture(self, calls: Any) -> Any:
            captured = super().capture(calls)
            if self.graphs == 2:
                raise RuntimeError("operation not permitted\nwhen capturing")
            return captured

    for timer, note in ((ToldTimer(), ""), (NoSecond(), "no graph: operation not permitted")):
        _, told = on_a_told_device(tiny, monkeypatch, timer=timer, baselines=True, repeat=1)
        [setup] = setups(tiny, contract=INT4)
        [(_, [layer, bf16, vllm, seed])] = list(told.rows(setup))
        assert [row.subject for row in (layer, bf16, vllm, seed)] == [
            "layer",
            "bf16 torch",
            "vllm int8",
            "seed",
        ]
        assert bf16.times.eager and bf16.note == note
        assert (bf16.times.graph is None) == bool(note)
        assert vllm.note == "no such format: its W8A8 has int8 weights per channel"
        assert seed.note.startswith("pass --seed-modules DIR of ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "gpt"), "[launch] --model gpt: no such model; use one of "),
        (("--contract", "level"), "[launch] --contract: `level` names no layer contract;"),
        (("--tokens", "0"), "[launch] --tokens 0: is no number of tokens; use 1 or more\n"),
        (("--repeat", "0"), "[launch] --repeat: is 0; use 1 or more\n"),
        (
            ("--baselines",),
            "[launch] --baselines: there is no GPU, and the CPU interpreter's times compare with"
            " nothing; leave it out, or run on a GPU\n",
        ),
        (("--device", "7"), "[launch] --device 7: this process sees "),
        (("--seed-modules", "nowhere"), "[build] "),
        (("--generated", "nowhere"), "[build] "),
    ],
)
def test_bad_input_is_2_and_says_what_to_do(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert not torch.cuda.is_available() or arguments != ("--baselines",)
    code = cli.main(["bench", *arguments])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "") and err.startswith(message)


def test_the_parser_offers_what_there_is() -> None:
    asked = parser("").parse_args(["bench", "--routing", *ROUTINGS])
    assert tuple(asked.routing) == ROUTINGS
    for check in CHECKS:
        assert parser("").parse_args(["bench", "--check", check]).check == check
    with pytest.raises(SystemExit):
        parser("").parse_args(["bench", "--routing", "odd"])
