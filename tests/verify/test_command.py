"""`verify` finds what is wrong, says where, and exits 1."""

from __future__ import annotations

from pathlib import Path

import pytest

from generator import cli
from generator.data import folder
from generator.emit.outputs import outputs
from generator.emit.sync import write
from generator.lower.program import Selection, program
from generator.runtime.manifest import load
from generator.spec.load import load as load_specs
from generator.verify.cases import cases, least_shape

LAYER = "layer_w8g64_a8_swiglu_bf16_v1"
INT4 = "layer_w4g64_a8_swiglu_bf16_v1"
SHAPE = "experts=2,global_experts=3,top_k=2,hidden=64,intermediate=64,tokens=5"


def modules(out: Path, layer: str = LAYER) -> dict[str, str]:
    selection = Selection(contracts=(layer,), targets=("portable",))
    files = outputs(program(load_specs(folder("specs")), selection), folder("templates"))
    write(out, files)
    return files


def test_equal_bits_exit_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    modules(tmp_path / "out")
    code = cli.main(["verify", "--generated", str(tmp_path / "out"), "--shape", SHAPE, "--all"])
    printed = capsys.readouterr().out
    assert code == 0
    assert printed.rstrip().endswith(" bits compared, 0 different")
    stages = ("count", "route", "dispatch", "quantize", "up", "requantize", "down", "combine")
    for stage in stages:
        assert f"    {stage:10} " in printed
    for start in ("tokens", "rows"):
        for plan in ("separate", "folded", "dispatched"):
            assert f"  from {start}, plan {plan}: asked for\n" in printed


@pytest.mark.parametrize(
    ("operation", "text", "by"),
    [
        ("up", "up_ptrs = gate_ptrs + N * K", "up_ptrs = gate_ptrs"),
        ("up", "tl.fma(p, r, 5.0000001201e-1)", "tl.fma(p, r, 4.9e-1)"),
        ("down", "groups - 1) * N", "groups - 1) * 0"),
        ("quantize", "CODE_MAX = tl.constexpr(127.0)", "CODE_MAX = tl.constexpr(128.0)"),
        ("combine", "tl.fma(weight,", "tl.fma(-weight,"),
        # A variant that no call takes here, for wrong counts lead to rows that are not there.
        ("count", "BINS = tl.constexpr(1024)", "BINS = tl.constexpr(1)"),
        ("route", "tl.where(present, row, -1), mask=ok", "tl.where(present, row, 0), mask=ok"),
        ("dispatch", "(slot < program)", "(slot > program)"),
    ],
)
def test_a_broken_module_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], operation: str, text: str, by: str
) -> None:
    shape = SHAPE.replace("hidden=64,intermediate=64", "hidden=128,intermediate=128")
    files = modules(tmp_path / "out")
    broken = [path for path in files if path.startswith(f"{operation}/") and text in files[path]]
    assert broken
    for path in broken:
        (tmp_path / "out" / path).write_text(files[path].replace(text, by))
    every = ["--all"] if operation in ("count", "route") else []  # few rows are dispatched else
    code = cli.main(["verify", "--generated", str(tmp_path / "out"), "--shape", shape, *every])
    wrong = [line for line in capsys.readouterr().out.splitlines() if "DIFFERS" in line]
    assert code == 1
    assert {line.split()[0] for line in wrong} >= {operation}


@pytest.mark.parametrize(
    ("operation", "contract", "text", "by"),
    [
        ("up", "_amax_", "w & -16", "w & -32"),  # one bit of the high nibbles
        ("down", "a8_bf16_v1", "x_ptrs + GROUP_K // 2 + k32", "x_ptrs + k32"),  # a group alone
        ("down", "_requantbf16_", "w_scale_ptrs += N", "w_scale_ptrs += 0"),
        (
            "up",
            "_amax_",
            "tl.atomic_max(row_amax_ptr + rows,",
            "tl.atomic_min(row_amax_ptr + rows,",
        ),
    ],
)
def test_a_broken_int4_module_of_either_plan_is_found(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    operation: str,
    contract: str,
    text: str,
    by: str,
) -> None:
    """K of 192: a pair of groups in two planes, and one group alone. `--all` runs both plans."""
    files = modules(tmp_path / "out", INT4)
    (path,) = [each for each in files if each.startswith(f"{operation}/") and contract in each]
    assert text in files[path]
    (tmp_path / "out" / path).write_text(files[path].replace(text, by))
    shape = "experts=1,global_experts=1,top_k=1,hidden=192,intermediate=192,tokens=2"
    code = cli.main(["verify", "--generated", str(tmp_path / "out"), "--shape", shape, "--all"])
    wrong = [line.split() for line in capsys.readouterr().out.splitlines() if "DIFFERS" in line]
    assert code == 1
    assert wrong[0][0] == operation  # a wrong amax shows in the rows that it quantizes, too


def test_bad_arguments_exit_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", "--shape", "mixtrall"]) == 2
    assert "name a model (deepseek-v2-lite-tp8, deepseek-v3-ep8, " in capsys.readouterr().err
    assert cli.main(["verify", "--contract", "layer_w9*"]) == 2
    assert "names no layer contract; use a pattern of layer_w4g128_a8_" in capsys.readouterr().err
    assert cli.main(["verify", "--generated", str(tmp_path / "none")]) == 2
    assert "run `python -m generator build --out DIR`" in capsys.readouterr().err


def test_the_default_here_is_the_seeds_smaller_layer() -> None:
    chosen = list(cases(load(), shape=None, contract=None, everything=False, small=True))
    assert [(each.layer.dtype, each.shape.tokens, each.shape.hidden) for each in chosen] == [
        ("bf16", 33, 512)
    ]


def test_all_covers_every_layer_contract() -> None:
    for small in (True, False):
        chosen = cases(load(), shape=None, contract=None, everything=True, small=small)
        assert {each.layer.name for each in chosen} == set(load().layers)


def test_the_least_shape_is_accepted_by_every_variant() -> None:
    manifest = load()
    for layer in manifest.layers.values():
        shape = least_shape(layer, manifest)
        for operation, n, k in (
            ("up", shape.intermediate, shape.hidden),
            ("down", shape.hidden, shape.intermediate),
        ):
            name = next(each for each in layer.plans[0].rows if each.startswith(operation))
            sizes = {"rows": 40, "N": n, "K": k, "experts": shape.experts}
            for entry in manifest.by_contract[name]:
                assert all(each.holds(sizes) for each in entry.requires), entry.symbol
