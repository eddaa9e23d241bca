"""The command line from outside: exit codes, messages, files. 0 all is well, 1 the answer is no,
2 bad input.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from generator.cli import main
from generator.errors import BuildError
from generator.resources import Figures, Record
from generator.runtime.manifest import SCHEMA, load

ROOT = Path(__file__).parents[1]
TARGETS = sorted(path.stem for path in (ROOT / "specs/targets").glob("*.yaml"))
COMBINE = ("--contract", "combine_*")  # two small modules


def generator(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "generator", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def written(folder: Path) -> set[str]:
    """Files of a folder; of modules the folder that holds them, for their names are designs."""
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {(p.parent if len(p.parts) > 2 else p).as_posix() for p in files}


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder that holds `generated`, built from there by a relative path."""
    done = generator("build", *COMBINE, "--out", "generated", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "2 modules in generated; files: 4 new, 0 changed, 0 removed\n"
    return tmp_path


def test_build_writes_the_selected_contracts_from_any_folder(built: Path) -> None:
    assert [path.name for path in built.iterdir()] == ["generated"]
    assert written(built / "generated") == {
        "__init__.py",
        "manifest.json",
        "combine/combine_bf16_v1/portable",
        "combine/combine_fp16_v1/portable",
    }


def test_second_build_changes_nothing(built: Path) -> None:
    done = generator("build", *COMBINE, "--out", "generated", cwd=built)
    assert done.stdout == "2 modules in generated; files: 0 new, 0 changed, 0 removed\n"


def test_check_of_fresh_modules_is_0(built: Path) -> None:
    done = generator("check", *COMBINE, "--out", "generated", cwd=built)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "generated is fresh: 2 modules\n"


def test_check_of_a_changed_module_is_1_and_shows_the_change(built: Path) -> None:
    [module] = built.glob("generated/combine/combine_bf16_v1/portable/*.py")
    path = module.relative_to(built / "generated").as_posix()
    module.write_text(module.read_text().replace("mask=cols < N", "mask=cols <= N"))
    stale = module.read_bytes()
    done = generator("check", *COMBINE, "--out", "generated", cwd=built)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[:2] == [f"--- {path} (on disk)", f"+++ {path}"]
    store = "    tl.store(out_ptr + token * N + cols, acc.to(tl.bfloat16), mask=cols"
    assert f"-{store} <= N)" in lines and f"+{store} < N)" in lines
    repeated = "--out generated --contract 'combine_*'"
    assert done.stderr.startswith("generated is stale; run `python -m generator build ")
    assert repeated in done.stderr
    assert module.read_bytes() == stale


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--target", "sm_91"),
            f"[build] --target sm_91: no such target; use one of {', '.join(TARGETS)}\n",
        ),
        (("--spec", "w9a9"), "[build] --spec w9a9: no such spec; use one of w4a8, w8a8\n"),
        (
            ("--contract", "sideways_*"),
            "[build] --contract sideways_*: matches no contract and no layer;"
            " `python -m generator list --all` names all but layers of two group sizes\n",
        ),
        (("--specs", "nowhere"), "[spec] nowhere: no such folder; pass --specs DIR\n"),
    ],
    ids=["target", "spec", "contract", "specs"],
)
@pytest.mark.parametrize("verb", ["build", "check"])
def test_a_bad_name_is_2_and_writes_nothing(
    tmp_path: Path, verb: str, arguments: tuple[str, ...], message: str
) -> None:
    done = generator(verb, *arguments, "--out", "generated", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)
    assert written(tmp_path) == set()


@pytest.mark.parametrize("most", ["0", "-1"])
@pytest.mark.parametrize("option", ["--candidates", "--rivals"])
def test_less_than_one_of_each_is_2_and_writes_nothing(
    tmp_path: Path, option: str, most: str
) -> None:
    done = generator("build", option, most, "--out", "generated", cwd=tmp_path)
    said = f"[build] {option}: is {most}; use 1 or more\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)
    assert written(tmp_path) == set()


