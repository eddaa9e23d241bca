"""The spec language by its errors: each file in bad/ breaks one shipped file and states the full
message that it earns.

A fixture names a `file` and says how it came to be: a shipped file with `replace` patched `by`
something, a copy `from` another shipped file, or a whole new `text`. `{line}` in its `message` is
the line where the patch starts, or the one that reads `line`; `{line+2}` stands two lines further.
`{targets}` are the names of the shipped targets, so that one more changes no fixture.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import generator
from generator.errors import SpecError
from generator.spec.check import Check
from generator.spec.load import load
from generator.spec.model_checks import MODEL_CHECKS
from generator.spec.spec_checks import SPEC_CHECKS
from generator.spec.target_checks import TARGET_CHECKS
from generator.spec.tuning_checks import TUNING_CHECKS

BAD = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((Path(__file__).parent / "bad").glob("*.yaml"))
}
CHECKS = {  # by folder
    "": SPEC_CHECKS,
    "targets": TARGET_CHECKS,
    "models": MODEL_CHECKS,
    "tuning": TUNING_CHECKS,
}


def spoil(specs: Path, name: str) -> str:
    """Put one fixture into a copy of the specs; returns the message that it earns there."""
    bad = BAD[name]
    if "text" in bad:
        (specs / bad["file"]).write_text(bad["text"], encoding="utf-8")
        return bad["message"].replace("{targets}", ", ".join(target_names(specs)))
    shipped = (specs / bad.get("from", bad["file"])).read_text(encoding="utf-8")
    old = bad["line"] if "from" in bad else bad["replace"]
    assert shipped.count(old) == 1, f"{name}: the shipped file must say {old!r} once"
    before, _, after = shipped.partition(old)
    (specs / bad["file"]).write_text(before + bad.get("by", old) + after, encoding="utf-8")
    start = before.count("\n") + 1
    message = bad["message"].replace("{targets}", ", ".join(target_names(specs)))
    return re.sub(r"\{line(\+\d)?\}", lambda m: str(start + int(m[1] or 0)), message)


def target_names(specs: Path) -> list[str]:
    return sorted(path.stem for path in (specs / "targets").glob("*.yaml"))


def relative(text: str, specs: Path) -> str:
    return text.replace(f"{specs}/", "")


@pytest.mark.parametrize("name", BAD)
def test_bad_spec_is_refused_with_this_message(name: str, specs: Path) -> None:
    message = spoil(specs, name)
    with pytest.raises(SpecError) as caught:
        load(specs)
    assert relative(f"{caught.value}\n", specs) == message


@pytest.mark.parametrize(
    ("kind", "check"),
    [(kind, check) for kind, checks in CHECKS.items() for check in checks],
    ids=lambda each: each.name if isinstance(each, Check) else each or "spec",
)
def test_every_check_has_a_bad_fixture(kind: str, check: Check) -> None:
    of_kind = [bad for bad in BAD.values() if bad["file"].rpartition("/")[0] == kind]
    assert any(f"({check.why})" in bad["message"] for bad in of_kind)


@pytest.mark.parametrize(
    "names",
    [
        ("quoted_number", "negative", "word_for_mapping", "empty_file"),
        ("group_no_multiple", "capability_of_any", "row_tile_no_power", "model_over_limit"),
        ("record_name", "calibration_word", "matrix_twice"),
    ],
    ids=["shape", "meaning", "records"],
)
def test_all_defects_of_all_files_are_reported_at_once(names: tuple[str, ...], specs: Path) -> None:
    messages = [spoil(specs, name) for name in names]
    with pytest.raises(SpecError) as caught:
        load(specs)
    assert relative(f"{caught.value}\n", specs) == "".join(messages)


def test_cross_field_rules_are_told_beside_broken_files(specs: Path) -> None:
    """A file without a model hides neither the other files' defects nor counts as missing."""
    messages = [spoil(specs, name) for name in ("group_no_multiple", "negative")]
    with pytest.raises(SpecError) as caught:
        load(specs)
    told = relative(f"{caught.value}\n", specs)
    assert all(message in told for message in messages)
    assert "no file targets/" not in told and "no spec" not in told


def test_a_file_that_would_be_passed_over_is_told(specs: Path) -> None:
    (specs / "other.yml").write_text("schema: 1\n")
    with pytest.raises(SpecError, match=r"other\.yml:1: is not read; rename it to other\.yaml"):
        load(specs)


def test_build_of_bad_specs_exits_with_2_and_writes_nothing(specs: Path, tmp_path: Path) -> None:
    message = spoil(specs, "unknown_key")
    command = ["-m", "generator", "build", "--specs", str(specs), "--out", str(tmp_path / "out")]
    run = subprocess.run(
        [sys.executable, *command],
        cwd=Path(generator.__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, relative(run.stderr, specs), run.stdout) == (2, message, "")
    assert list(tmp_path.iterdir()) == [specs]


def test_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load(tmp_path / "nowhere")
    assert str(caught.value) == f"[spec] {tmp_path / 'nowhere'}: no such folder; pass --specs DIR"


def test_folder_without_specs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"holds no \*\.yaml spec; add one, see CONTRIBUTING"):
        load(tmp_path)
