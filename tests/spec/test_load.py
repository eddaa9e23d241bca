"""Loading gives one frozen model per meaning, and nothing but a SpecError for any other text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from generator.data import folder
from generator.errors import SpecError
from generator.spec.canonical import canonical_text, digest, json_schema
from generator.spec.load import load, shape
from generator.spec.model import Frozen, Model, Spec, SpecSet, Target
from generator.spec.yaml_source import read
from tests.spec.conftest import load_texts

SPECS = folder("specs")
SHIPPED = load(SPECS)
SUBJECTS = (*SHIPPED.specs, *SHIPPED.targets, *SHIPPED.models)
FOLDERS = {Spec: "", Target: "targets", Model: "models"}
# The smallest folder that loads with one file of each kind: a path below specs/ and its data.
SMALL = {
    path: yaml.safe_load((SPECS / path).read_text(encoding="utf-8"))
    for path in ("w4a8.yaml", "w8a8.yaml", "targets/sm_90.yaml", "models/mixtral-8x7b.yaml")
}
for name in ("w4a8.yaml", "w8a8.yaml"):
    SMALL[name]["targets"] = ["sm_90"]
# Design axes of words, each of which keeps its shipped values where numbers are drawn.
WORDS = {"row", "dot", "unpack", "tail", "offsets"}

of_every_subject = pytest.mark.parametrize(
    "subject", SUBJECTS, ids=lambda each: f"{type(each).__name__}-{each.name}"
)
quick = settings(deadline=None, derandomize=True, max_examples=50)


def source(subject: Frozen) -> Path:
    return SPECS / FOLDERS[type(subject)] / f"{subject.name}.yaml"


def parse(text: str, kind: type[Frozen], tmp_path: Path) -> Frozen:
    path = tmp_path / "subject.yaml"
    path.write_text(text, encoding="utf-8")
    return shape(read(path), kind)


def load_data(files: dict[str, Any]) -> SpecSet:
    """Load a folder of plain data; JSON is YAML."""
    return load_texts({path: json.dumps(data) for path, data in files.items()})


def test_every_shipped_file_is_loaded() -> None:
    assert {source(subject) for subject in SUBJECTS} == {
        path for path in SPECS.rglob("*.yaml") if path.parent.name in ("specs", "targets", "models")
    }


def test_every_shipped_record_and_calibration_is_loaded() -> None:
    folder = SPECS / "resources"
    for loaded, where in (
        (SHIPPED.resources, folder),
        (SHIPPED.calibrations, folder / "calibration"),
    ):
        assert loaded
        assert [each.name for each in loaded] == sorted(path.name for path in where.glob("*.json"))


def test_a_folder_without_resources_has_none() -> None:
    small = load_data(SMALL)
    assert (small.resources, small.calibrations) == ((), ())


def test_all_parsers_that_are_there_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on what is quoted, folded, aliased or not there; libyaml, where pyyaml has it."""
    odd = tmp_path / "odd.yaml"
    odd.write_text("a: '1'\nb: \"true\"\nc: &x [1, ~, ]\nd: *x\ne: >\n  2\nf:\n", encoding="utf-8")
    shipped = sorted(SPECS.rglob("*.yaml"))
    found = [read(path) for path in shipped]
    assert len(found) > 10
    meant = {"a": "1", "b": "true", "c": [1, None], "d": [1, None], "e": "2\n", "f": None}
    lines = {(key,): line for line, key in enumerate("abcde", 1)}
    for there in {yaml.__with_libyaml__, False}:
        monkeypatch.setattr(yaml, "__with_libyaml__", there)
        one = read(odd)
        assert one.data == meant and lines.items() <= one.lines.items()
        assert [read(path) for path in shipped] == found


@pytest.mark.parametrize("text", ["a:\t1", "a: 1\t# x", "a: [1,\t2]", "a: [\n\t1]"])
def test_tabs_are_refused_whatever_parses(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tab.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match="no valid YAML"):
        read(path)


@of_every_subject
def test_canonical_text_loads_to_an_equal_model(subject: Frozen, tmp_path: Path) -> None:
    text = canonical_text(subject)
    again = parse(text, type(subject), tmp_path)
    assert again == subject
    assert canonical_text(again) == text


