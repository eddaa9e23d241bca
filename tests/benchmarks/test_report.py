"""A `bench.json` is read, or refused in words."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import compact, compare
from benchmarks.report import Batch, batches, read
from generator.errors import LaunchError
from generator.tune.record import as_json, write
from generator.tune.rows import Report
from tests.benchmarks.reports import baseline, layer, report
from tests.tune.reports import ON, REPORT, UP

OURS = layer("mixtral-8x7b", "layer_w8gn_x", 16, 400.0, 300.0)


def test_rows_of_a_batch_stand_together() -> None:
    other = layer("mixtral-8x7b", "layer_w8gn_x", 64, 500.0, 300.0)
    found = batches(report(OURS, other, baseline(OURS, "seed", 900.0)))
    assert list(found) == [
        Batch("mixtral-8x7b", "layer_w8gn_x", tokens, "uniform") for tokens in (16, 64)
    ]
    assert [list(rows) for rows in found.values()] == [["layer", "seed"], ["layer"]]


def test_what_bench_writes_is_read(tmp_path: Path) -> None:
    write(REPORT, tmp_path)
    assert len(read(tmp_path / "bench.json")["rows"]) == len(REPORT.rows)


@pytest.mark.parametrize("text", [None, "", "[}", "{}", "[]", "1"])
def test_no_report_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "bench.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(LaunchError, match=r"bench.json: cannot be read: .*; pass the bench\.json"):
        read(path)


@pytest.mark.parametrize("main", [compact.main, compare.main])
def test_a_report_without_gpu_is_refused_in_one_line(
    main: Callable[[], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "bench.json"
    path.write_text(as_json(Report(ON, None, (UP,))), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["program", str(path)])
    with pytest.raises(SystemExit, match="2"):
        main()
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(
        "has no ceilings: it was taken without a GPU, and its times mean nothing; take one on a GPU"
    )
