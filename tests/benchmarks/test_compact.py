"""The published table has a column for every baseline that was measured, and no other."""

from __future__ import annotations

from benchmarks.compact import lines
from generator.tune.rows import Row
from tests.benchmarks.reports import baseline, layer, report

CHANNEL = layer("mixtral-8x7b", "layer_w8gn_x", 16, 400.0, 300.0)
GROUPS = layer("mixtral-8x7b", "layer_w4g128_x", 16, 250.0, 150.0, routing="zipf")


def table(*rows: Row) -> list[list[str]]:
    """The cells of the head and of each line."""
    head, _, *others = [line for line in lines(report(*rows)) if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in (head, *others)]


def test_what_was_not_measured_has_no_column() -> None:
    head, first, second = table(CHANNEL, baseline(CHANNEL, "vllm int8", None), GROUPS)
    assert head == ["model", "layer", "tokens", "ours", "floor", "share", "host"]
    assert first == ["mixtral-8x7b", "layer_w8gn_x", "16", "400.0 (0.5)", "300.0", "0.75", "60"]
    assert second[1] == "layer_w4g128_x, zipf"


def test_what_was_measured_of_one_layer_has_a_column() -> None:
    rows = (
        *(CHANNEL, baseline(CHANNEL, "vllm int8", 410.0), baseline(CHANNEL, "seed", 900.0)),
        *(GROUPS, baseline(GROUPS, "vllm int8", None), baseline(GROUPS, "seed", 800.0)),
    )
    head, first, second = table(*rows)
    assert head[-2:] == ["seed", "vllm int8"]
    assert first[-2:] == ["900.0", "410.0"]
    assert second[-2:] == ["800.0", ""]
