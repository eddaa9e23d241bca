"""The program around compute-sanitizer: what it starts, what it reads, and when it fails."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch

from generator.runtime import interpreter
from generator.runtime.manifest import Manifest, load
from generator.verify.cases import Shape
from tests.gpu import sanitize
from tests.gpu.mistakes import MISTAKES

SMALL = Shape(2, 3, 2, 64, 64, 3)


def test_the_child_is_started_without_a_shell() -> None:
    manifest = load()
    ours, folder = ("--kernel-name", "kns=_v1_"), ("--generated", str(manifest.directory))
    assert all("_v1_" in each.symbol for each in manifest.entries)
    for tool, options in (("racecheck", ours), ("memcheck", ours), ("initcheck", ())):
        assert sanitize.command(tool, manifest, "--part", "1/3") == [
            *("compute-sanitizer", "--tool", tool, "--error-exitcode", "1", *options),
            *(sys.executable, "-m", "tests.gpu.sanitize", "--tool", tool),
            *("--part", "1/3", *folder),
        ]
    assert sanitize.environment()["PYTORCH_NO_CUDA_MEMORY_CACHING"] == "1"


@pytest.mark.parametrize(
    ("output", "exit_code", "clean", "line"),
    [
        (
            "sanitized 7 variants, 0 bits different\n========= ERROR SUMMARY: 0 errors\n",
            *(0, True, "7 variants, 0 bits different, 0 errors, exit 0: ok"),
        ),
        (
            "sanitized 7 variants, 0 bits different\n========= ERROR SUMMARY: 12 errors\n",
            *(1, False, "7 variants, 0 bits different, 12 errors, exit 1: FAILED"),
        ),
        (
            "sanitized 7 variants, 3 bits different\n========= ERROR SUMMARY: 0 errors\n",
            *(1, False, "7 variants, 3 bits different, 0 errors, exit 1: FAILED"),
        ),
        (
            "sanitized 7 variants, 0 bits different\n"
            "========= RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)\n",
            *(0, False, "7 variants, 0 bits different, 2 errors, exit 0: FAILED"),
        ),
        (
            "========= ERROR SUMMARY: 1 error\n",
            *(1, False, "no variants, no bits different, 1 errors, exit 1: FAILED"),
        ),
        ("", 0, False, "no variants, no bits different, no errors, exit 0: FAILED"),
    ],
)
def test_the_summary_is_read(output: str, exit_code: int, clean: bool, line: str) -> None:
    verdict = sanitize.verdict("memcheck", output, exit_code)
    assert (verdict.clean, str(verdict)) == (clean, f"memcheck  {line}")


def test_a_missing_program_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert sanitize.main([]) == 2
    told = capsys.readouterr().err
    assert told.startswith("compute-sanitizer is not on the PATH; install the CUDA toolkit, or add")


def test_bad_arguments() -> None:
    for wrong in (["--tool", "valgrind"], ["--jobs", "0"], ["--part", "3/3"], ["--part", "1"]):
        with pytest.raises(SystemExit, match="2"):
            sanitize.main(wrong)


@pytest.mark.parametrize("poisons", [True, False])
def test_every_stage_of_both_starts_and_plans_runs(poisons: bool) -> None:
    """The child's own loop, under the interpreter and on the smallest shape."""
    manifest = load()
    layer = manifest.layer("layer_w4g128_a8_swiglu_bf16_v1")
    device = torch.device("cpu" if interpreter.active() else "cuda")
    found = list(sanitize.sanitized(layer, SMALL, manifest, device, poisons=poisons))
    assert not [what for bits, what in found if bits]
    stages = [what.split()[0] for _, what in found]
    assert stages.count("combine") >= 4 and stages.count("requantize") >= 4
    assert stages.count("route") >= 8 and stages.count("down") >= 8


