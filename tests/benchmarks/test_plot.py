"""A report that was taken elsewhere is drawn here, as the run itself would have."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import plot
from generator.errors import Finding, LaunchError
from generator.tune import plots
from generator.tune.record import write
from generator.tune.rows import Report
from tests.tune.reports import REPORT


def drawn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(REPORT, folder)
    monkeypatch.setattr(sys, "argv", ["program", str(folder / "bench.json"), "--out", str(folder)])
    plot.main()


def test_the_report_that_is_read_is_the_one_that_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[Report] = []

    def watched(report: Report, out: Path) -> list[Path]:
        given.append(report)
        return [out / "roofline.png"]

    monkeypatch.setattr(plots, "require", lambda: None)
    monkeypatch.setattr(plots, "write", watched)
    drawn(tmp_path, monkeypatch)
    assert given == [REPORT]
    assert capsys.readouterr().out == f"{tmp_path / 'roofline.png'}\n"


def test_a_report_of_another_shape_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bench.json"
    path.write_text('{"ceilings": {}, "environment": {}, "rows": []}', encoding="utf-8")
    monkeypatch.setattr(plots, "require", lambda: None)
    monkeypatch.setattr(sys, "argv", ["program", str(path), "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        plot.main()
    assert f"{path} was written by another version: Field required" in capsys.readouterr().err


def test_without_matplotlib_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> None:
        raise LaunchError(Finding("--out", "the plots need matplotlib", "install it"))

    monkeypatch.setattr(plots, "require", missing)
    with pytest.raises(SystemExit, match="2"):
        drawn(tmp_path, monkeypatch)
    assert "the plots need matplotlib; install it" in capsys.readouterr().err
