"""`compile` makes every variant's machine code here, where no such device is, and says what is
wrong with it.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from generator.aot import pool
from generator.aot.jobs import NOT_COMPILED, Job, Progress, refused
from generator.aot.pool import Answered, Pool, Started
from generator.cli import main
from generator.errors import BuildError
from generator.resources import read, read_calibration
from generator.runtime.manifest import load
from generator.verbs.compiling import Bar

CONTRACT = "down_w8gn_a8_bf16_v1"
ARGUMENTS = ("compile", "--target", "sm_90", "--contract", CONTRACT, "--jobs", "2")
RECORD = "sm_90-triton*.json"
# A worker of its own kind: it dies of one request and answers the others.
MORTAL = """
import json, os, sys
for line in sys.stdin:
    request = json.loads(line)
    if request["verb"] == "die":
        print("the last words", file=sys.stderr, flush=True)
        os._exit(3)
    print(json.dumps({"said": request["verb"]}), flush=True)
"""

# The command line, told to heed interrupts: what a shell starts in the background ignores them.
MAIN = """
import signal, sys
from generator.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def emitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("emitted")
    layer = "layer_w8gn_a8_swiglu_bf16_v1"
    targets = ("--target", "portable", "--target", "sm_90")
    assert main(["build", "--contract", layer, *targets, "--out", str(out)]) == 0
    return out


def test_variants_are_compiled_gated_and_recorded(
    emitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main([*ARGUMENTS, "--generated", str(emitted), "--specs", str(tmp_path), "--record"]) == 0
    )
    [path] = (tmp_path / "resources").glob(RECORD)
    variants = read(path).variants
    own = {each.symbol: each for each in load(emitted).by_contract[CONTRACT]}
    assert len(own) > 3 and {each.target for each in own.values()} == {"portable", "sm_90"}
    assert f"{len(own)} launches compiled" in capsys.readouterr().out
    assert variants.keys() == own.keys()
    for symbol, figures in variants.items():
        family = "wgmma" if own[symbol].first_operand_rows >= 64 else "mma"
        assert {name.split()[0] for name in figures.matrix} == {family}
        assert figures.stack == 0 and "1" not in figures.loads
        by_tma = own[symbol].programs is not None  # no copies by threads
        assert bool(figures.copies.get("16")) != by_tma