def test_shapes_reach_every_variant_and_a_tail() -> None:
    manifest = load()
    for name, layer in manifest.layers.items():
        least, up_tail, down_tail = sanitize.shapes(name, manifest)
        assert {each.tokens for each in (least, up_tail, down_tail)} == {sanitize.TOKENS}
        if layer.up_group is not None and layer.up_group > 64:
            assert up_tail.hidden % layer.up_group
        if layer.down_group is not None and layer.down_group > 64:
            assert down_tail.intermediate % layer.down_group
        assert max(up_tail.hidden, down_tail.intermediate) <= 1024


def test_a_bit_that_differs_fails_the_child(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sanitize, "sanitized", lambda *_, **__: iter([(0, "up a"), (5, "down b")]))
    assert sanitize.main(["--tool", "memcheck", "--part", "2/100"]) == 1
    printed = capsys.readouterr().out
    assert "  down b: 5 bits differ\n" in printed
    assert printed.endswith("sanitized 2 variants, 5 bits different\n")


def children_print(
    monkeypatch: pytest.MonkeyPatch, text: Callable[[str, tuple[str, ...]], str], code: int = 0
) -> None:
    """Children that say something and end, instead of those under the tools."""
    monkeypatch.setattr(sanitize, "PROGRAM", sys.executable)  # any program that is there

    def command(tool: str, _: Manifest, *does: str) -> list[str]:
        return [sys.executable, "-c", f"print({text(tool, does)!r}); raise SystemExit({code})"]

    monkeypatch.setattr(sanitize, "command", command)


@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_a_tool_that_does_not_see_a_known_mistake_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tool: str
) -> None:
    [(name, mistake)] = [(n, each) for n, each in MISTAKES.items() if each.tool == tool]
    for said, code in (
        ("ERROR SUMMARY: 0 errors", 0),  # it saw nothing
        (f"{mistake.report}\nERROR SUMMARY: 1 error", 0),  # it does not fail for errors
        ("ERROR SUMMARY: 1 error", 1),  # it saw something else
        (mistake.report, 1),  # it ended before its summary
    ):
        children_print(monkeypatch, lambda *_, said=said: said, code)
        assert sanitize.main(["--tool", tool]) == 1
        assert capsys.readouterr().out == f"{said}\n{tool} does not report `{name}`\n"
    children_print(monkeypatch, lambda *_: f"{mistake.report}\nERROR SUMMARY: 1 error", 1)
    assert sanitize.unseen(tool, load()) == []


def test_the_children_of_a_tool_share_every_layer_and_shape(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = load()
    monkeypatch.setattr(sanitize, "sanitized", lambda *_, **__: iter([(0, "up a")]))
    monkeypatch.setattr(sanitize, "unseen", lambda *_: [])
    children_print(monkeypatch, lambda tool, does: f"{tool} {does[1]}")
    assert sanitize.main(["--jobs", "2", "--tool", "memcheck", "initcheck"]) == 1
    printed = capsys.readouterr().out
    assert printed.count("memcheck 1/2: memcheck 1/2\n") == 1
    assert "initcheck no variants, no bits different, no errors, exit 0: FAILED" in printed
    for part in range(4):
        assert sanitize.main(["--tool", "memcheck", "--part", f"{part}/4"]) == 0
    shown = [line.split("  ") for line in capsys.readouterr().out.splitlines() if "  " in line]
    expected = [(n, str(each)) for n in manifest.layers for each in sanitize.shapes(n, manifest)]
    assert sorted(map(tuple, shown)) == sorted(expected)


def test_the_sum_of_the_children() -> None:
    clean, failed = sanitize.Verdict("a", 3, 0, 0, 0), sanitize.Verdict("a", 4, 1, 2, 1)
    cut = sanitize.Verdict("a", None, None, None, -9)
    assert sanitize.total([clean, clean]) == sanitize.Verdict("a", 6, 0, 0, 0)
    assert sanitize.total([clean, failed]) == sanitize.Verdict("a", 7, 1, 2, 1)
    assert sanitize.total([failed, cut]) == sanitize.Verdict("a", None, None, None, -9)
    assert sanitize.total([clean, clean]).clean and not sanitize.total([clean, cut]).clean
