"""What every emitted module promises as text: the same bytes, one tidy kernel, no contraction."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pytest

from generator.emit.outputs import outputs
from generator.errors import BuildError
from generator.lower.program import Program, Selection, program
from generator.spec.load import load
from tests.emit.contraction import contractible

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "templates"
COLUMNS = 100


@dataclass(frozen=True)
class Module:
    """One emitted file."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @cached_property
    def parts(self) -> dict[str, list[ast.AST]]:
        """All nodes of each function by its name."""
        return {each.name: list(ast.walk(each)) for each in self.functions}

    @cached_property
    def functions(self) -> list[ast.FunctionDef]:
        return [node for node in self.tree.body if isinstance(node, ast.FunctionDef)]

    @cached_property
    def kernels(self) -> list[ast.FunctionDef]:
        return [each for each in self.functions if not each.name.startswith("_")]

    @cached_property
    def constants(self) -> dict[str, object]:
        """Module constants but OPTIONS and layouts, with their values."""
        return {
            node.targets[0].id: ast.literal_eval(node.value.args[0])
            for node in self.tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Call)
            and not isinstance(node.value.args[0], ast.Call)
        }

    @property
    def language(self) -> str:
        """`gluon` where warps have roles."""
        roles = ("_specialized", "_pingpong")
        return "gluon" if any(each in self.path for each in roles) else "triton"

    @property
    def names(self) -> tuple[str, str, str]:
        """Contract, target and design, from the path."""
        _, contract, target, design = self.path.removesuffix(".py").split("/")
        return contract, target, design


def shipped(**selection: object) -> Program:
    return program(load(ROOT / "specs"), Selection(**selection))


@pytest.fixture(scope="module")
def builds() -> list[dict[str, str]]:
    """All contracts of all specs, for the portable target and for those that keep several bands;
    and for one like them, whose dots take weights first.
    """
    loaded = load(ROOT / "specs")
    [plain] = (target for target in loaded.targets if target.name == "sm_80")
    other = {"name": "other", "operands": ("weights_first",), "gates": ("joined",)}
    swapped = plain.model_copy(update={**other, "orders": ("blocks",)})
    lab = loaded.model_copy(update={"targets": (*loaded.targets, swapped)})
    return [
        outputs(shipped(targets=("portable", "sm_80", "sm_90"), everything=True), TEMPLATES),
        outputs(program(lab, Selection(targets=("other",), everything=True)), TEMPLATES),
    ]


def modules_of(files: dict[str, str]) -> list[Module]:
    return [Module(path, text) for path, text in files.items() if path.count("/") == 3]


@pytest.fixture(scope="module")
def modules(builds: list[dict[str, str]]) -> list[Module]:
    return [each for files in builds for each in modules_of(files)]


@pytest.fixture
def combine() -> Program:
    """A program of one variant."""
    return shipped(contracts=("combine_bf16_v1",))


def test_same_bytes_under_every_hash_seed(tmp_path: Path) -> None:
    expected = {path: text.encode() for path, text in outputs(shipped(), TEMPLATES).items()}
    for seed in ("0", "1", "12345"):
        out = tmp_path / seed
        command = [sys.executable, "-m", "generator", "build", "--out", str(out)]
        subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": seed}, check=True)
        written = {p.relative_to(out).as_posix(): p for p in out.rglob("*") if p.is_file()}
        assert {path: file.read_bytes() for path, file in written.items()} == expected


def test_every_file_is_a_module_but_the_package_and_the_manifest(
    builds: list[dict[str, str]],
) -> None:
    for files in builds:
        modules = modules_of(files)
        assert len(modules) > 100
        assert set(files) - {each.path for each in modules} == {"__init__.py", "manifest.json"}


def test_one_kernel_named_like_its_file(modules: list[Module]) -> None:
    named = {each.path: [kernel.name for kernel in each.kernels] for each in modules}
    assert named == {each.path: ["_".join(each.names)] for each in modules}


def test_every_function_is_jitted(modules: list[Module]) -> None:
    for each in modules:
        for function in each.functions:
            decorators = [ast.unparse(node) for node in function.decorator_list]
            assert len(decorators) == 1, each.path
            assert decorators[0].startswith(f"{each.language}.jit"), each.path


