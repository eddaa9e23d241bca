"""build makes a folder equal to the emitted text, and loses nothing that is not its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from generator.emit.sync import DIFF_LINES, Difference, compare, diff, write
from generator.errors import BuildError

FILES = {
    "__init__.py": '"""Kernels."""\n',
    "manifest.json": '{"schema": 1, "entries": [], "selection": []}\n',
    "up/one/portable/a.py": "A = 1\n",
    "up/one/portable/b.py": "B = 1\n",
}
NOTHING = Difference(missing=(), stale=(), changed=())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as build leaves it."""
    write(tmp_path / "generated", FILES)
    return tmp_path / "generated"


def content(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*.*")}


def put(folder: Path, path: str, text: str = "") -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text)


def test_first_build_writes_everything(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "generated"
    assert compare(out, FILES) == Difference(missing=tuple(FILES), stale=(), changed=())
    assert write(out, FILES) == Difference(missing=tuple(FILES), stale=(), changed=())
    assert content(out) == FILES


def test_second_build_touches_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(source: str, target: str) -> None:
        raise AssertionError(f"wrote {target}")

    monkeypatch.setattr(os, "replace", replace)
    assert not compare(folder, FILES)
    assert write(folder, FILES) == NOTHING
    assert content(folder) == FILES


def test_every_difference_is_reported_then_repaired(folder: Path) -> None:
    put(folder, "up/one/portable/a.py", "A = 2\n")
    put(folder, "down/old/portable/c.py", "C = 1\n")
    (folder / "up/one/portable/b.py").unlink()
    found = compare(folder, FILES)
    assert found == Difference(
        missing=("up/one/portable/b.py",),
        stale=("down/old/portable/c.py",),
        changed=("up/one/portable/a.py",),
    )
    assert diff(folder, FILES, found).splitlines() == [
        "missing: up/one/portable/b.py",
        "stale:   down/old/portable/c.py",
        "--- up/one/portable/a.py (on disk)",
        "+++ up/one/portable/a.py",
        "@@ -1 +1 @@",
        "-A = 2",
        "+A = 1",
    ]
    assert write(folder, FILES) == found
    assert content(folder) == FILES
    assert not compare(folder, FILES)


def test_a_change_of_line_endings_alone_counts(folder: Path) -> None:
    (folder / "up/one/portable/a.py").write_bytes(b"A = 1\r\n")
    assert compare(folder, FILES).changed == ("up/one/portable/a.py",)


def test_long_diffs_are_cut(folder: Path) -> None:
    put(folder, "__init__.py", "line\n" * 1000)
    lines = diff(folder, FILES, compare(folder, FILES)).splitlines()
    assert len(lines) == DIFF_LINES + 1
    assert lines[-1].startswith("... ") and lines[-1].endswith(" more lines of __init__.py")


def test_a_stale_module_goes_with_its_folders_and_bytecode(folder: Path) -> None:
    put(folder, "up/two/sm_90/old.py")
    put(folder, "up/two/sm_90/__pycache__/old.cpython-311.pyc")
    put(folder, "up/one/portable/old.py")
    put(folder, "up/one/portable/__pycache__/old.cpython-311.pyc")
    put(folder, "up/one/portable/__pycache__/a.cpython-311.pyc")
    write(folder, FILES)
    assert not (folder / "up/two").exists()
    cached = folder / "up/one/portable/__pycache__"
    assert [path.name for path in cached.iterdir()] == ["a.cpython-311.pyc"]


def test_bytecode_does_not_make_a_folder_stale(folder: Path) -> None:
    put(folder, "__pycache__/__init__.cpython-311.pyc")
    assert not compare(folder, FILES)


def test_a_folder_of_foreign_files_is_refused(tmp_path: Path) -> None:
    foreign = {"notes.txt": "mine\n", "src/main.py": "print()\n"}
    for path, text in foreign.items():
        put(tmp_path, path, text)
    with pytest.raises(BuildError) as error:
        write(tmp_path, FILES)
    assert content(tmp_path) == foreign
    assert str(error.value) == (
        f"[build] {tmp_path}: holds files but no manifest of ours, so no build made it;"
        " pass an empty or a generated folder as --out DIR"
    )


def test_another_tools_manifest_is_foreign(tmp_path: Path) -> None:
    foreign = {"manifest.json": '{"name": "a web app"}\n', "src/app.js": "run()\n"}
    for path, text in foreign.items():
        put(tmp_path, path, text)
    with pytest.raises(BuildError, match="no manifest of ours"):
        write(tmp_path, FILES)
    assert content(tmp_path) == foreign


def test_a_file_on_the_way_to_the_folder_is_a_build_error(tmp_path: Path) -> None:
    put(tmp_path, "file", "mine\n")
    with pytest.raises(BuildError, match=r"file/sub: cannot be written: Not a directory"):
        write(tmp_path / "file" / "sub", FILES)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "generated", "mine\n")
    with pytest.raises(BuildError, match="is no folder; pass another --out DIR"):
        write(tmp_path / "generated", FILES)
    assert content(tmp_path) == {} and (tmp_path / "generated").read_text() == "mine\n"


def test_a_crash_while_writing_leaves_the_old_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, "up/one/portable/a.py", "A = 0\n")
    before = content(folder)

    def crash(source: str, target: Path) -> None:
        assert Path(source).read_text() == "A = 1\n", "whole before it is moved"
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            write(folder, FILES)
    assert content(folder) == before
    write(folder, FILES)
    assert content(folder) == FILES


def test_what_a_killed_build_left_is_removed(folder: Path) -> None:
    put(folder, "up/one/portable/.a.py.k3x9", "A =")
    assert compare(folder, FILES).stale == ("up/one/portable/.a.py.k3x9",)
    write(folder, FILES)
    assert content(folder) == FILES


def test_files_are_readable_by_everyone(folder: Path) -> None:
    modes = {path.stat().st_mode & 0o777 for path in folder.rglob("*.*")}
    assert modes == {0o644}
