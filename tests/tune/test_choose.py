"""From timings to a tuning file, and back through the spec loader."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from generator.errors import LaunchError
from generator.spec.load import load
from generator.tune.choose import chosen
from generator.tune.environment import Environment
from generator.tune.measured import Conditions, Measurement, append, read
from generator.tune.tuning_file import text

ON = Environment("Lab GPU: #1", "1.2", "13.0", "2.11", "3.6.0", "3.12", "2026-01-01", "tune", "DIR")
LAB = Conditions.of(ON)


def timed(
    design: str, us: float, *, operation: str = "down", rows: int = 8, block_m: int = 16
) -> Measurement:
    return Measurement(
        model="lab",
        layer="layer",
        operation=operation,
        contract=f"{operation}_w8gn_a8_bf16_v1",
        n=512,
        k=256,
        experts=4,
        rows=rows,
        routing="uniform",
        design=design,
        block_m=block_m,
        us=us,
        iqr=0.1,
        looks=5,
    )


def designs(measurements: list[Measurement]) -> dict[tuple[str, int], str]:
    return {
        (shape.contract, bucket.rows): bucket.design
        for shape in chosen(measurements)
        for bucket in shape.buckets
    }


def test_the_fastest_is_taken() -> None:
    assert designs([timed("a", 10.0), timed("b", 5.0)]) == {("down_w8gn_a8_bf16_v1", 8): "b"}


def test_up_and_down_share_the_row_tile_that_is_fastest_for_both() -> None:
    given = [
        timed("u16", 10.0, operation="up"),
        timed("u64", 20.0, operation="up", block_m=64),
        timed("d16", 30.0),
        timed("d64", 5.0, block_m=64),
    ]
    assert set(designs(given).values()) == {"u64", "d64"}


def test_a_row_tile_that_one_of_them_lacks_is_not_taken() -> None:
    given = [timed("u16", 10.0, operation="up"), timed("d16", 30.0), timed("d64", 5.0, block_m=64)]
    assert set(designs(given).values()) == {"u16", "d16"}


def test_without_a_common_row_tile_the_file_is_refused() -> None:
    given = [timed("u16", 10.0, operation="up"), timed("d64", 5.0, block_m=64)]
    with pytest.raises(LaunchError) as error:
        chosen(given)
    assert str(error.value) == (
        "[launch] --trials: layer of lab at 8 rows: no row tile of both up and down;"
        " name another file, and time them anew"
    )


def test_of_layers_that_share_a_gemm_the_first_counts() -> None:
    first = [timed("a", 10.0), timed("b", 5.0)]
    second = replace(timed("a", 1.0), layer="layer_of_another")
    [shape] = chosen([second, *first])
    [bucket] = shape.buckets
    assert (bucket.design, bucket.us, bucket.rivals) == ("b", 5.0, 2)


def test_one_design_serves_all_rows_where_it_is_nearly_as_fast() -> None:
    given = [
        *(timed("a", 10.0, rows=8), timed("b", 10.1, rows=8)),
        *(timed("b", 20.0, rows=64), timed("c", 25.0, rows=64)),
        *(timed("c", 30.0, rows=512), timed("b", 40.0, rows=512)),
    ]
    assert list(designs(given).values()) == ["b", "b", "c"]


def test_a_bucket_says_what_it_was_measured_against() -> None:
    [shape] = chosen([timed("a", 10.0), timed("b", 5.0), timed("c", 5.05)])
    [bucket] = shape.buckets
    assert (bucket.rows, bucket.us, bucket.fastest_us, bucket.rivals) == (8, 5.0, 5.0, 3)
    assert (shape.n, shape.k, shape.experts) == (512, 256, 4)


def test_the_file_is_read_by_the_loader(tmp_path: Path) -> None:
    (tmp_path / "tuning").mkdir()
    (tmp_path / "targets").mkdir()
    shipped = Path(__file__).parents[2] / "specs"
    for name in (
        "w8a8.yaml",
        "w4a8.yaml",
        *(f"targets/{p.name}" for p in (shipped / "targets").glob("*.yaml")),
    ):
        (tmp_path / name).write_text((shipped / name).read_text(encoding="utf-8"), encoding="utf-8")
    given = chosen([timed("m16n64k128_w4s2", 5.0), timed("m16n64k128_w4s3", 7.0, rows=64)])
    (tmp_path / "tuning" / "lab.yaml").write_text(text(ON, "sm_90", given), encoding="utf-8")
    [tuning] = load(tmp_path).tunings
    assert (tuning.device, tuning.target, tuning.triton) == ("Lab GPU: #1", "sm_90", "3.6.0")
    [shape] = tuning.shapes
    assert [(b.rows, b.design, b.us) for b in shape.buckets] == [
        (8, "m16n64k128_w4s2", 5.0),
        (64, "m16n64k128_w4s3", 7.0),
    ]


def test_measurements_survive_a_file(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    assert read(path, LAB) == []
    first, second = timed("a", 1.25), replace(timed("b", 2.5), routing="zipf")
    append(path, LAB, [first])
    append(path, LAB, [second])
    assert read(path, LAB) == [first, second]


@pytest.mark.parametrize("what", ["device", "driver", "triton", "torch"])
def test_what_was_measured_on_something_else_is_not_gone_on_with(tmp_path: Path, what: str) -> None:
    path = tmp_path / "trials.jsonl"
    append(path, LAB, [timed("a", 1.25)])
    with pytest.raises(LaunchError) as caught:
        read(path, replace(LAB, **{what: "another"}))
    assert f"was measured on {LAB}; this is " in str(caught.value)
    assert "another" in str(caught.value) and "name another file" in str(caught.value)


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "trials.jsonl").write_bytes(b"\xff")
    for path in (tmp_path / "trials.jsonl", tmp_path):
        with pytest.raises(LaunchError, match="cannot be read"):
            read(path, LAB)


def test_a_file_that_does_not_say_on_what_is_told(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_text(json.dumps(asdict(timed("a", 1.0))) + "\n", encoding="utf-8")
    with pytest.raises(LaunchError, match="line 1 does not say on what was measured"):
        read(path, LAB)


def test_a_damaged_line_is_told(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    append(path, LAB, [timed("a", 1.0)])
    with path.open("a", encoding="utf-8") as file:
        file.write('{"model": 1}\n')
    with pytest.raises(LaunchError) as caught:
        read(path, LAB)
    assert "line 3 is no measurement" in str(caught.value)
