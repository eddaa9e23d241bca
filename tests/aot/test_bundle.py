"""A bundle is a package that serves alone, and loses nothing that no bundle wrote."""

from __future__ import annotations

import json
import os
import socket
import zipfile
from pathlib import Path

import pytest
import torch

from generator.aot.bundle import BUNDLE, bundle, compiled, held, library
from generator.aot.bundle_text import DEPENDENCIES, EXTRAS
from generator.cli import main
from generator.emit.sync import compare, write
from generator.errors import BuildError
from generator.runtime.manifest import load
from generator.runtime.module import QuantMoE
from generator.verify.cases import Shape
from generator.verify.inputs import seed_state
from generator.version import VERSION
from tests.aot.conftest import LAYER
from tests.blocked import python, without

ROOT = Path(__file__).parents[2]
NAME = "groupwise_moe"
KEY = "A" * 52
CACHE = {
    f"{KEY}/__grp__kernel.json": json.dumps({"child_paths": {"kernel.cubin": "/a/kernel.cubin"}}),
    f"{KEY}/kernel.cubin": "\x7fELF",
}
Files = dict[str, str | bytes]


def bundled(emitted: dict[str, str], name: str = NAME, cache: bool = True) -> Files:
    content = {path: text.encode() for path, text in CACHE.items()} if cache else None
    return bundle(emitted, library(), name=name, version=VERSION, cache=content)


@pytest.fixture(scope="session")
def files(emitted: dict[str, str]) -> Files:
    return bundled(emitted)


