"""A shipped cache serves at another path than it was filled at, to any number of processes."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from generator.aot.bundle import BUNDLE, bundle, compiled, library
from generator.emit.sync import write
from generator.errors import BuildError
from generator.runtime.cache import install
from generator.version import VERSION
from tests.blocked import python

ROOT = Path(__file__).parents[2]
CONTRACT = "up_w8gn_a8_swiglu_bf16_v1"
COMPILE = """\
import json, sys, triton
from tests.emit.compiling import compiled
hits = []
triton.knobs.compilation.listener = lambda **facts: hits.append(facts["cache_hit"])
compiled(sys.argv[1], sys.argv[2])
print(json.dumps(hits))
"""


def environment(cache: Path, *path: Path) -> dict[str, str]:
    """Of a process that compiles into a cache, as one with a GPU does."""
    return os.environ | {
        "TRITON_INTERPRET": "0",
        "TRITON_CACHE_DIR": str(cache),
        "PYTHONPATH": os.pathsep.join(map(str, path)),
    }


def hits(module: Path, symbol: str, cache: Path) -> list[bool]:
    """Whether each compile of a module for sm_90 finds its kernel in a cache."""
    settings = environment(cache, ROOT)
    done = python("-c", COMPILE, str(module), symbol, environment=settings, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found: list[bool] = json.loads(done.stdout)
    return found


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A cache of one kernel of two files, as Triton leaves it."""
    folder = tmp_path / "filled" / ("B" * 52)
    folder.mkdir(parents=True)
    children = {name: str(folder / name) for name in ("k.json", "k.cubin")}
    for name in children:
        (folder / name).write_text(name)
    (folder / "__grp__k.json").write_text(json.dumps({"child_paths": children}))
    return folder.parent


def content(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*.*")}


def test_a_bundles_cache_is_hit_where_it_is_installed(
    emitted: dict[str, str], tmp_path: Path
) -> None:
    """Another path for the cache and for the module, and what filled it is gone."""
    entries = json.loads(emitted["manifest.json"])["entries"]
    entry = next(each for each in entries if each["contract"] == CONTRACT)
    source = tmp_path / "module.py"
    source.write_text(emitted[entry["path"]], encoding="utf-8")
    assert hits(source, entry["symbol"], tmp_path / "filled") == [False]
    cache = compiled(tmp_path / "filled", emitted)
    files = bundle(emitted, library(), name="moe", version=VERSION, cache=cache)
    write(tmp_path / "out", files, BUNDLE)
    shutil.rmtree(tmp_path / "filled")
    code = "from moe.runtime.cache import install; print(install())"
    active = tmp_path / "active"
    done = python("-c", code, environment=environment(active, tmp_path / "out"), cwd=tmp_path)
    assert done.returncode == 0 and int(done.stdout) >= 1, done.stderr
    shipped = tmp_path / "out" / "moe" / "generated" / entry["path"]
    assert hits(shipped, entry["symbol"], active) == [True]


def test_groups_name_files_of_the_destination(filled: Path, tmp_path: Path) -> None:
    active = tmp_path / "active"
    assert install(filled, active) == 1
    folder = active / ("B" * 52)
    group = json.loads((folder / "__grp__k.json").read_text())
    assert group == {"child_paths": {name: str(folder / name) for name in ("k.json", "k.cubin")}}
    assert (folder / "k.cubin").read_text() == "k.cubin"
    assert {each.stat().st_mode & 0o777 for each in folder.iterdir()} == {0o644}
    before = content(active)
    assert install(filled, active) == 0
    assert content(active) == before


def test_what_a_killed_process_was_writing_is_left_behind(filled: Path, tmp_path: Path) -> None:
    unfinished = filled / ("B" * 52) / "tmp.pid_1"
    unfinished.mkdir()
    (unfinished / "k.cubin").write_text("half")
    assert install(filled, tmp_path / "active") == 1
    assert len(content(tmp_path / "active")) == 3


def test_the_destination_is_tritons_cache(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "named"))
    assert install(filled) == 1
    assert len(content(tmp_path / "named")) == 3


def test_what_is_there_is_kept_and_what_is_unfinished_completed(
    filled: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "active" / ("B" * 52)
    folder.mkdir(parents=True)
    (folder / "k.cubin").write_text("compiled here")
    assert install(filled, tmp_path / "active") == 1
    assert (folder / "k.cubin").read_text() == "compiled here"
    assert (folder / "__grp__k.json").exists()


def test_a_cache_that_was_moved_is_mended(filled: Path, tmp_path: Path) -> None:
    """In place, and where a group of it was copied to by hand."""
    moved = filled.rename(tmp_path / "moved")
    active = tmp_path / "active"
    shutil.copytree(moved, active)
    for destination in (moved, active):
        assert install(moved, destination) == 1
        group = json.loads((destination / ("B" * 52) / "__grp__k.json").read_text())
        assert all(
            Path(each).parent.parent == destination for each in group["child_paths"].values()
        )
        assert install(moved, destination) == 0


def test_a_group_is_written_when_its_files_are_there(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    replace = os.replace

    def watched(source: str, target: Path) -> None:
        order.append(target.name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    install(filled, tmp_path / "active")
    assert order == ["k.cubin", "k.json", "__grp__k.json"]


def test_many_may_install_at_once(filled: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: install(filled, tmp_path / "active"), range(32)))
    assert sorted(each.name for each in (tmp_path / "active" / ("B" * 52)).iterdir()) == [
        "__grp__k.json",
        "k.cubin",
        "k.json",
    ]


@pytest.mark.parametrize("kind", ["missing", "empty", "none"])
def test_nothing_to_install_is_told(tmp_path: Path, kind: str) -> None:
    """`none` is the checkout, whose package brings no cache."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(BuildError, match="holds no compiled kernels; fill the cache again"):
        install(None if kind == "none" else tmp_path / kind, tmp_path / "active")


def test_damaged_caches_are_refused(filled: Path, tmp_path: Path) -> None:
    group = next(filled.rglob("__grp__k.json"))
    (group.parent / "k.cubin").unlink()
    with pytest.raises(BuildError, match=r"__grp__k.json: is damaged: k.cubin is missing"):
        install(filled, tmp_path / "active")
    for text in ("", "[]", "{}", '{"child_paths": 1}'):
        group.write_text(text)
        with pytest.raises(BuildError, match=r"__grp__k.json: is damaged"):
            install(filled, tmp_path / "active")
    assert not list((tmp_path / "active").rglob("__grp__*"))


def test_a_destination_that_cannot_be_written_is_told(filled: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BuildError, match="cannot be copied: Not a directory; let TRITON_CACHE_DIR"):
        install(filled, tmp_path / "file" / "active")