@of_every_subject
def test_canonical_text_keeps_the_order_of_the_language(subject: Frozen) -> None:
    fields = type(subject).model_fields.items()
    keys = [field.alias or name for name, field in fields]
    assert list(yaml.safe_load(canonical_text(subject))) == keys


@of_every_subject
def test_digest_ignores_comments_layout_and_key_order(subject: Frozen, tmp_path: Path) -> None:
    data = yaml.safe_load(source(subject).read_text(encoding="utf-8"))
    other = "# another comment\n\n" + yaml.safe_dump(data, indent=6, default_flow_style=False)
    assert list(data) != sorted(data)
    assert digest(parse(other, type(subject), tmp_path)) == digest(subject)


@of_every_subject
def test_digest_changes_with_the_meaning(subject: Frozen) -> None:
    assert digest(subject.model_copy(update={"name": "another"})) != digest(subject)


@of_every_subject
def test_models_are_frozen_to_the_leaves(subject: Frozen) -> None:
    def check(value: object) -> None:
        assert not isinstance(value, list | dict | set)
        for each in value if isinstance(value, tuple) else ():
            check(each)
        if isinstance(value, BaseModel):
            for field in type(value).model_fields:
                check(getattr(value, field))
                with pytest.raises(ValidationError, match="frozen"):
                    setattr(value, field, getattr(value, field))

    check(subject)


@of_every_subject
def test_first_line_names_the_json_schema(subject: Frozen) -> None:
    path = source(subject)
    first = path.read_text(encoding="utf-8").splitlines()[0]
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert named, first
    assert (path.parent / named[1]).resolve() == (SPECS / "schema.json").resolve()


def test_json_schema_on_disk_is_current() -> None:
    on_disk = (SPECS / "schema.json").read_text(encoding="utf-8")
    assert on_disk == json_schema(), "run `python -m generator schema`"


def test_json_schema_knows_every_file_that_names_it() -> None:
    schema = json.loads(json_schema())
    kinds = [schema["$defs"][each["$ref"].split("/")[-1]] for each in schema["anyOf"]]
    known = {kind["title"]: kind["properties"].keys() for kind in kinds}
    assert known.keys() == {"Spec", "Target", "Model", "Tuning"}
    for path in SPECS.rglob("*.yaml"):
        keys = yaml.safe_load(path.read_text(encoding="utf-8")).keys()
        assert any(keys <= allowed for allowed in known.values()), path


@st.composite
def spec_variations(draw: st.DrawFn) -> dict[str, Any]:
    """A shipped spec with other groups, limits, axes and designs, all of them legal."""
    counts = st.integers(1, 2**40)
    powers = st.lists(st.integers(0, 11).map(lambda power: 2**power), min_size=1, unique=True)
    name = draw(st.sampled_from(("w4a8", "w8a8")))
    data = deepcopy(SMALL[f"{name}.yaml"])
    unit = {"w4a8": 64, "w8a8": 32}[name]  # int4 groups but 32 are multiples of 64
    data["limits"] = {key: draw(counts) for key in data["limits"]}
    whole = data["limits"]["k"] // unit
    groups = st.lists(st.integers(1, whole).map(lambda n: unit * n), unique=True, max_size=5)
    data["weights"]["group_k"] = ["channel", *(draw(groups) if whole else [])]
    for part, axis in (
        ("activations", "dtype"),
        ("activations", "rounding"),
        ("layer", "intermediate"),
        ("layer", "exp"),
        ("layer", "plans"),
    ):
        words = st.sampled_from(data[part][axis])
        data[part][axis] = draw(st.lists(words, min_size=1, unique=True))
    for space in data["designs"].values():
        for axis, values in space.items():
            words = st.lists(st.sampled_from(values), min_size=1, unique=True)
            space[axis] = draw(words if axis in WORDS else powers)
    data["version"] = draw(counts)
    return data


@quick
@given(spec_variations())
def test_legal_variations_of_a_spec_round_trip(data: dict[str, Any]) -> None:
    target = {"targets/sm_90.yaml": json.dumps(SMALL["targets/sm_90.yaml"])}
    path = f"{data['name']}.yaml"
    first = load_texts({**target, path: json.dumps(data)}).specs[0]
    assert first.model_dump(mode="json", by_alias=True) == data
    again = load_texts({**target, path: canonical_text(first)}).specs[0]
    assert again == first
    assert digest(again) == digest(first)