def test_filters_narrow_what_is_built(tmp_path: Path) -> None:
    filters = ("--spec", "w8a8", "--contract", "up_w8g128_*", "--target", "sm_80")
    done = generator("build", *filters, "--out", "generated", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folders = written(tmp_path / "generated") - {"__init__.py", "manifest.json"}
    types = ("bf16", "bf16_expdevice", "fp16", "fp16_expdevice")
    assert folders >= {f"up/up_w8g128_a8_swiglu_{each}_v1/sm_80" for each in types}
    assert [each for each in folders if not fnmatch(each, "up/up_w8g128_*/sm_80")] == []


def test_list_names_what_build_emits(built: Path) -> None:
    done = generator("list", *COMBINE, cwd=built)
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=3) for line in done.stdout.splitlines()]
    assert [(*names, taken.partition("; ")[2]) for *names, taken in lines] == [
        (each.contract, each.target, each.design, ", ".join(map(str, each.requires)))
        for each in load(built / "generated").entries
    ]


@dataclass(frozen=True)
class Printed:
    """A verb run in this process, where lowering remembers what it judged."""

    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        code = main(arguments)
        out, err = self.capture.readouterr()
        return code, out, err

    def lines(self, *arguments: str) -> list[str]:
        code, out, err = self(*arguments)
        assert (code, err) == (0, "")
        return out.splitlines()

    def data(self, *arguments: str) -> dict[str, Any]:
        code, out, err = self(*arguments, "--json")
        assert (code, err) == (0, "")
        found: dict[str, Any] = json.loads(out)
        return found


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    return Printed(capsys)


G128 = ("list", "--contract", "layer_w8g128_a8_swiglu_bf16_v1")  # every operation, three targets


def test_list_as_json_is_what_build_emits(built: Path, printed: Printed) -> None:
    found = printed.data("list", *COMBINE)
    assert (found["layers"], found["contracts"]) == ([], [])
    out = (built / "generated").resolve()
    assert [
        (each["name"], each["target"], each["design"], out / each["path"], each["requires"])
        for each in found["variants"]
    ] == [
        (each.contract, each.target, each.design, each.path, [str(r) for r in each.requires])
        for each in load(out).entries
    ]


def figures(stack: int) -> Figures:
    return Figures(72, 0, 0, stack, 1024, 2048, {"mma m16n8k32 s32 s8 s8 s32": 4}, {"16": 2}, {}, 0)


def recorded(tmp_path: Path, symbols: Iterable[str], stack: int) -> Path:
    """A copy of the shipped specs whose only record holds these variants."""
    specs = Path(shutil.copytree(ROOT / "specs", tmp_path / "specs"))
    shutil.rmtree(specs / "resources")
    record = Record("sm_90", "3.9.0", {symbol: figures(stack) for symbol in symbols})
    (specs / "resources").mkdir()
    (specs / "resources" / record.name).write_text(record.text())
    return specs


def test_list_shows_what_is_on_record(printed: Printed, tmp_path: Path) -> None:
    [first, second] = printed.data("list", *COMBINE)["variants"]
    symbol = "_".join((first["name"], first["target"], first["design"]))
    specs = recorded(tmp_path, [symbol], stack=0)
    found = printed.data("list", *COMBINE, "--specs", str(specs))["variants"]
    assert found[0]["compiled"] == [
        {"target": "sm_90", "triton": "3.9.0", "figures": asdict(figures(0))}
    ]
    assert found[1] == {**second, "compiled": []}
    lines = printed.lines("list", *COMBINE, "--specs", str(specs))
    assert f" 72 registers, 1024 bytes shared; {first['requires'][0]}" in lines[0]
    assert f" not compiled; {second['requires'][0]}" in lines[1]


def test_a_variant_that_spills_on_record_is_built_no_more(printed: Printed, tmp_path: Path) -> None:
    asked = ("--contract", "down_w8g128_a8_bf16_v1", "--target", "sm_90")
    before = printed.data("list", *asked)["variants"]
    symbols = ["_".join((each["name"], each["target"], each["design"])) for each in before]
    specs = str(recorded(tmp_path, symbols, stack=8))
    after = printed.data("list", *asked, "--specs", specs)["variants"]
    assert after and not {each["design"] for each in after} & {each["design"] for each in before}
    lines = printed.lines("explain", asked[1], *asked[2:], "--specs", specs)
    [at] = (index for index, line in enumerate(lines) if " by spills: " in line)
    assert lines[at].split()[:4] == ["rejected", str(len(before)), "by", "spills:"]
    assert lines[at + 1].endswith(
        f"8 bytes of stack in {asked[1]}, compiled for sm_90 by Triton 3.9.0;"
        " use other warps or tiles"
    )


