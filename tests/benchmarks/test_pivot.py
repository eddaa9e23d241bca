"""A table across one thing has a column for each of its values, and by what differs a line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import pivot
from generator.tune.record import write
from generator.tune.rows import Row
from tests.benchmarks.reports import baseline, layer, report
from tests.tune.reports import REPORT

FIRST = layer("mixtral-8x7b", "layer_w8gn_x", 16, 400.0, 300.0)
LATER = layer("mixtral-8x7b", "layer_w8gn_x", 64, 500.0, 300.0)
OTHER = layer("mixtral-8x7b", "layer_w4g128_x", 16, 250.0, 150.0)
ZIPF = layer("mixtral-8x7b", "layer_w8gn_x", 16, 350.0, 300.0, routing="zipf")


def table(across: str, *rows: Row) -> list[list[str]]:
    """The cells of the head and of each line."""
    head, _, *others = [each for each in pivot.lines(report(*rows), across) if each[0:1] == "|"]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in (head, *others)]


def test_a_batch_that_was_not_measured_is_left_empty() -> None:
    assert table("tokens", FIRST, LATER, OTHER) == [
        ["layer", "16", "64"],
        ["w8gn", "400.0", "500.0"],
        ["w4g128", "250.0", ""],
    ]
    assert table("layer", FIRST, OTHER, LATER) == [
        ["tokens", "w8gn", "w4g128"],
        ["16", "400.0", "250.0"],
        ["64", "500.0", ""],
    ]


def test_routings_stand_beside_each_other() -> None:
    assert table("routing", FIRST, ZIPF, LATER) == [
        ["tokens", "uniform", "zipf"],
        ["16", "400.0", "350.0"],
        ["64", "500.0", ""],
    ]


def test_stages_stand_beside_the_whole_and_baselines_do_not() -> None:
    stages = (baseline(FIRST, "stage down", 100.0), baseline(FIRST, "stage up", 200.0))
    assert table("stage", FIRST, *stages, baseline(FIRST, "seed", 900.0)) == [
        ["model", "whole", "up", "down"],
        ["mixtral-8x7b", "400.0", "200.0", "100.0"],
    ]


def test_stages_of_any_batch_stand_in_launch_order() -> None:
    short = (FIRST, baseline(FIRST, "stage dispatch", 5.0), baseline(FIRST, "stage up", 200.0))
    long = (LATER, baseline(LATER, "stage route", 9.0), baseline(LATER, "stage up", 300.0))
    assert table("stage", *short, *long) == [
        ["tokens", "whole", "route", "dispatch", "up"],
        ["16", "400.0", "", "5.0", "200.0"],
        ["64", "500.0", "9.0", "", "300.0"],
    ]


def test_layers_go_by_the_words_in_which_they_differ() -> None:
    names = ("layer_w8gn_a8_bf16_v1", "layer_w8gn_a8_fp16_v1", "layer_w4g128_a8_bf16_v1")
    rows = [layer("mixtral-8x7b", name, 16, 400.0, 300.0) for name in names]
    assert table("layer", *rows)[0][1:] == ["w8gn bf16", "w8gn fp16", "w4g128 bf16"]
    assert table("layer", rows[0])[0][1:] == ["layer_w8gn_a8_bf16_v1"]
    assert table("layer", rows[0], FIRST)[0][1:] == ["layer_w8gn_a8_bf16_v1", "layer_w8gn_x"]


def test_one_line_by_its_model() -> None:
    assert table("tokens", FIRST)[0] == ["model", "16"]


def test_the_program_prints_what_it_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(REPORT, tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["program", str(tmp_path / "bench.json"), "--across", "tokens"]
    )
    pivot.main()
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("A device, ") and said[4].startswith("| model | ")
