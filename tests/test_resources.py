"""Records and calibrations of compiled variants are read back as they were written, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from generator.aot.record import behind, write_record
from generator.errors import BuildError
from generator.resources import (
    Calibration,
    Figures,
    Record,
    Taken,
    read,
    read_calibration,
    read_folder,
)

FIGURES = Figures(96, 0, 0, 0, 24576, 4096, {"mma m16n8k32 s32": 4}, {"4": 9}, {"16": 8}, 0)
OTHER = Figures(128, 0, 0, 8, 24576, 4096, {}, {}, {}, 0)
ERRING = Figures(96, 0, 0, 0, 24576, 4096, {}, {}, {}, 2)


def record(**variants: Figures) -> Record:
    return Record("sm_90", "3.9.0", variants)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = write_record(tmp_path, record(b=FIGURES, a=OTHER))
    assert path.name == "sm_90-triton3.9.0.json"
    assert read(path) == record(a=OTHER, b=FIGURES)
    assert read_folder(tmp_path) == (record(a=OTHER, b=FIGURES),)
    assert [line.split('"')[1] for line in path.read_text().splitlines()[1:3]] == ["a", "b"]


def test_a_record_grows_and_its_figures_are_replaced(tmp_path: Path) -> None:
    write_record(tmp_path, record(a=FIGURES, b=FIGURES))
    found = record(b=OTHER, c=FIGURES)
    [differs, lacks] = behind(tmp_path, found, whole=True)
    name = found.name
    assert differs == f"{name}: b is recorded with {FIGURES}; it takes {OTHER}"
    assert lacks == f"{name} lacks 1 variants, such as c"
    assert list(behind(tmp_path, found, whole=False)) == [differs]
    path = write_record(tmp_path, found)
    assert read(path).variants == {"a": FIGURES, "b": OTHER, "c": FIGURES}
    assert list(behind(tmp_path, found, whole=True)) == []


def test_a_record_of_the_whole_build_keeps_what_is_gone_only_where_it_is_faulty(
    tmp_path: Path,
) -> None:
    write_record(tmp_path, record(a=FIGURES, b=FIGURES, c=OTHER, e=ERRING))
    path = write_record(tmp_path, record(d=FIGURES), emitted={"a", "d"})
    assert read(path).variants == {"a": FIGURES, "c": OTHER, "d": FIGURES, "e": ERRING}


def test_a_calibration_is_read_as_it_was_written(tmp_path: Path) -> None:
    designs = {"down_v1": {"sm_90/m16n32k64_w4s2": Taken(96, 8, 4096)}}
    calibration = Calibration("sm_90", "3.9.0", designs)
    path = tmp_path / calibration.name
    path.write_text(calibration.text(), encoding="utf-8")
    assert read_calibration(path) == calibration
    assert calibration.by_symbol() == {"down_v1_sm_90_m16n32k64_w4s2": Taken(96, 8, 4096)}


def damage(data: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    variants = {"a": {**data["variants"]["a"], key: value}} if key != "schema" else data["variants"]
    return {**data, "variants": variants} | ({"schema": value} if key == "schema" else {})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("registers", "many", "is damaged: TypeError: registers is 'many'"),
        ("loads", 4, "is damaged: TypeError: loads is 4"),
        ("spills", 0, "is damaged: TypeError"),
        ("schema", 2, "schema 2 is not the one that is read, 1"),
    ],
)
def test_a_damaged_record_says_what_to_do(
    tmp_path: Path, key: str, value: object, said: str
) -> None:
    path = write_record(tmp_path, record(a=FIGURES))
    path.write_text(json.dumps(damage(json.loads(path.read_text()), key, value)))
    with pytest.raises(BuildError) as error:
        read(path)
    assert f"{path}: {said}" in str(error.value)
    assert "remove it and run `python -m generator compile --record` again" in str(error.value)


def test_a_record_of_another_name_is_refused(tmp_path: Path) -> None:
    path = write_record(tmp_path, record(a=FIGURES))
    other = path.rename(tmp_path / "sm_80-triton3.9.0.json")
    with pytest.raises(BuildError, match=r"another target or Triton; name it sm_90-triton3\.9\.0"):
        read(other)


def test_no_folder_is_no_record(tmp_path: Path) -> None:
    assert read_folder(tmp_path / "resources") == ()