@pytest.mark.parametrize("verb", ["list", "build", "check"])
def test_a_damaged_record_is_2_and_says_how_to_mend_it(
    printed: Printed, tmp_path: Path, verb: str
) -> None:
    specs = recorded(tmp_path, (), stack=0)
    [path] = (specs / "resources").glob("*.json")
    path.write_text(path.read_text()[:-4])
    code, out, err = printed(verb, "--specs", str(specs))
    assert (code, out) == (2, "")
    assert err.startswith(f"[spec] {path}: is damaged: ")
    assert err.endswith("; remove it and run `python -m generator compile --record` again\n")


def test_list_shows_one_kind(printed: Printed) -> None:
    layers = printed.lines(*G128, "--kind", "layers")
    assert layers == ["layer_w8g128_a8_swiglu_bf16_v1"]
    variants = printed.lines(*G128, "--kind", "variants")
    assert printed.lines(*G128) == layers + variants
    contracts = [line.split() for line in printed.lines(*G128, "--kind", "contracts")]
    assert [name for name, *_ in contracts] == list(dict.fromkeys(v.split()[0] for v in variants))
    [down] = (rest for name, *rest in contracts if name == "down_w8g128_a8_bf16_v1")
    own = [v.split()[1] for v in variants if v.startswith("down_w8g128_a8_bf16_v1 ")]
    assert len(set(own)) == 3
    assert " ".join(down) == f"down {len(own)} variants {', '.join(dict.fromkeys(own))}"


def test_list_filters_operations(printed: Printed) -> None:
    found = printed.data(*G128, "--operation", "up", "--operation", "route")
    assert found["layers"] == []
    assert {each["operation"] for each in found["variants"]} == {"up", "route"}
    every = printed.data(*G128)
    assert [each["name"] for each in every["layers"]] == ["layer_w8g128_a8_swiglu_bf16_v1"]
    assert found["variants"] == [
        each for each in every["variants"] if each["operation"] in ("up", "route")
    ]


@pytest.mark.parametrize(
    ("sort", "field"),
    [
        ("name", "name"),
        ("target", "target"),
        ("operation", "operation"),
        ("shared", "shared_bytes"),
        ("registers", "registers"),
    ],
)
def test_list_sorts_variants_with_ties_by_name(printed: Printed, sort: str, field: str) -> None:
    own = printed.data(*G128)["variants"]
    found = printed.data(*G128, "--sort", sort)["variants"]

    def key(each: dict[str, Any]) -> tuple[object, ...]:
        return (each[field], each["name"], each["target"], each["design"])

    assert found == sorted(own, key=key) != own
    lines = [line.split() for line in printed.lines(*G128, "--kind", "variants", "--sort", sort)]
    assert [line[:3] for line in lines] == [
        [each["name"], each["target"], each["design"]] for each in found
    ]
    if field in ("shared_bytes", "registers"):  # the number that was compared is shown
        assert [int(line[3]) for line in lines] == [each[field] for each in found]


@pytest.mark.parametrize(("sort", "field"), [("shared", "shared_bytes"), ("registers",) * 2])
def test_list_sorts_contracts_by_the_most_of_their_variants(
    printed: Printed, sort: str, field: str
) -> None:
    most: dict[str, int] = {}
    for each in printed.data(*G128)["variants"]:
        most[each["name"]] = max(each[field], most.get(each["name"], 0))
    found = printed.data(*G128, "--kind", "contracts", "--sort", sort)["contracts"]
    in_order = sorted(most.items(), key=lambda each: (each[1], each[0]))
    assert [(each["name"], each[field]) for each in found] == in_order


def test_list_sorts_layers_by_name(printed: Printed) -> None:
    asked = ("list", "--contract", "layer_w8g*_a8_swiglu_bf16_v1", "--target", "portable")
    names = printed.lines(*asked, "--kind", "layers")
    assert printed.lines(*asked, "--kind", "layers", "--sort", "name") == sorted(names) != names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("list", "--operation", "ups", *COMBINE),
            "[build] --operation ups: no such operation;"
            " use one of count, route, dispatch, quantize, requantize, up, down, combine\n",
        ),
        (
            ("list", *COMBINE, "--operation", "up"),
            "[build] --operation up: none of what is selected for portable; these have combine\n",
        ),
        (
            ("list", *COMBINE, "--operation", "combine", "--kind", "layers"),
            "[build] --kind layers --operation: a layer has all operations;"
            " leave one of them out\n",
        ),
        (
            ("explain", "combine_bf16_v2"),
            "[build] explain combine_bf16_v2: names no spec, no contract and no layer"
            " (nearest: combine_bf16_v1, combine_fp16_v1);"
            " `python -m generator list --all` names all but layers of two group sizes\n",
        ),
        (
            ("explain", "combine_bf16_v1", "--problem", "rows=1"),
            "[build] --problem: lacks n, k, experts; write rows=ROWS,n=N,k=K,experts=EXPERTS\n",
        ),
        (
            ("explain", "combine_bf16_v1", "--specs", "nowhere"),
            "[spec] nowhere: no such folder; pass --specs DIR\n",
        ),
    ],
)
def test_a_bad_question_is_2_and_says_what_to_ask(
    printed: Printed, arguments: tuple[str, ...], message: str
) -> None:
    assert printed(*arguments) == (2, "", message)