def test_records_are_compared_and_what_is_on_record_is_judged_by_it(
    emitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    narrow = ("compile", "--target", "sm_90", "--contract", "requantize_*", "--jobs", "1")
    where = ("--generated", str(emitted), "--specs", str(tmp_path))
    assert main([*narrow, *where]) == 0
    assert ".json: not there, so nothing is compared\n" in capsys.readouterr().out
    assert main([*narrow, *where, "--record"]) == 0
    [path] = (tmp_path / "resources").glob(RECORD)
    assert len(read(path).variants) > 1
    capsys.readouterr()

    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"stack": 0', '"stack": 8', 1), encoding="utf-8")
    assert main([*narrow, *where]) == 1
    said = capsys.readouterr()
    again = f"--specs {tmp_path} --generated {emitted} --contract 'requantize_*' --target sm_90"
    assert f"records are stale; run `python -m generator compile {again} --record`" in said.err
    assert said.out.count(" is recorded with ") == 1  # the others take the same again

    assert main([*narrow, *where, "--missing"]) == 1  # what is on record is judged by it
    assert "8 bytes of registers spill" in capsys.readouterr().err
    path.write_text(text, encoding="utf-8")
    assert main([*narrow, *where, "--missing"]) == 0
    assert "0 launches compiled" in capsys.readouterr().out


def test_a_failure_names_variant_target_message_and_rule(
    emitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(emitted, broken)
    plain = [
        path
        for path in sorted((broken / "down" / CONTRACT / "sm_90").glob("m*.py"))
        if "tl.dot(" in path.read_text(encoding="utf-8")
    ]
    small = next(path for path in plain if path.stem.startswith("m16n"))
    tall = next(path for path in plain if '"num_warps": 8' in path.read_text(encoding="utf-8"))
    edit(small, "tl.dot(", "tl.dott(")
    edit(tall, '"num_warps": 8', '"num_warps": 1')
    where = ("--generated", str(broken), "--specs", str(tmp_path))
    assert main([*ARGUMENTS, *where]) == 1
    said = capsys.readouterr().err
    assert f"sm_90: {CONTRACT}_sm_90_{small.stem}: " in said and "dott" in said
    assert f"sm_90: {CONTRACT}_sm_90_{tall.stem}: " in said
    assert "bytes of registers spill\n    rule accumulator_registers" in said
    assert not (tmp_path / "resources").exists()


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_candidates_are_compiled_for_calibration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "candidates"
    layer = "layer_w8gn_a8_swiglu_bf16_v1"
    targets = ("--target", "portable", "--target", "sm_90")
    build = ["build", "--candidates", "1", "--contract", layer, *targets, "--out", str(out)]
    assert main(build) == 0
    specs = ("--generated", str(out), "--specs", str(tmp_path))
    assert main([*ARGUMENTS, *specs, "--calibrate"]) == 0
    [path] = (tmp_path / "resources" / "calibration").glob(RECORD)
    [designs] = read_calibration(path).designs.values()
    assert sorted(name.split("/")[0] for name in designs) == ["portable", "sm_90"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--target", "sm_91"), "--target sm_91: no such target; use one of"),
        (("--target", "portable"), "--target portable: has no compiler of its own"),
        (("--contract", "sideways*"), "--contract sideways*: fits nothing that a layer of"),
        (("--spec", "w2a8"), "--spec w2a8: fits nothing that a layer of"),
        (("--jobs", "0"), "--jobs: is 0; use 1 or more"),
        (("--specs", "no/such"), "--specs no/such: is no folder; pass one"),
    ],
)
def test_bad_options_are_told(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_bar_says_how_far_and_at_what(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bar = Bar()
    bar(Progress(1, 4, ("sm_90: down",)))
    assert capsys.readouterr().err == ""  # no terminal, no bar
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    bar(Progress(1, 4, ("sm_90: up", "sm_90: down")))
    bar(Progress(4, 4, ()))
    first, last = capsys.readouterr().err.split("\033[K")[:2]
    assert first == "\r[######------------------] 1/4 sm_90: down"
    assert last == "\r[########################] 4/4 "


def test_a_worker_that_dies_is_told_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "COMMAND", (sys.executable, "-c", MORTAL))
    requests = [{"verb": verb} for verb in ("a", "die", "b", "c")]
    with Pool(1, tmp_path) as workers:
        events = list(workers.run(requests))
        answers = [each.answer for each in events if isinstance(each, Answered)]
        with pytest.raises(BuildError, match="ended with code 3\nthe last words"):
            workers.ask({"verb": "die"})
    assert [answers[i].get("said") for i in (0, 2, 3)] == ["a", "b", "c"]
    assert answers[1]["died"].endswith("ended with code 3")
    assert answers[1]["trace"] == "the last words"
    started = [each.index for each in events if isinstance(each, Started)]
    assert started == [0, 1, 2, 3]


def test_a_worker_that_cannot_be_replaced_ends_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "COMMAND", (sys.executable, "-c", MORTAL))
    with Pool(1, tmp_path) as workers:
        workers.ask({"verb": "a"})
        monkeypatch.setattr(pool, "COMMAND", (str(tmp_path / "missing"),))
        said = "the compiler's process: cannot be started: No such file.*; use fewer --jobs"
        with pytest.raises(BuildError, match=said):
            list(workers.run([{"verb": "die"}, {"verb": "b"}]))
        with Pool(1, tmp_path) as others, pytest.raises(BuildError, match=said):
            others.ask({"verb": "a"})


@pytest.mark.parametrize(
    ("code", "look_at"),
    [
        (-signal.SIGKILL, "memory: fewer --jobs, or dmesg"),
        (-signal.SIGABRT, NOT_COMPILED),
        (-signal.SIGSEGV, NOT_COMPILED),
        (1, "generator/aot/worker.py"),
        (None, "generator/aot/worker.py"),
    ],
)
def test_what_a_worker_died_of_says_where_to_look(code: int | None, look_at: str) -> None:
    """LLVM's fatal errors end a process by SIGABRT, the kernel's for want of memory by SIGKILL."""
    entry = load().entries[0]
    job = Job(entry, load().targets["sm_90"], ())
    failure = refused(job, {"died": "it ended", "code": code, "trace": "LLVM ERROR: cannot"})
    assert failure.look_at == look_at
    assert failure.what == "it ended\nLLVM ERROR: cannot"


def test_an_interrupt_ends_the_workers_and_writes_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MAIN, *ARGUMENTS, "--record", "--specs", str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    # Often the interrupt meets the start of a worker: it comes as soon as there is a process.
    while not (workers := children(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.001)
    assert workers
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted; nothing was written" in said
    assert not [each for each in workers if Path(f"/proc/{each}").exists()]
    assert list(tmp_path.iterdir()) == []


class Interrupting(subprocess.Popen[str]):
    """Is met by an interrupt when the process is there and nobody knows of it yet."""

    started: ClassVar[list[subprocess.Popen[str]]] = []

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.started.append(self)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)  # until an interrupt that can be raised here is


def test_an_interrupt_while_a_worker_starts_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "COMMAND", (sys.executable, "-c", MORTAL))
    monkeypatch.setattr(Interrupting, "started", [])
    monkeypatch.setattr(subprocess, "Popen", Interrupting)
    heeded = signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()  # whose callbacks swallow an interrupt that meets them
    try:
        with pytest.raises(KeyboardInterrupt), Pool(1, tmp_path) as workers:
            workers.ask({"verb": "a"})
    finally:
        gc.enable()
        signal.signal(signal.SIGINT, heeded)
    [process] = Interrupting.started
    assert process.returncode == -signal.SIGKILL


def children(pid: int) -> list[int]:
    """Processes that a process started, in whichever of its threads (Linux)."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # the thread ended meanwhile
            found += map(int, listed.read_text().split())
    return found