Place = tuple[str | int, ...]  # a path below specs/, then the keys and indices of a value


def places(data: Any, at: Place = ()) -> Iterator[Place]:
    """The places of all values below a value."""
    if isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield (*at, key)
            yield from places(value, (*at, key))


def value_at(place: Place) -> Any:
    return reduce(lambda data, key: data[key], place, SMALL)


def changed(place: Place, change: Callable[[Any, Any], object]) -> dict[str, Any]:
    """The small folder after `change(parent, key)` of one place."""
    files = deepcopy(SMALL)
    change(reduce(lambda data, key: data[key], place[:-1], files), place[-1])
    return files


def twice(data: Any, place: Place) -> str:
    """JSON in which one key stands twice."""
    if not place or isinstance(data, list):
        return json.dumps(data)
    pairs = [
        f'"{key}": {twice(value, place[1:] if key == place[0] else ())}'
        for key, value in data.items()
    ]
    if len(place) == 1:
        pairs.append(f'"{place[0]}": 1')
    return f"{{{', '.join(pairs)}}}"


PLACES = list(places(SMALL))
KEYS = [place for place in PLACES if len(place) > 1 and isinstance(place[-1], str)]
SCALARS = [place for place in PLACES if not isinstance(value_at(place), dict | list)]


def test_small_folder_loads() -> None:
    loaded = load_data(SMALL)
    assert [len(each) for each in (loaded.specs, loaded.targets, loaded.models)] == [2, 1, 1]


@quick
@given(st.sampled_from(KEYS))
def test_deleted_key_is_refused_by_name(place: Place) -> None:
    path, *keys = place
    files = changed(place, lambda parent, key: parent.pop(key))
    with pytest.raises(SpecError, match=f"`{'.'.join(map(str, keys))}` is missing"):
        load_data({path: files[path]})


@quick
@given(st.sampled_from([place for place in KEYS if not any(isinstance(p, int) for p in place)]))
def test_duplicate_key_is_refused_by_name(place: Place) -> None:
    path, *keys = place
    with pytest.raises(SpecError, match=f"duplicate key `{keys[-1]}`"):
        load_texts({path: twice(SMALL[path], tuple(keys))})


@settings(quick, max_examples=200)
@given(
    st.sampled_from(SCALARS),
    st.sampled_from([None, True, -1, 2.5, 10**30, "", "word", "\u0416", [], [1], {}, {"a": 1}]),
)
def test_replaced_scalar_loads_or_is_a_spec_error(place: Place, value: object) -> None:
    files = changed(place, lambda parent, key: parent.__setitem__(key, value))
    try:
        load_data(files)
    except SpecError as error:
        assert error.findings


def test_fastest_strategy_is_of_those_that_compile_right() -> None:
    """Also on a target that is a copy of another one: nothing is remembered from it."""
    (target,) = load_data(SMALL).targets
    assert target.fastest_dot == "int8"
    assert target.model_copy(update={"dots": ("rank1", "fp16_exact")}).fastest_dot == "fp16_exact"
    assert target.model_copy(update={"dots": ("rank1",)}).fastest_dot == "rank1"


def test_rate_of_a_strategy_that_a_target_lacks_is_zero() -> None:
    (ilu,) = (target for target in SHIPPED.targets if target.name == "ilu")
    rates = ilu.cost.dot_ops_per_us
    assert [rates.of(dot) for dot in ("int8", "fp16_exact", "rank1")] == [0, 1500000, 0]


def test_model_whose_group_does_not_divide_its_hidden_size_is_legal(specs: Path) -> None:
    """The last group is short: 176 in groups of 128 ships, and 6144 in groups of 320 may."""
    path = specs / "models/qwen3-coder-480b-tp8.yaml"
    text = path.read_text(encoding="utf-8")
    assert text.count("up: 128") == 1
    path.write_text(text.replace("up: 128", "up: 320"), encoding="utf-8")
    (model,) = (each for each in load(specs).models if each.name == path.stem)
    assert model.hidden % 320
    assert model.layers[0].up == 320