@pytest.mark.parametrize(
    ("experts", "tuning"), [(128, "chosen by timings at 128 rows, "), (100, "no measured tuning: ")]
)
def test_explain_prints_one_set_of_facts_as_text_and_as_json(
    printed: Printed, experts: int, tuning: str
) -> None:
    """Of a shape that was timed, and of one that was not."""
    asked = ("explain", "down_w8g128_a8_bf16_v1", "--target", "sm_90")
    asked += ("--problem", f"rows=128,n=2048,k=768,experts={experts}")
    [target] = printed.data(*asked)["targets"]
    labelled: dict[str, list[str]] = {}
    for line in printed.lines(*asked):
        label, _, text = line.strip().partition(" ")
        labelled.setdefault(label, []).append(text.strip())
    assert labelled["rejected"] == [
        f"{each['rejected']} by {each['rule']}: {each['why']}" for each in target["rejected"]
    ]
    assert labelled["such"] == [
        f"as {each['example']}: {each['what']}" for each in target["rejected"]
    ]
    assert labelled["proof"] == [each["proof"] for each in target["proofs"]]
    assert [text.split(":")[0] for text in labelled["kept"]] == [
        each["design"] for each in target["kept"]
    ]
    choice = target["choice"]
    rank = f", rank {choice['rank']} of {choice['ranked']}" if choice["rank"] else ""
    assert labelled["chosen"] == [f"{choice['design']}{rank}"]
    assert [re.split("[,:]", text)[0] for text in labelled["not"]] == [
        each["design"] for each in choice["others"]
    ]
    assert labelled["tuning"] == [choice["tuning"]]
    assert choice["tuning"].startswith(tuning)


def test_explain_runs_from_any_folder(tmp_path: Path) -> None:
    done = generator("explain", "combine_bf16_v1", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("contract combine_bf16_v1 of spec w4a8, w8a8, digest ")


def test_schema_is_the_one_that_editors_read(tmp_path: Path) -> None:
    shipped = (ROOT / "specs" / "schema.json").read_text()
    done = generator("schema", "--print", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, shipped)
    assert written(tmp_path) == set()
    done = generator("schema", "--specs", ".", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "wrote schema.json\n")
    assert (tmp_path / "schema.json").read_text() == shipped


def test_no_verb_is_2(tmp_path: Path) -> None:
    done = generator(cwd=tmp_path)
    assert done.returncode == 2 and "VERB" in done.stderr


def test_a_missing_manifest_says_how_to_build_one(tmp_path: Path) -> None:
    with pytest.raises(BuildError) as error:
        load(tmp_path)
    assert str(error.value) == (
        f"[build] {tmp_path / 'manifest.json'}: does not exist;"
        " run `python -m generator build --out DIR`"
    )


def test_a_newer_manifest_is_refused(built: Path) -> None:
    path = built / "generated" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99}))
    with pytest.raises(BuildError) as error:
        load(path.parent)
    assert str(error.value) == (
        f"[build] {path}: schema 99 is newer than this runtime, which reads schema {SCHEMA};"
        " upgrade groupwise, or build again with this version"
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "{}",
        lambda text: text.replace(f'"schema": {SCHEMA}', '"schema": "1"'),
        lambda text: text.replace('"design": ', '"plan": '),
        lambda text: text.replace('"kind": "multiple"', '"kind": "prime"'),
        lambda text: text.replace('"entries": [', '"entries": [3,'),
    ],
    ids=["cut", "list", "empty", "schema", "key", "condition", "entry"],
)
def test_a_damaged_manifest_says_how_to_mend_it(built: Path, damage: Callable[[str], str]) -> None:
    path = built / "generated" / "manifest.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(BuildError) as error:
        load(path.parent)
    assert str(error.value).startswith(f"[build] {path}: is damaged: ")
    assert str(error.value).endswith("; run `python -m generator build`")