def test_no_run_time_number_is_specialized(modules: list[Module]) -> None:
    for each in modules:
        arguments = [argument.arg for argument in each.kernels[0].args.args]
        numbers = [name for name in arguments if not name.endswith("_ptr")]
        decorator = ast.unparse(each.kernels[0].decorator_list[0])
        # What callers slice as they like: their start must not choose another compile.
        callers = [name for name in arguments if name in ("id_ptr", "count_ptr", "weight_ptr")]
        alignment = f", do_not_specialize_on_alignment={callers}" if callers else ""
        expected = f"{each.language}.jit(do_not_specialize={numbers}{alignment})"
        assert decorator == expected, each.path


def unread(nodes: list[ast.AST]) -> set[str]:
    """Names and arguments that are bound in a scope's nodes and never read there, but for `_` and
    what loops over the stages of a group count by.
    """
    names = [node for node in nodes if isinstance(node, ast.Name)]
    targets = {ast.unparse(node.target) for node in nodes if isinstance(node, ast.For)}
    counters = targets & {"_stage"}
    bound = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    return bound - {node.id for node in names if isinstance(node.ctx, ast.Load)} - counters - {"_"}


def test_every_name_is_read(modules: list[Module]) -> None:
    found = {}
    for each in modules:
        helpers = {function.name for function in each.functions if function not in each.kernels}
        left = unread(each.nodes) - {"OPTIONS"}
        left |= {name for nodes in each.parts.values() for name in unread(nodes)}
        called = {
            name: {node.id for node in nodes if isinstance(node, ast.Name)}
            for name, nodes in each.parts.items()
        }
        for name in helpers:
            left |= {name}.difference(*(used for other, used in called.items() if other != name))
        if left:
            found[each.path] = left
    assert found == {}


def test_lines_fit(modules: list[Module]) -> None:
    long = [each.path for each in modules if max(map(len, each.text.splitlines())) > COLUMNS]
    assert long == []


def test_no_branch_that_generation_could_decide(modules: list[Module]) -> None:
    decided = {}
    for each in modules:
        for node in each.nodes:
            if isinstance(node, (ast.If, ast.IfExp, ast.While)):
                names = {name.id for name in ast.walk(node.test) if isinstance(name, ast.Name)}
                if names <= {*each.constants, "tl"}:
                    decided[each.path] = ast.unparse(node.test)
    assert decided == {}


def turns_of(loop: ast.For, constants: dict[str, object]) -> int | None:
    """How often a loop from 0 turns; None where that is known at run time only."""
    if not isinstance(loop.iter, ast.Call) or len(loop.iter.args) != 1:
        return None
    [bound] = loop.iter.args
    if any(isinstance(node, ast.Name) and node.id not in constants for node in ast.walk(bound)):
        return None
    turns: int = eval(ast.unparse(bound), {}, constants)
    return turns


def test_no_loop_of_one_turn(modules: list[Module]) -> None:
    turns = {
        (each.path, node.lineno): turns_of(node, each.constants)
        for each in modules
        for node in each.nodes
        if isinstance(node, ast.For)
    }
    counted = [each for each in turns.values() if each is not None]
    assert len(counted) > 100
    assert [place for place, each in turns.items() if each in (0, 1)] == []


def steps_of(body: list[ast.stmt], constants: dict[str, object]) -> Counter[str]:
    """How far pointers of rows and weights go, whatever loops do it."""
    gone: Counter[str] = Counter()
    for node in body:
        if isinstance(node, ast.For):
            assert isinstance(node.iter, ast.Call)
            times = eval(ast.unparse(node.iter.args[0]), {}, constants)
            inner = steps_of(node.body, constants)
            gone.update({name: times * by for name, by in inner.items()})
        elif isinstance(node, ast.AugAssign):
            name = ast.unparse(node.target)
            if name.endswith("_ptrs") and "scale" not in name:
                gone[name] += eval(ast.unparse(node.value), {}, constants)
    return gone


