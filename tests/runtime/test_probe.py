"""The probe passes here, and names what is broken where arithmetic is."""

from __future__ import annotations

import pytest
import torch

from generator import cli
from generator.runtime import interpreter, probe

interpreted = pytest.mark.skipif(
    not interpreter.active(), reason="breaks the interpreter's own dot"
)


def test_every_promise_holds_here() -> None:
    results = list(probe.probe())
    assert len(results) >= 11
    assert not [str(each) for each in results if not each.holds]


@interpreted
def test_an_fp16_accumulator_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    exact = InterpreterBuilder.create_dot

    def in_fp16(self: object, a: object, b: object, d: object, *rest: object) -> object:
        if a.data.dtype == "float16":
            product = (a.data @ b.data).astype(d.data.dtype)
            return TensorHandle(product + d.data, d.dtype.scalar)
        return exact(self, a, b, d, *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", in_fp16)
    with interpreter.quiet():
        assert cli.main(["probe"]) == 1
    lines = capsys.readouterr().out.splitlines()
    broken = [line for line in lines if line.startswith("BROKEN")]
    assert any("4097" in line for line in broken) and any("65504" in line for line in broken)
    assert all(line.endswith("use the dot strategy rank1 for this target") for line in broken)


def test_a_result_reads_as_one_line() -> None:
    result = probe.Result("one is one", False, "it is 2", "use another device")
    assert str(result) == "BROKEN  one is one: it is 2; use another device"


def test_the_largest_tile_is_the_largest_searched() -> None:
    from generator.data import folder
    from generator.spec.load import load

    spaces = [
        space
        for spec in load(folder("specs")).specs
        for space in (spec.designs.up, spec.designs.down)
    ]
    m, n, k = probe.LARGEST_TILE
    assert m >= max(max(space.block_m) for space in spaces)
    assert n >= max(max(space.block_n) for space in spaces)
    assert k >= 256 and torch.iinfo(torch.int32).max > k * 128 * 128
