"""A prefilled cache holds every kernel that serving launches, as the runtime looks for it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from os import chdir, environ
from pathlib import Path

import pytest
import triton

from generator.aot.launches import (
    LONG,
    PACKED,
    Launch,
    Launches,
    extremes,
    lengths,
    specialized,
    token_counts,
)
from generator.aot.looking import NotCached, look_only
from generator.aot.pool import Pool
from generator.cli import main
from generator.runtime.manifest import load

ROOT = Path(__file__).parents[2]
LAYER = "layer_w8gn_a8_swiglu_bf16_v1"
MODEL = "qwen3-30b-a3b"
UNSERVED = "deepseek-v2-lite-tp8"  # by that layer

# A server without a device: the runtime's own calls on tensors without storage, each launch of
# which Triton compiles or finds in its cache as it would on a GPU.
SERVE = """
import json, sys
import torch, triton
from triton.backends.compiler import GPUTarget
from generator.aot import offline
from generator.aot.launches import NOWHERE, experts
from generator.runtime.layer import run_rows, run_tokens
from generator.runtime.manifest import load

said = []
def listen(*, src, cache_hit, **_):
    said.append([src.name, cache_hit])

triton.knobs.compilation.listener = listen
offline.activate().use(GPUTarget("cuda", 90, 32))
manifest = load(sys.argv[1])
model, layer = manifest.models[sys.argv[2]], manifest.layers[sys.argv[3]]
packed = experts(layer, model.experts, model.hidden, model.intermediate)
for tokens in map(int, sys.argv[4:]):
    hidden = torch.empty(tokens, model.hidden, dtype=torch.bfloat16, device=NOWHERE)
    weights = torch.empty(tokens, model.top_k, device=NOWHERE)
    counts = torch.empty(model.experts, dtype=torch.int32, device=NOWHERE)
    for dtype in (torch.int32, torch.int64):
        ids = torch.empty(tokens, model.top_k, dtype=dtype, device=NOWHERE)
        run_tokens(packed, hidden, ids, weights, manifest, targets=("sm_90", "portable"))
    run_rows(packed, hidden, counts, manifest, targets=("sm_90", "portable"))
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def emitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("emitted")
    targets = ("--target", "portable", "--target", "sm_90")
    assert main(["build", "--contract", LAYER, *targets, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def cache(emitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Filled by a path that is relative to a folder in which nothing is served."""
    folder = tmp_path_factory.mktemp("cache")
    before = Path.cwd()
    chdir(folder.parent)
    try:
        assert main(["prefill", *arguments(emitted, Path(folder.name))]) == 0
    finally:
        chdir(before)
    return folder


def arguments(emitted: Path, cache: Path) -> list[str]:
    named = ["--target", "sm_90", "--models", MODEL, "--jobs", "2"]
    return [*named, "--generated", str(emitted), "--cache", str(cache)]


def served(emitted: Path, cache: Path, *tokens: int) -> list[tuple[str, bool]]:
    """Each kernel that serving asked Triton for first, and whether the cache had it."""
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(emitted), MODEL, LAYER, *map(str, tokens)],
        cwd=ROOT,
        env=environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(name, hit) for name, hit in json.loads(done.stdout)]


def test_serving_compiles_nothing(emitted: Path, cache: Path, tmp_path: Path) -> None:
    found = served(emitted, cache, 1, 3, 16, 40, 333, 1000, 4096, 20000)
    assert len(found) > 8 and all(hit for _, hit in found)
    without = served(emitted, tmp_path, 1)
    assert without and not any(hit for _, hit in without)


def test_verify_compiles_nothing_and_names_what_is_missing(
    emitted: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prefill", *arguments(emitted, cache), "--verify"]) == 0
    assert "; 0 compiled now" in capsys.readouterr().out
    less = tmp_path / "less"
    shutil.copytree(cache, less)
    for group in less.glob("*/__grp__*.json"):  # Triton names a kernel's files by absolute path
        group.write_text(group.read_text().replace(str(cache), str(less)))
    lost = next(each.parent for each in less.glob("*/__grp__route_ids*json"))
    shutil.rmtree(lost)
    before = sorted(less.rglob("*"))
    assert main(["prefill", *arguments(emitted, less), "--verify"]) == 1
    assert f"a launch would compile; {less} lacks {lost.name}" in capsys.readouterr().out
    assert sorted(less.rglob("*")) == before  # nothing was written


def test_looking_makes_no_folder_where_a_kernel_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a cache that cannot be written is looked into as any other."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))

    def refused(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr("os.makedirs", refused)
    with look_only(True), pytest.raises(NotCached, match=r"^KEY$"):
        triton.knobs.cache.manager_class("KEY")


def test_nothing_to_serve_is_no_full_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No model has this layer."""
    out = tmp_path / "emitted"
    contract = "layer_w8g64_a8_swiglu_bf16_v1"
    build = ["build", "--contract", contract, "--target", "portable", "--out", str(out)]
    assert main(build) == 0
    for models in ((), ("--models", MODEL)):
        given = ["--generated", str(out), "--cache", str(tmp_path), "--verify", *models]
        assert main(["prefill", "--target", "sm_90", *given]) == 2
        assert "holds no layer of any model" in capsys.readouterr().err


def test_a_second_prefill_finds_all(
    emitted: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prefill", *arguments(emitted, cache)]) == 0
    said = capsys.readouterr().out
    assert "; 0 compiled now" in said and "keys of 1 models on sm_90" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("--models", "gpt-0"), "--models gpt-0: no such model; use"),
        (("--models", UNSERVED), f"--models {UNSERVED}: has no layer in"),
        (("--target", "portable"), "--target portable: has no compiler of its own"),
        (("--target", "ilu"), "--target ilu: has a stand-in for a compiler; its own Triton"),
        (("--verify", "--cache", "no/such"), "--cache no/such: is no folder"),
        (("--cache", __file__), f"--cache {__file__}: cannot be written: File exists"),
    ],
)
def test_bad_options_are_told(
    emitted: Path,
    tmp_path: Path,
    change: tuple[str, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["prefill", *arguments(emitted, tmp_path), *change]) == 2
    assert said in capsys.readouterr().err


def test_only_what_triton_compiles_anew_for_makes_another_launch() -> None:
    class Parameter:
        def __init__(self, do_not_specialize: bool) -> None:
            self.do_not_specialize = do_not_specialize

    class Kernel:
        params = (Parameter(False), Parameter(True), Parameter(False))

    def key(size: int, count: int, other: int) -> tuple[object, ...]:
        return specialized(Kernel, (("int8", size, 0), count, other))

    assert key(64, 1, 7) == key(4096, 48, 9)  # a count is not specialized for
    assert key(64, 1, 1) != key(64, 1, 7) != key(64, 1, 16)
    assert key(64, 2**31, 7) != key(64, 1, 7)


def test_storages_of_two_gib_make_other_launches_on_amd() -> None:
    short, long = 0, 1 << 31
    launch = Launch(
        "k", (("int8", 64, 0), ("int8", 64, 1), ("int8", 64, 0), ("int8", 9, PACKED), 7)
    )
    found = [[each[1] for each in one.arguments[:4]] for one in lengths(launch)]
    assert found == [
        [short, short, short, 9],
        [short, long, short, 9],
        [long, short, long, 9],
        [long, long, long, 9],
    ]
    found = [[each[1] for each in one.arguments[:4]] for one in extremes(launch)]
    assert found == [[short] * 4, [long] * 4]


def test_what_a_call_hands_in_is_told_from_weights(emitted: Path, tmp_path: Path) -> None:
    asked = {
        "verb": "launches",
        "directory": str(emitted),
        "models": [MODEL],
        "targets": ["sm_90", "portable"],
        "long": False,
    }
    with Pool(1, tmp_path) as pool:
        launches = pool.ask(asked)["launches"]
    downs = [each for symbol, each in launches if symbol.startswith("down_w8gn_a8_bf16_v1")]
    assert downs
    for arguments in downs:
        codes, scale, weight, weight_scale, y, *tiles = (
            each[2] for each in arguments if not isinstance(each, int)
        )
        assert (weight, weight_scale) == (PACKED, PACKED)
        assert {codes, scale, *tiles} == {codes} != {PACKED}  # of the workspace
        assert y != PACKED


def amd(generated: Path, *models: str) -> dict[str, object]:
    """Asks for all launches of a target that compiles anew for storages from 2 GiB on."""
    return {
        "verb": "launches",
        "directory": str(generated),
        "models": models,
        "targets": ["portable"],
        "long": True,
    }


def test_amd_tells_results_that_are_handed_in_from_those_in_the_workspace(
    emitted: Path, tmp_path: Path
) -> None:
    """Either may be long without the other: what `down` writes lies in the workspace from tokens,
    and is the caller's from rows.
    """
    with Pool(1, tmp_path) as pool:
        launches = pool.ask(amd(emitted, MODEL))["launches"]
    found: dict[str, set[tuple[bool, bool]]] = {}
    for symbol, arguments in launches:
        if symbol.startswith("down_w8gn_a8_bf16_v1"):
            codes, _, _, _, y, *_ = (each for each in arguments if not isinstance(each, int))
            found.setdefault(symbol, set()).add((codes[1] >= LONG, y[1] >= LONG))
    assert found
    assert all(len(each) == 4 for each in found.values()), found


def test_amd_tells_models_of_short_weights_from_those_of_long_ones(
    emitted: Path, tmp_path: Path
) -> None:
    """The first model would otherwise stand for all that share a layer."""
    generated = tmp_path / "generated"
    shutil.copytree(emitted, generated)
    manifest = json.loads((generated / "manifest.json").read_text())
    model = manifest["models"][MODEL]
    experts = 1 + LONG // (2 * model["hidden"] * model["intermediate"])
    manifest["models"]["many"] = {**model, "experts": experts, "global_experts": experts}
    (generated / "manifest.json").write_text(json.dumps(manifest))
    with Pool(1, tmp_path / "cache") as pool:
        launches = pool.ask(amd(generated, MODEL, "many"))["launches"]
    weights = {
        each[1] >= LONG
        for symbol, arguments in launches
        if symbol.startswith("up_w8gn")
        for each in arguments
        if not isinstance(each, int) and each[2] == PACKED and each[0] == "int8"
    }
    assert weights == {False, True}


def test_every_band_of_every_model_is_visited() -> None:
    manifest = load()
    for model in manifest.models.values():
        counts = token_counts(manifest, model)
        for low in {band.low for bands in manifest.bands.values() for band in bands}:
            assert low * model.experts in counts
            assert -(-low * model.experts // model.top_k) in counts
        assert set(model.tokens) <= set(counts)


def test_every_entry_is_launched_alone(emitted: Path, tmp_path: Path) -> None:
    """And where it reads ids, with either dtype that they may have."""
    manifest = load(emitted)
    symbols = [each.symbol for each in manifest.entries]
    asked = {"verb": "launches", "directory": str(emitted), "symbols": symbols, "long": False}
    with Pool(1, tmp_path) as pool:
        launches = pool.ask(asked)["launches"]
    found: dict[str, list[set[str]]] = {}
    for symbol, arguments in launches:
        dtypes = {each[0] for each in arguments if not isinstance(each, int)}
        found.setdefault(symbol, []).append(dtypes)
    assert found.keys() == set(symbols)
    reading = {each for each in symbols if each.startswith(("count", "route_ids", "dispatch"))}
    for symbol, calls in found.items():
        wide = sorted("int64" in dtypes for dtypes in calls)
        assert wide == ([False, True] if symbol in reading else [False]), symbol
    operations = {manifest.contracts[each.contract]["operation"] for each in manifest.entries}
    assert operations >= {"count", "route", "dispatch", "quantize", "combine"}


def test_launches_put_the_kernels_back() -> None:
    manifest = load()
    with Launches(manifest):
        pass
    entry = manifest.entries[0]
    assert entry.kernel is getattr(entry.module, entry.symbol)