def test_a_turn_moves_the_pointers_to_the_next_one(modules: list[Module]) -> None:
    turns = {"groups", "group_pairs", "group_fours", "k_blocks", "k_tiles"}
    walked = 0
    for each in modules:
        if each.path.split("/")[0] not in ("up", "down") or each.language == "gluon":
            continue
        [kernel] = each.kernels
        nodes = list(ast.walk(kernel))
        [unit] = {
            eval(ast.unparse(node.value.right), {}, each.constants)
            for node in nodes
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp)
            if re.match(r"K = (?!k_units)|(\w+) = K // (?!2$)", ast.unparse(node))
        }
        loops = [
            node
            for node in nodes
            if isinstance(node, ast.For)
            for names in [{n.id for n in ast.walk(node.iter) if isinstance(n, ast.Name)}]
            if names & turns and "K" not in names
        ]
        gone = steps_of(loops[-1].body, each.constants)  # the innermost, in chunks of turns
        stored = unit // 2 if "PLANE_K" in each.constants else unit
        rows = {"x_ptrs": unit, "inv_smooth_ptrs": unit}
        assert gone == {name: rows.get(name, stored) for name in gone}, each.path
        assert gone.keys() >= {"x_ptrs"} and len(gone) > 1, each.path
        walked += 1
    assert walked > 500


def test_stages_of_a_ring_are_all_of_k(modules: list[Module]) -> None:
    """Where warps have roles: a stage has a line of every row of weights, and what they meet."""
    rings = [each for each in modules if each.language == "gluon"]
    for each in rings:
        [kernel] = each.kernels
        values = {
            ast.unparse(n.targets[0]): n.value for n in kernel.body if isinstance(n, ast.Assign)
        }
        known = dict.fromkeys(("groups", "group_pairs", "k_blocks", "k_tiles"), 3) | each.constants
        # Three groups, and of a fourth what is no less than a stage.
        known["k_units"] = (3 * each.constants.get("GROUP_K", 0) + 256) // 64
        for name in ("K", "groups", "rest"):
            if name in values:
                known[name] = eval(ast.unparse(values[name]), {}, known)
        load = values["load"]
        assert isinstance(load, ast.Tuple)
        [at] = [i for i, one in enumerate(load.elts) if ast.unparse(one) == "places"]
        steps = eval(ast.unparse(load.elts[at + 1]), {}, known)
        planes = 2 if "PLANE_K" in each.constants else 1
        line = each.constants["LINE"]
        assert steps * line * planes == known["K"], each.path
        rows = each.constants["BLOCK_M"]
        assert each.constants["STAGE_BYTES"] == line * (128 + planes * rows), each.path
        if "SHORT_STAGE_BYTES" in each.constants:
            assert each.constants["SHORT_STAGE_BYTES"] == line * (128 + planes * 64), each.path
    assert len(rings) > 5
    assert {each.constants["LINE"] for each in rings} == {128, 64, 32}
    assert any("rest" in each.text for each in rings)


def test_pointers_move_by_lengths_that_have_a_name(modules: list[Module]) -> None:
    bare = {
        each.path: ast.unparse(node)
        for each in modules
        for node in each.nodes
        if isinstance(node, ast.AugAssign) and ast.unparse(node.target).endswith("_ptrs")
        if isinstance(node.value, ast.Constant) and node.value.value != 1
    }
    assert bare == {}


def test_no_step_after_which_nothing_reads_the_pointers(modules: list[Module]) -> None:
    dead = {}
    for each in modules:
        [kernel] = each.kernels
        nodes = list(ast.walk(kernel))
        in_loops = {
            inner for node in nodes if isinstance(node, ast.For) for inner in ast.walk(node)
        }
        last = {
            node.id: node.lineno
            for node in sorted(
                (n for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)),
                key=lambda node: node.lineno,
            )
        }
        for node in nodes:
            if not isinstance(node, ast.AugAssign) or node in in_loops:
                continue
            if last[ast.unparse(node.target)] < node.lineno:
                dead[each.path] = ast.unparse(node)
    assert dead == {}


def entries_of(files: dict[str, str]) -> dict[str, dict[str, object]]:
    """The entries of a manifest by the paths of their modules."""
    return {each["path"]: each for each in json.loads(files["manifest.json"])["entries"]}


def test_every_module_has_an_entry(builds: list[dict[str, str]]) -> None:
    for files in builds:
        assert list(entries_of(files)) == [each.path for each in modules_of(files)]


def test_ends_with_the_launch_options_of_its_manifest_entry(
    builds: list[dict[str, str]], modules: list[Module]
) -> None:
    entries = {path: entry for files in builds for path, entry in entries_of(files).items()}
    for each in modules:
        last = each.tree.body[-1]
        assert isinstance(last, ast.Assign) and ast.unparse(last.targets[0]) == "OPTIONS"
        assert ast.literal_eval(last.value) == {
            "num_warps": 4 if each.language == "gluon" else entries[each.path]["warps"],
            "num_stages": entries[each.path]["stages"],
            "enable_fp_fusion": False,
        }


