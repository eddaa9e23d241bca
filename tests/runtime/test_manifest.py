"""A manifest that was edited by hand is refused when it is read, with every defect."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from generator.errors import BuildError
from generator.runtime.manifest import Manifest, default_directory, load
from generator.runtime.problem import LayerProblem
from generator.runtime.select import select_layer
from generator.runtime.workspace import buffers


def edited(folder: Path, change: Callable[[dict[str, Any]], None]) -> str:
    """What reading a changed copy of the shipped manifest says."""
    data = json.loads((default_directory() / "manifest.json").read_text())
    change(data)
    (folder / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(BuildError) as caught:
        load(folder)
    return str(caught.value)


def unknown_design(data: dict[str, Any]) -> None:
    data["selection"][0]["bands"][0]["designs"] = ["m7_w1s1"]


def unknown_contract(data: dict[str, Any]) -> None:
    data["layers"]["layer_w8gn_a8_swiglu_bf16_v1"]["plans"][0]["rows"][0] = "route_other_v1"


def no_plan(data: dict[str, Any]) -> None:
    data["layers"]["layer_w8gn_a8_swiglu_bf16_v1"]["plans"] = []


def zero_multiple(data: dict[str, Any]) -> None:
    next(e for e in data["entries"] if e["contract"].startswith("up"))["requires"][0]["by"] = 0


def unknown_dimension(data: dict[str, Any]) -> None:
    data["entries"][1]["requires"][0]["of"] = "Q"


def other_columns(data: dict[str, Any]) -> None:
    next(e for e in data["entries"] if e["contract"].startswith("up"))["block_n"] = 16


def targets_list(data: dict[str, Any]) -> None:
    data["targets"] = []


def no_entries(data: dict[str, Any]) -> None:
    del data["entries"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unknown_design, "the selection of route_ids_v1 names portable/m7_w1s1, no entry"),
        (unknown_contract, "uses route_other_v1, which is no contract"),
        (no_plan, "layer_w8gn_a8_swiglu_bf16_v1 has no plan"),
        (zero_multiple, "requires the impossible: K % 0 == 0"),
        (unknown_dimension, "requires the impossible: Q % 32 == 0"),
        (other_columns, "not in block_n"),
        (targets_list, "AttributeError"),
        (no_entries, "KeyError: 'entries'"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_defects_are_found_when_it_is_read(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    told = edited(tmp_path, change)
    assert "manifest.json: is damaged: " in told and message in told
    assert told.endswith("; run `python -m generator build`")


@pytest.mark.parametrize("text", ["def broken(", "x = 1\n"])
def test_a_module_without_its_kernel_is_refused(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "generated"
    shutil.copytree(default_directory(), folder)
    entry = load(folder).entries[0]
    entry.path.write_text(text)
    with pytest.raises(BuildError, match=r"is damaged: .*; run `python -m generator build`"):
        _ = entry.kernel


def test_workspaces_hold_the_values_that_the_layer_contract_states(shipped: Manifest) -> None:
    """The manifest says what stands between the stages; the buffers are exactly that."""
    sizes = {"rows": 30, "H": 512, "I": 1280}
    for layer in shipped.layers.values():
        if layer.up_group is not None:
            continue
        problem = LayerProblem(layer.name, "tokens", 30, 512, 1280, 8, ("portable",))
        made = buffers(problem, layer, select_layer(problem, shipped).block_m)
        for name, value in layer.values.items():
            dtype, _, shape = value.partition(" ")
            if name != "output":
                want = tuple(sizes[each] for each in shape.strip("[]").split(", "))
                assert (str(made[name].dtype), made[name].shape) == (f"torch.{dtype}", want)
