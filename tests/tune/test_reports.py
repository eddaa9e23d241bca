"""What is said of measurements: the table, the files, the figures."""

from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from generator.errors import LaunchError
from generator.tune import plots
from generator.tune.record import as_csv, as_json, write
from generator.tune.rows import Compared, Report
from generator.tune.table import COLUMNS, aligned, lines
from tests.tune.reports import LAYER, ON, REPORT, UP, VLLM


def cells(report: Report) -> list[dict[str, str]]:
    """The table's rows, by column."""
    table = [line for line in lines(report) if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert tuple(rows[0]) == COLUMNS
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def test_a_row_shows_times_share_and_bits() -> None:
    layer, stage, absent, _ = cells(REPORT)
    assert layer == {
        "model": "tiny",
        "layer": "layer_x",
        "routing": "uniform",
        "what": "layer",
        "tokens": "8",
        "graph us": "20.0 (0.5)",
        "eager us": "70.0 (4.0)",
        "host us": "60.0 (3.0)",
        "floor us": "10.0",
        "share": "0.50",
        "TOPS": "150",
        "bits": "4096",
        "differ": "0",
        "how": "separate, up sm_90/m16, down sm_90/m32",
    }
    # A stage has no share of the layer's floor, and nothing else of the layer's.
    shown = {name: text for name, text in stage.items() if text}
    assert shown.keys() == {"model", "layer", "routing", "what", "tokens", "graph us", "how"}
    assert stage["how"] == "sm_90/m16"
    assert (absent["graph us"], absent["how"]) == ("", "not installed")


def test_the_lines_say_where_and_whether_bits_differ() -> None:
    text = "\n".join(lines(REPORT))
    assert "A device, driver 580.1, CUDA 13.0, torch 2.11.0, Triton 3.6.0," in text
    assert "HBM read 4.50 TB/s and `torch._int_mm` 940 TOPS, measured; floors take 1314" in text
    assert text.endswith("\n8192 bits compared, 0 different")
    wrong = replace(LAYER, compared=Compared(4096, 3))
    assert list(lines(Report(ON, None, (wrong,))))[-1] == "4096 bits compared, 3 different"
    assert "No GPU: " in "\n".join(lines(Report(ON, None, (LAYER,))))


def test_a_row_whose_weights_fit_the_cache_says_so() -> None:
    warm = replace(LAYER, facts=replace(LAYER.facts, cold=False))
    assert cells(Report(ON, None, (warm,)))[0]["how"].endswith(", weights partly in L2")


def test_a_table_is_aligned() -> None:
    assert list(aligned(("name", "n"), [("a", "1"), ("long name", "100")], ("n",))) == [
        "| name      |   n |",
        "|-----------|----:|",
        "| a         |   1 |",
        "| long name | 100 |",
    ]


def test_json_has_every_fact() -> None:
    data = json.loads(as_json(REPORT))
    assert data["environment"]["driver"] == "580.1" and data["ceilings"]["int8_tops"] == 1314.0
    layer = data["rows"][0]
    assert layer["times"]["graph"] == {"median": 20.0, "iqr": 0.5, "count": 20}
    assert layer["designs"]["up"] == "sm_90/m16" and layer["share_of_floor"] == 0.5
    assert (layer["workspace_bytes"], layer["launches"]) == (1024, 6)
    assert layer["facts"]["work"]["operations"] == 3e9
    assert data["rows"][2]["note"] == "not installed"


def test_csv_has_a_line_a_row_with_the_same_numbers() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(REPORT))))
    assert [row["subject"] for row in rows] == ["layer", "stage up", "vllm int8", "layer"]
    assert (rows[0]["graph_us"], rows[0]["graph_iqr_us"], rows[0]["host_us"]) == (
        "20.0",
        "0.5",
        "60.0",
    )
    assert rows[0]["designs"] == "route=portable/m1 up=sm_90/m16 down=sm_90/m32"
    assert rows[1]["floor_us"] == rows[1]["share_of_floor"] == rows[2]["graph_us"] == ""
    assert float(rows[0]["bytes"]) == 4.5e7


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LaunchError, match=r"--out .*file/in: cannot be written: .*; pass another"):
        write(REPORT, tmp_path / "file" / "in")


def test_figures_show_every_batch_and_the_ceilings(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    drawn = dict(plots.figures(REPORT))
    assert drawn.keys() == {"latency-tiny-layer_x-uniform", "roofline"}
    [axes] = drawn["latency-tiny-layer_x-uniform"].axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    floor = next(line for line in axes.lines if line.get_label() == "floor")
    assert (list(floor.get_xdata()), list(floor.get_ydata())) == ([8, 64], [10.0, 12.0])
    [times] = axes.containers
    assert (list(times[0].get_xdata()), list(times[0].get_ydata())) == ([8, 64], [20.0, 40.0])
    [roofline] = drawn["roofline"].axes
    points = roofline.lines[0]
    assert list(points.get_ydata()) == [150.0, 75.0]
    assert list(points.get_xdata()) == [3e9 / 4.5e7] * 2
    assert sorted(path.name for path in plots.write(REPORT, tmp_path)) == [
        "latency-tiny-layer_x-uniform.png",
        "roofline.png",
    ]
    assert all((tmp_path / f"{name}.png").stat().st_size > 1000 for name in drawn)


def test_without_times_there_are_no_figures() -> None:
    assert list(plots.figures(Report(ON, None, (VLLM, UP)))) == []


def test_missing_matplotlib_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(LaunchError) as error:
        plots.require()
    assert str(error.value) == (
        "[launch] --out: the plots need matplotlib, which is not installed;"
        " pip install 'groupwise[bench]', or pass --no-plots"
    )


def test_figures_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(LaunchError, match=r"cannot be written: No such file .*; pass another"):
        plots.write(REPORT, tmp_path / "missing")
