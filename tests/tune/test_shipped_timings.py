"""The shipped tuning files are what their timings choose, to the letter: nobody edits them."""

from __future__ import annotations

import gzip
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from generator.data import folder
from generator.tune.choose import chosen
from generator.tune.environment import Environment
from generator.tune.measured import Conditions, read
from generator.tune.tuning_file import text

TIMINGS = Path(__file__).parents[2] / "benchmarks" / "trials"
SHIPPED = sorted(folder("specs").glob("tuning/*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_tuning_file_is_what_its_timings_choose(path: Path, tmp_path: Path) -> None:
    written = path.read_text(encoding="utf-8")
    said = yaml.safe_load(written)
    trials = tmp_path / "trials"
    trials.write_bytes(gzip.decompress((TIMINGS / f"{path.stem}.gz").read_bytes()))
    known = read(trials, Conditions(*(said[each.name] for each in fields(Conditions))))
    on = Environment(**{each.name: said.get(each.name, "") for each in fields(Environment)})
    assert text(on, said["target"], chosen(known)) == written
