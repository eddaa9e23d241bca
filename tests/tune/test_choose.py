"""From timings to a tuning file, and back through the spec loader."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from generator.errors import LaunchError
from generator.spec.load import load
from generator.spec.model import TunedBucket
from generator.tune.choose import Bucket, chosen
from generator.tune.environment import Environment
from generator.tune.measured import Conditions, Measurement, append, read
from generator.tune.tuning_file import text

ON = Environment("Lab GPU: #1", "1.2", "13.0", "2.11", "3.6.0", "3.12", "2026-01-01", "tune", "DIR")
LAB = Conditions.of(ON)


def timed(
    design: str,
    us: float,
    *,
    operation: str = "down",
    rows: int = 8,
    block_m: int = 16,
    routing: str = "uniform",
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
        routing=routing,
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


def under(routing: str, *, rows: int = 8, **us: float) -> list[Measurement]:
    """Designs of one row tile on one batch, by name."""
    return [timed(name, time, rows=rows, routing=routing) for name, time in us.items()]


def only(measurements: list[Measurement]) -> Bucket:
    [shape] = chosen(measurements)
    [bucket] = shape.buckets
    return bucket


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


def test_where_layers_were_timed_they_choose_the_row_tile() -> None:
    """A tile that was not near, or whose kernels are left out, is not chosen by them."""

    def layer(block_m: int, us: float, routing: str = "uniform") -> Measurement:
        name = f"m{block_m}"
        return timed(name, us, operation="layer", block_m=block_m, routing=routing)

    gemms = [
        timed(f"{operation}{tile}", us, operation=operation, block_m=tile)
        for tile, us in ((16, 10.0), (32, 10.2), (64, 9.9))
        for operation in ("up", "down")
    ]
    contract = gemms[0].contract
    assert designs(gemms)[contract, 8] == "up64"
    both = [layer(16, 31.0), layer(32, 30.0)]
    assert designs([*gemms, *both])[contract, 8] == "up32"
    wrong = replace(gemms[2], us=math.inf)
    left = [*gemms[:2], wrong, *gemms[3:]]
    assert designs([*left, *both, layer(64, 32.0)])[contract, 8] == "up16"
    assert designs([*gemms, both[1]])[contract, 8] == "up64"  # beside none, it says nothing
    zipf = [replace(each, routing="zipf") for each in gemms]
    everywhere = [*both, layer(16, 31.0, "zipf"), layer(32, 31.5, "zipf")]
    assert designs([*gemms, *zipf, *everywhere])[contract, 8] == "up32"
    assert designs([*gemms, *zipf, *everywhere[:-1]])[contract, 8] == "up64"


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


def test_of_layers_that_share_a_gemm_the_first_by_name_counts() -> None:
    first = [timed("a", 10.0), timed("b", 5.0)]
    second = replace(timed("a", 1.0), layer="layer_of_another")
    for given in ([second, *first], [*first, second]):
        bucket = only(given)
        assert (bucket.design, bucket.us, bucket.rivals) == ("b", 5.0, 2)


def test_of_layers_that_share_a_gemm_the_one_of_more_routings_counts() -> None:
    later = [*under("uniform", a=4.0, b=5.0), *under("zipf", a=9.0, b=3.0)]
    given = [
        *under("uniform", a=1.0, b=2.0),
        *(replace(m, layer="layer_of_another") for m in later),
    ]
    bucket = only(given)
    assert (bucket.design, bucket.us, bucket.routings) == ("b", 5.0, ("uniform", "zipf"))


def test_a_second_routing_changes_the_design() -> None:
    """a: 10 / 10 + 30 / 20 = 2.5; b: 12 / 10 + 20 / 20 = 2.2."""
    uniform, zipf = under("uniform", a=10.0, b=12.0), under("zipf", a=30.0, b=20.0)
    assert only(uniform).design == "a" and only(zipf).design == "b"
    assert only([*uniform, *zipf]).design == only([*zipf, *uniform]).design == "b"


def test_a_routing_whose_calls_take_longer_counts_for_no_more() -> None:
    """a: 1 + 1300 / 1000 = 2.3; b: 20 / 10 + 1 = 3, though it saves 290 us in all."""
    given = [*under("uniform", a=10.0, b=20.0), *under("zipf", a=1300.0, b=1000.0)]
    assert only(given).design == "a"


def test_a_second_routing_changes_the_row_tile() -> None:
    """16 rows: 20 / 20 + 60 / 40 = 2.5; 64 rows: 24 / 20 + 40 / 40 = 2.2."""
    uniform = [
        timed("u16", 10.0, operation="up"),
        timed("u64", 16.0, operation="up", block_m=64),
        timed("d16", 10.0),
        timed("d64", 8.0, block_m=64),
    ]
    zipf = [
        timed("u16", 25.0, operation="up", routing="zipf"),
        timed("u64", 30.0, operation="up", block_m=64, routing="zipf"),
        timed("d16", 35.0, routing="zipf"),
        timed("d64", 10.0, block_m=64, routing="zipf"),
    ]
    assert set(designs(uniform).values()) == {"u16", "d16"}
    assert set(designs([*uniform, *zipf]).values()) == {"u64", "d64"}


def test_a_row_tile_is_judged_by_designs_that_serve_every_routing() -> None:
    """By 16 rows each routing has its own fastest design; either takes 1 + 40 / 18 = 3.2 of both.
    By 64 rows one takes 15 / 10 + 1 = 2.5.
    """
    given = [
        *under("uniform", a16=10.0, b16=40.0),
        *under("zipf", a16=40.0, b16=10.0),
        timed("c64", 15.0, block_m=64),
        timed("c64", 18.0, block_m=64, routing="zipf"),
    ]
    assert only(given).design == "c64"


def test_designs_are_as_good_by_their_sums() -> None:
    """At 8 rows b takes 1.05 of the least under zipf, yet 2.05 / 2 of both: it serves all rows."""
    given = [
        *under("uniform", a=10.0, b=10.0),
        *under("zipf", a=10.0, b=10.5),
        *under("uniform", rows=64, a=15.0, b=10.0),
        *under("zipf", rows=64, a=15.0, b=10.0),
    ]
    assert list(designs(given).values()) == ["b", "b"]
    given = [replace(m, us=10.7) if (m.us, m.design) == (10.5, "b") else m for m in given]
    assert list(designs(given).values()) == ["a", "b"]


def test_the_figures_are_those_of_uniform_routing() -> None:
    uniform, zipf = under("uniform", a=10.0, b=12.0), under("zipf", a=6.0, b=4.0)
    uniform = [replace(each, iqr=0.5) for each in uniform]
    bucket = only([*zipf, *uniform])
    assert (bucket.us, bucket.iqr, bucket.fastest_us, bucket.rivals) == (12.0, 0.5, 10.0, 2)
    assert bucket.routings == ("uniform", "zipf")


def test_without_uniform_they_are_those_of_the_first_by_name() -> None:
    bucket = only([*under("zipf", a=30.0), *under("one-hot", a=40.0)])
    assert (bucket.us, bucket.routings) == (40.0, ("one-hot", "zipf"))


def test_a_design_that_a_routing_lacks_is_not_taken() -> None:
    given = [*under("uniform", a=10.0, b=1.0, c=12.0), *under("zipf", a=30.0, c=20.0)]
    bucket = only(given)
    assert (bucket.design, bucket.fastest_us, bucket.rivals) == ("c", 10.0, 2)


def test_without_a_row_tile_under_every_routing_the_file_is_refused() -> None:
    with pytest.raises(LaunchError) as error:
        chosen([timed("d16", 1.0), timed("d64", 1.0, block_m=64, routing="zipf")])
    assert str(error.value) == (
        "[launch] --trials: layer of lab at 8 rows: no row tile of both up and down"
        " under all of uniform, zipf; name another file, and time them anew"
    )


def test_one_design_serves_all_rows_where_it_is_nearly_as_fast() -> None:
    given = [
        *(timed("a", 10.0, rows=8), timed("b", 10.1, rows=8)),
        *(timed("b", 20.0, rows=64), timed("c", 25.0, rows=64)),
        *(timed("c", 30.0, rows=512), timed("b", 40.0, rows=512)),
    ]
    assert list(designs(given).values()) == ["b", "b", "c"]
    [shape] = chosen(given)
    assert [each.reason for each in shape.buckets] == ["shared", "fastest", "fastest"]


def test_a_design_that_serves_one_bucket_alone_is_the_fastest() -> None:
    """d is as good for three and would be one of few, but p and q are needed all the same."""
    given = [
        *under("uniform", rows=1, a=10.0, d=10.1),
        *under("uniform", rows=2, p=10.0, d=10.1),
        *under("uniform", rows=3, q=10.0, d=10.1),
        *under("uniform", rows=4, p=10.0),
        *under("uniform", rows=5, q=10.0),
    ]
    [shape] = chosen(given)
    taken = [(each.design, each.reason) for each in shape.buckets]
    assert taken == [(name, "fastest") for name in ("a", "p", "q", "p", "q")]


def test_a_bucket_says_what_it_was_measured_against() -> None:
    [shape] = chosen([timed("a", 10.0), timed("b", 5.0), timed("c", 5.05)])
    [bucket] = shape.buckets
    assert (bucket.rows, bucket.us, bucket.fastest_us, bucket.rivals) == (8, 5.0, 5.0, 3)
    assert (shape.n, shape.k, shape.experts) == (512, 256, 4)


SEVERAL = [
    timed("m16n64k128_w4s2", 5.0),
    timed("m16n64k128_w4s3", 7.0, rows=64),
    timed("m16n64k128_w4s2", 7.1, rows=64),
    timed("m16n64k128_w4s2", 9.0, rows=256),
    timed("m16n64k128_w4s2", 19.0, rows=256, routing="one-hot"),
]


def test_a_line_names_routings_where_there_is_more_than_uniform() -> None:
    lines = text(ON, "sm_90", chosen(SEVERAL)).splitlines()
    assert [each.strip() for each in lines if each.startswith("      - ")] == [
        "- { rows: 8, design: m16n64k128_w4s2, us: 5.00, iqr: 0.10, fastest: 5.00, rivals: 1,"
        " reason: fastest }",
        "- { rows: 64, design: m16n64k128_w4s2, us: 7.10, iqr: 0.10, fastest: 7.00, rivals: 2,"
        " reason: shared }",
        "- { rows: 256, design: m16n64k128_w4s2, us: 9.00, iqr: 0.10, fastest: 9.00, rivals: 1,"
        " reason: fastest, routings: [uniform, one-hot] }",
    ]


def test_the_head_of_the_file_says_what_each_word_of_it_means() -> None:
    lines = text(ON, "sm_90", chosen(SEVERAL)).splitlines()
    head = " ".join(line for line in lines if line.startswith("#"))
    for word in re.findall(r"(\w+):", lines[-1].partition("design")[2]):
        assert f"{word}: " in head


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
    (tmp_path / "tuning" / "lab.yaml").write_text(text(ON, "sm_90", chosen(SEVERAL)), "utf-8")
    [tuning] = load(tmp_path).tunings
    assert (tuning.device, tuning.target, tuning.triton) == ("Lab GPU: #1", "sm_90", "3.6.0")
    [shape] = tuning.shapes
    assert [(b.rows, b.design, b.us, b.reason, b.routings) for b in shape.buckets] == [
        (8, "m16n64k128_w4s2", 5.0, "fastest", ("uniform",)),
        (64, "m16n64k128_w4s2", 7.1, "shared", ("uniform",)),
        (256, "m16n64k128_w4s2", 9.0, "fastest", ("uniform", "one-hot")),
    ]


def test_a_bucket_without_a_reason_is_read_as_one() -> None:
    """Files that `tune` wrote before it gave reasons, and hand-made ones, are whole."""
    data = {"rows": 8, "design": "m16", "us": 5.0, "iqr": 0.1, "fastest": 5.0, "rivals": 3}
    bucket = TunedBucket.model_validate(data)
    assert (bucket.reason, bucket.routings) == ("none", ("uniform",))


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