@pytest.fixture(scope="session")
def wheel(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    write(folder / "source", files, BUNDLE)
    offline = ("--no-deps", "--no-build-isolation", "--no-index")
    command = ("-m", "pip", "wheel", *offline, "--wheel-dir", ".", "./source")
    done = python(*command, environment=dict(os.environ), cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def site(wheel: Path) -> Path:
    """The wheel, installed."""
    target = wheel.parent / "site"
    offline = ("--no-deps", "--no-index", "--no-compile", "--target", str(target))
    command = ("-m", "pip", "install", *offline, str(wheel))
    done = python(*command, environment=dict(os.environ), cwd=wheel.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture
def stored(tmp_path: Path) -> torch.Tensor:
    """A layer, stored in the folder of the test; what this repository computes of it."""
    sizes = {"experts": 4, "top_k": 2, "hidden": 128, "intermediate": 64}
    shape = Shape(4, 4, 2, 128, 64, 7)
    random = torch.Generator().manual_seed(0)
    seed = seed_state(load().layer(LAYER), shape, torch.device("cpu"), seed=0)
    state = {f"experts.{name}": value for name, value in seed.items()}
    state["gating.gate_weight"] = torch.randn(128, 4, generator=random)
    hidden = torch.randn(7, 128, generator=random).bfloat16()
    data = {"layer": LAYER, "sizes": sizes, "state": state, "hidden": hidden}
    torch.save(data, tmp_path / "layer.pt")
    moe = QuantMoE(LAYER, **sizes)
    moe.load_state_dict(state)
    return moe(hidden)


def same_bits(file: Path, expected: torch.Tensor) -> bool:
    return torch.equal(torch.load(file).view(torch.int16), expected.view(torch.int16))


def serve(*packages: str, folder: Path, environment: dict[str, str]) -> None:
    script = str(ROOT / "tests" / "aot" / "serve.py")
    done = python(script, *packages, str(folder), environment=environment, cwd=folder)
    assert done.returncode == 0, done.stderr


def test_an_installed_bundle_serves_alone(site: Path, stored: torch.Tensor, tmp_path: Path) -> None:
    blocked = ("generator", "generated", "jinja2", "yaml", "pydantic", "safetensors")
    environment = without(tmp_path, *blocked, path=site)
    for each in blocked:
        assert f"blocked: {each}" in python("-c", f"import {each}", environment=environment).stderr
    serve(NAME, folder=tmp_path, environment=environment)
    assert same_bits(tmp_path / f"{NAME}.pt", stored)


def test_bundles_and_the_repository_serve_in_one_process(
    site: Path, stored: torch.Tensor, emitted: dict[str, str], tmp_path: Path
) -> None:
    write(tmp_path / "second", bundled(emitted, "second_moe", cache=False), BUNDLE)
    path = os.pathsep.join(str(each) for each in (site, tmp_path / "second", ROOT))
    packages = (NAME, "generator", "second_moe")
    serve(*packages, folder=tmp_path, environment=os.environ | {"PYTHONPATH": path})
    for package in packages:
        assert same_bits(tmp_path / f"{package}.pt", stored)


def test_every_module_imports_on_a_gpu_server(site: Path, tmp_path: Path) -> None:
    """Where torch and triton are all there is, not even numpy: that is the interpreter's."""
    paths = [each.relative_to(site) for each in (site / NAME / "runtime").glob("*.py")]
    modules = [".".join(each.with_suffix("").parts) for each in paths]
    modules.remove(f"{NAME}.runtime.exact_float")
    code = f"import {', '.join(modules)}"
    blocked = ("generator", "numpy", "jinja2", "yaml", "pydantic", "safetensors")
    environment = without(tmp_path, *blocked, path=site) | {"TRITON_INTERPRET": "0"}
    done = python("-c", code, environment=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_the_whole_package(wheel: Path, files: Files) -> None:
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == {path for path in files if path.startswith(f"{NAME}/")}


def test_the_cache_of_an_installed_bundle_is_found(site: Path, tmp_path: Path) -> None:
    code = f"from {NAME}.runtime.cache import install; print(install(), install())"
    environment = without(tmp_path, "generator", path=site)
    environment["TRITON_CACHE_DIR"] = str(tmp_path / "cache")
    done = python("-c", code, environment=environment, cwd=tmp_path)
    assert done.stdout == "1 0\n", done.stderr
    assert (tmp_path / "cache" / KEY / "kernel.cubin").read_text() == "\x7fELF"


def test_texts_depend_on_the_inputs_only(emitted: dict[str, str], files: Files) -> None:
    assert bundled(dict(reversed(emitted.items()))) == files
    assert list(bundled(dict(reversed(emitted.items())))) == list(files)
    own = {path: text for path, text in files.items() if "/cache/" not in path}
    for path, text in own.items():
        assert isinstance(text, str)
        assert str(ROOT) not in text and socket.gethostname() not in text.split(), path
        assert "import generator" not in text and "from generator" not in text, path


def test_requirements_are_those_of_the_project(files: Files) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for each in (*DEPENDENCIES, *EXTRAS.values()):
        assert f'    "{each}",' in project
        assert f'"{each}"' in str(files["pyproject.toml"])


@pytest.mark.parametrize(
    "name", ["", "my-moe", "1moe", "_moe", "moe_", "moe.layers", "class", "mö", "../moe"]
)
def test_what_is_no_name_is_refused(emitted: dict[str, str], name: str) -> None:
    with pytest.raises(BuildError) as error:
        bundled(emitted, name)
    assert str(error.value) == (
        f"[build] --name {name}: is no name for a package;"
        " use a word of letters, digits and inner underscores, such as groupwise_moe"
    )


@pytest.mark.parametrize(
    "name", ["generator", "generated", "groupwise", "torch", "Torch", "NumPy", "json"]
)
def test_names_of_others_are_refused(emitted: dict[str, str], name: str) -> None:
    with pytest.raises(BuildError, match=f"--name {name}: is taken"):
        bundled(emitted, name)


def test_a_selection_without_a_whole_layer_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bundle", "--contract", "combine_*", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == (
        "[build] the selection: holds no whole layer, which is what a bundle serves;"
        " name a layer of `python -m generator list --all --kind layers` as --contract\n"
    )
    assert not (tmp_path / "out").exists()


def test_portable_stands_beside_a_named_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["bundle", "--contract", LAYER, "--target", "sm_90", "--name", "moe"]
    assert main([*command, "--out", str(out)]) == 0
    entries = json.loads((out / "moe/generated/manifest.json").read_text())["entries"]
    assert {entry["target"] for entry in entries} == {"portable", "sm_90"}
    assert capsys.readouterr().out.startswith(
        f"moe {VERSION} in {out}: {len(entries)} modules, 0 files of a Triton cache; files: "
    )
    assert f"| `{LAYER}` | portable, sm_90 |" in (out / "README.md").read_text()


def test_modules_that_were_never_compiled_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The default build is on record, and another rounding is not."""
    assert main(["bundle", "--contract", LAYER, "--out", str(tmp_path / "known")]) == 0
    assert "no record" not in capsys.readouterr().out
    out = tmp_path / "other"
    other = LAYER.replace("_v1", "_away_v1")
    command = ["bundle", "--contract", other, "--target", "sm_90", "--out", str(out)]
    assert main(command) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    where = out / NAME / "generated"
    assert last.endswith(
        f" are on no record; `python -m generator compile --generated {where} --target=sm_90`"
        " tries them"
    )
    assert int(last.split()[0]) > 0


@pytest.mark.parametrize(
    ("targets", "named"),
    [(("portable", "sm_90"), "--target=sm_90"), (("portable",), "--target=NAME")],
)
def test_what_is_told_to_compile_has_a_compiler(
    targets: tuple[str, ...], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = LAYER.replace("_v1", "_away_v1")
    words = [word for each in targets for word in ("--target", each)]
    assert main(["bundle", "--contract", other, *words, "--out", str(tmp_path)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(f"--generated {tmp_path / NAME / 'generated'} {named}` tries them")


def test_a_cache_is_counted_by_modules() -> None:
    long = "k" * 200  # of which Triton's file names hold the first 150
    cache = {"A/__grp__first.json", "B/__grp__first.json", f"C/__grp__{long[:150]}.json", "C/x"}
    assert held(["first", "second", long], cache) == 2


def test_a_folder_without_kernels_is_no_cache(emitted: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / KEY).mkdir()
    (tmp_path / KEY / "launcher.so").touch()
    (tmp_path / KEY / "__grp__another.json").touch()
    for each in (tmp_path, tmp_path / "missing"):
        with pytest.raises(BuildError, match=f"{each}: holds no kernel that Triton compiled of"):
            compiled(each, emitted)


def test_only_kernels_of_the_modules_are_taken_from_a_cache(
    emitted: dict[str, str], tmp_path: Path
) -> None:
    symbol = json.loads(emitted["manifest.json"])["entries"][0]["symbol"]
    own = {f"{KEY}/__grp__{symbol}.json": "{}", f"{KEY}/{symbol}.cubin": "\x7fELF"}
    foreign = {
        "notes/mine.txt": "mine",
        f"{KEY}/tmp.pid_1/k.cubin": "",
        f"{'B' * 52}/__grp__another.json": "{}",
        f"{'C' * 52}/launcher.so": "",
    }
    for path, text in {**own, **foreign}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert compiled(tmp_path, emitted) == {path: text.encode() for path, text in own.items()}


def test_a_second_run_changes_nothing(files: Files, tmp_path: Path) -> None:
    assert write(tmp_path / "out", files, BUNDLE)
    assert not write(tmp_path / "out", files, BUNDLE)


def test_what_is_stale_is_removed(files: Files, emitted: dict[str, str], tmp_path: Path) -> None:
    """With another name all of it is, and what building a wheel left."""
    write(tmp_path, files, BUNDLE)
    for path in (f"build/lib/{NAME}/old.py", f"{NAME}.egg-info/PKG-INFO", f"{NAME}/.errors.py.k3x"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    other = bundled(emitted, "moe", cache=False)
    write(tmp_path, other, BUNDLE)
    assert not compare(tmp_path, other)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(
        ["README.md", "bundle.json", "moe", "pyproject.toml"]
    )


def test_a_killed_run_is_finished_by_the_next(
    files: Files, emitted: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = bundled(emitted, "moe")
    replace = os.replace
    done: list[str] = []

    def killed(source: str, target: Path) -> None:
        if len(done) == 9:
            raise KeyboardInterrupt
        done.append(target.name)
        replace(source, target)

    write(tmp_path, files, BUNDLE)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, other, BUNDLE)
    write(tmp_path, files, BUNDLE)
    assert done[0] == "bundle.json" and not compare(tmp_path, files)


@pytest.mark.parametrize("mark", ["notes.txt", "bundle.json"])
def test_a_folder_that_no_bundle_wrote_is_refused(files: Files, tmp_path: Path, mark: str) -> None:
    (tmp_path / mark).write_text('{"name": "a web app"}')
    with pytest.raises(BuildError) as error:
        write(tmp_path, files, BUNDLE)
    assert str(error.value) == (
        f"[build] {tmp_path}: holds files but no bundle.json of ours, so no bundle made it;"
        " pass an empty folder, or one that bundle wrote, as --out DIR"
    )
    assert [each.name for each in tmp_path.iterdir()] == [mark]


def test_files_of_the_user_in_a_bundle_are_kept(
    files: Files, emitted: dict[str, str], tmp_path: Path
) -> None:
    write(tmp_path, files, BUNDLE)
    (tmp_path / NAME / "mine.py").write_text("MINE = 1\n")
    with pytest.raises(BuildError) as error:
        write(tmp_path, bundled(emitted, "moe"), BUNDLE)
    assert [str(each) for each in error.value.findings] == [
        f"{tmp_path}/{NAME}/mine.py: was written by no bundle; move it elsewhere"
    ]
    assert compare(tmp_path, files).stale == (f"{NAME}/mine.py",)