def test_header_names_the_contract_and_never_moves_the_kernel(
    builds: list[dict[str, str]], modules: list[Module]
) -> None:
    contracts = {
        name: contract
        for files in builds
        for name, contract in json.loads(files["manifest.json"])["contracts"].items()
    }
    lengths = set()
    for each in modules:
        contract, _, _ = each.names
        docstring = ast.get_docstring(each.tree, clean=False) or ""
        assert f"\ncontract  {contract}  {contracts[contract]['digest']}\n" in docstring
        lengths.add(docstring.count("\n"))
    assert len(lengths) == 1


def test_linter_and_formatter_have_nothing_to_say(tmp_path: Path, modules: list[Module]) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for each in modules:
        path = tmp_path / "generated" / each.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(each.text, encoding="utf-8")
    for verb in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *verb, "--no-cache", "generated"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_no_product_feeds_an_addition_but_through_fma(modules: list[Module]) -> None:
    """Of Gluon modules `test_fusion.py` counts operations instead."""
    found = {
        each.path: sums
        for each in modules
        if each.language == "triton" and (sums := contractible(each.tree, each.text))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("lines", "sums"),
    [
        ("y = acc * scale + bias", ["acc * scale + bias"]),
        ("y = bias - scale * acc", ["bias - scale * acc"]),
        ("acc += scale * bias", ["acc + scale * bias"]),
        ("y = tl.sum(acc * scale, axis=0)", ["tl.sum(acc * scale, axis=0)"]),
        ("t = -(acc * scale)[:, None]; y = tl.abs(t) + 1.0", ["tl.abs(t) + 1.0"]),
        ("t = (acc * scale).to(tl.float32); y = t - bias", ["t - bias"]),
        ("t = (acc * scale).to(tl.bfloat16).to(tl.float32); y = t + bias", []),
        ("y = tl.fma(acc, scale * scale, bias) + bias", []),
        ("t = tl.where(n == 0, acc * scale, 0.0); y = t + bias", ["t + bias"]),
        ("t = tl.where(acc * scale > 0.0, acc, 0.0); y = t + bias", []),
        ("y = x_ptr + n * 4 + tl.program_id(0) * SIZE", []),
        ("y = x_ptr + tl.load(i_ptr + n) * SIZE", []),
        ("y = bias + tl.load(x_ptr + n) * SIZE", ["bias + tl.load(x_ptr + n) * SIZE"]),
        ("y = bias + n * FACTOR", ["bias + n * FACTOR"]),
    ],
)
def test_rule_of_products_follows_them_through_names(lines: str, sums: list[str]) -> None:
    text = (
        "SIZE = tl.constexpr(8)\nFACTOR = tl.constexpr(8.0)\n\n\ndef kernel(\n"
        f"    x_ptr,  # fp32 [rows]\n    i_ptr,  # int32 [rows]\n    n,\n):\n    {lines}\n"
    )
    assert contractible(ast.parse(text), text) == sums


def test_division_is_rounded_to_nearest(modules: list[Module]) -> None:
    inexact = [
        each.path
        for each in modules
        for node in each.nodes
        if isinstance(node, ast.operator) and isinstance(node, ast.Div)
    ]
    assert inexact == []


def test_two_variants_of_one_path_are_refused(combine: Program) -> None:
    twice = replace(combine, plans=combine.plans * 2)
    with pytest.raises(BuildError, match="two variants of one name"):
        outputs(twice, TEMPLATES)


def test_two_variants_of_one_symbol_are_refused(combine: Program) -> None:
    [plan] = combine.plans
    [variant] = plan.kept
    longer_target = variant.target.model_copy(update={"name": "v1_portable"})
    longer_contract = replace(variant.contract, output="bf16_v1")
    one = replace(variant, target=longer_target)
    other = replace(variant, contract=longer_contract)
    assert one.symbol == other.symbol and one.path != other.path
    plans = (replace(plan, kept=(one,)), replace(plan, contract=longer_contract, kept=(other,)))
    with pytest.raises(BuildError, match="two variants of one name"):
        outputs(replace(combine, plans=plans), TEMPLATES)
