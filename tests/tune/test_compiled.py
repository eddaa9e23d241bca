"""Modules that a tuner asks for are compiled once each and held to the gates of `compile`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

import pytest

from generator.aot.pool import Answered, Pool, Started
from generator.resources import Figures
from generator.runtime.entry import Entry
from generator.runtime.manifest import Manifest, load
from generator.tune.compiled import Gates

MANIFEST: Manifest = load()
TARGET = MANIFEST.targets["sm_90"]
FIRST, SECOND, THIRD = [
    each for each in MANIFEST.entries if each.target == "sm_90" and each.dot == "int8"
][:3]
FINE = Figures(
    registers=128,
    accumulators=0,
    scalars=0,
    stack=0,
    shared=49152,
    code=4096,
    matrix={"mma m16n8k32 s32 s8 s8 s32": 8, "wgmma m64n128k32 s32 s8 s8": 8},
    loads={"4": 9},
    copies={"16": 24},
    unset=0,
)


class Workers:
    """Compilers that answer what a test says of a symbol, and of any other that it is fine."""

    def __init__(self, answers: Mapping[str, Mapping[str, Any]]) -> None:
        self.answers = answers
        self.compiled: list[str] = []

    def ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        if request["verb"] == "version":
            return {"triton": "3.6.0"}
        return {"launches": [[symbol, []] for symbol in request["symbols"]]}

    def run(self, requests: Sequence[Mapping[str, Any]]) -> Iterator[Started | Answered]:
        for index, each in reversed(list(enumerate(requests))):  # answers come as they are ready
            self.compiled.append(each["symbol"])
            fine = {"figures": asdict(FINE)}
            yield Started(index)
            yield Answered(index, self.answers.get(each["symbol"], fine))


@pytest.fixture(autouse=True)
def any_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which one a module must have, tests of the gates know."""
    monkeypatch.setattr("generator.aot.gates.promise", lambda *_: {"mma", "wgmma"})


def gated(answers: Mapping[Entry, Mapping[str, Any]]) -> tuple[Gates, Workers, list[str]]:
    workers = Workers({each.symbol: answer for each, answer in answers.items()})
    said: list[str] = []
    return Gates(MANIFEST, TARGET, cast(Pool, workers), said.append), workers, said


def test_what_breaks_a_gate_is_left_out_and_told_once() -> None:
    spills = {"figures": asdict(FINE) | {"stack": 8}}
    gate, workers, said = gated({SECOND: spills})
    for _ in range(2):
        assert gate.passing([SECOND, FIRST, FIRST]) == [FIRST, FIRST]
    assert said == [f"not timed: {SECOND.symbol}: 8 bytes of registers spill"]
    assert workers.compiled == [FIRST.symbol, SECOND.symbol]


def test_what_does_not_compile_is_left_out() -> None:
    gate, _, said = gated({FIRST: {"error": "CompilationError: no", "trace": "the last line"}})
    assert gate.passing([FIRST, SECOND]) == [SECOND]
    assert said == [
        f"not timed: {FIRST.symbol}: does not compile: CompilationError: no\nthe last line"
    ]


def test_a_module_that_is_asked_for_later_passes_the_same_gates_and_no_other_again() -> None:
    gate, workers, said = gated({THIRD: {"figures": asdict(FINE) | {"stack": 8}}})
    assert gate.passing([FIRST]) == [FIRST]
    assert gate.passing([FIRST, SECOND, THIRD]) == [FIRST, SECOND]
    assert gate.passing([THIRD, SECOND]) == [SECOND]
    assert workers.compiled == [FIRST.symbol, THIRD.symbol, SECOND.symbol]
    assert len(said) == 1


def test_nothing_is_asked_where_nothing_is_new() -> None:
    gate, workers, _ = gated({})
    assert gate.passing([]) == [] and workers.compiled == []
