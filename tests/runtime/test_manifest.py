"""A manifest that was edited by hand is refused when it is read, with every defect."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from generator.errors import BuildError
from generator.runtime.manifest import SCHEMA, Compiler, Manifest, default_directory, load
from generator.runtime.problem import LayerProblem
from generator.runtime.select import select_layer
from generator.runtime.workspace import Buffer, buffers


def edited(folder: Path, change: Callable[[dict[str, Any]], None]) -> str:
    """What reading a changed copy of the shipped manifest says."""
    data = json.loads((default_directory() / "manifest.json").read_text())
    change(data)
    (folder / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(BuildError) as caught:
        load(folder)
    return str(caught.value)


def unknown_design(data: dict[str, Any]) -> None:
    route = next(each for each in data["selection"] if each["contract"] == "route_ids_v1")
    route["bands"][0]["designs"] = ["m7_w1s1"]


def unknown_contract(data: dict[str, Any]) -> None:
    data["layers"]["layer_w8gn_a8_swiglu_bf16_v1"]["plans"][0]["rows"][0] = "route_other_v1"


def no_plan(data: dict[str, Any]) -> None:
    data["layers"]["layer_w8gn_a8_swiglu_bf16_v1"]["plans"] = []


def zero_multiple(data: dict[str, Any]) -> None:
    next(e for e in data["entries"] if e["contract"].startswith("up"))["requires"][0]["by"] = 0


def unknown_dimension(data: dict[str, Any]) -> None:
    quantize = next(e for e in data["entries"] if e["contract"].startswith("quantize"))
    quantize["requires"][0]["of"] = "Q"


def other_columns(data: dict[str, Any]) -> None:
    next(e for e in data["entries"] if e["contract"].startswith("up"))["block_n"] = 16


def unknown_plan(data: dict[str, Any]) -> None:
    ranked = data["layers"]["layer_w8gn_a8_swiglu_bf16_v1"]["selection"]["portable"]
    ranked[0]["plans"][0]["name"] = "fused"


def older(data: dict[str, Any]) -> None:
    data["schema"] = SCHEMA - 1


def targets_list(data: dict[str, Any]) -> None:
    data["targets"] = []


def no_matrix(data: dict[str, Any]) -> None:
    del data["targets"]["sm_90"]["matrix"]


def no_warps(data: dict[str, Any]) -> None:
    del data["targets"]["sm_90"]["compiler"]["warp_size"]


def no_compiler(data: dict[str, Any]) -> None:
    del data["targets"]["portable"]["compiler"]


def no_spec(data: dict[str, Any]) -> None:
    del data["layers"]["layer_w8gn_a8_swiglu_bf16_v1"]["axes"]["spec"]


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
        (unknown_plan, "the selection of layer_w8gn_a8_swiglu_bf16_v1 names no plan of it"),
        (targets_list, "AttributeError"),
        (no_matrix, "KeyError: 'matrix'"),
        (no_warps, "TypeError: "),
        (no_compiler, "KeyError: 'compiler'"),
        (no_spec, "KeyError: 'spec'"),
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


def test_another_schema_is_told_apart_from_damage(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old = edited(tmp_path / "old", older)
    assert old.endswith(
        f"schema {SCHEMA - 1} is older than this runtime, which reads schema {SCHEMA};"
        " run `python -m generator build` again"
    )
    new = edited(tmp_path / "new", lambda data: data.update(schema=SCHEMA + 1))
    assert f"newer than this runtime, which reads schema {SCHEMA}; upgrade groupwise" in new


def test_targets_say_what_compiles_and_what_it_must_keep_to(shipped: Manifest) -> None:
    hopper, amd, ilu = (shipped.targets[name] for name in ("sm_90", "gfx942", "ilu"))
    assert hopper.compiler == Compiler("cuda", 90, 32, stand_in=False)
    assert (hopper.registers, hopper.matrix) == (255, (("mma", 1), ("wgmma", 64)))
    assert amd.compiler == Compiler("hip", "gfx942", 64, stand_in=False)
    assert (amd.registers, amd.matrix) == (512, (("mfma", 1),))
    assert ilu.compiler == Compiler("cuda", 80, 32, stand_in=True)  # whose warps are its own
    assert shipped.targets["portable"].compiler is None


def test_entries_are_found_by_symbol_and_layers_by_their_spec(shipped: Manifest) -> None:
    assert len(shipped.by_symbol) == len(shipped.entries)
    assert all(shipped.by_symbol[entry.symbol] is entry for entry in shipped.entries)
    specs = {"w4": "w4a8", "w8": "w8a8"}
    for name, layer in shipped.layers.items():
        assert layer.spec == specs[name.removeprefix("layer_")[:2]], name


@pytest.mark.parametrize("text", ["def broken(", "x = 1\n"])
def test_a_module_without_its_kernel_is_refused(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "generated"
    shutil.copytree(default_directory(), folder)
    entry = load(folder).entries[0]
    entry.path.write_text(text)
    with pytest.raises(BuildError, match=r"is damaged: .*; run `python -m generator build`"):
        _ = entry.kernel


@pytest.mark.parametrize("start", ["tokens", "rows"])
@pytest.mark.parametrize("plan", ["separate", "folded"])
def test_workspaces_hold_the_values_that_the_layer_contract_states(
    shipped: Manifest, plan: str, start: str
) -> None:
    """The manifest says what stands between the stages; the buffers are exactly that, without the
    codes of an activation that no kernel of the plan writes.
    """
    sizes = {"rows": 30, "H": 512, "I": 1280, "ceil(rows / 256)": 1, "experts": 8}
    absent = {"output"} | ({"activation_codes", "activation_scale"} if plan == "folded" else set())
    absent |= {"expert_output", "chunk_count"} if start == "rows" else set()
    for layer in shipped.layers.values():
        problem = LayerProblem(
            layer.name, start, 30, 512, 1280, 8, ("portable",), interpreted=True, plan=plan
        )
        chosen = select_layer(problem, shipped)
        made = buffers(problem, layer, chosen.block_m, chosen.stages)
        stated = {}
        for name in layer.values.keys() - absent:
            dtype, _, shape = layer.values[name].partition(" ")
            want = tuple(sizes[each] for each in shape.strip("[]").split(", "))
            stated[name] = (f"torch.{dtype}", want)
        assert stated == {name: (str(made[name].dtype), made[name].shape) for name in stated}
        assert not absent & made.keys()
        rest = {each.dtype for name, each in made.items() if name not in stated}
        assert rest == {torch.int32}


def test_rows_that_are_widened_have_buffers_for_it(shipped: Manifest) -> None:
    layer = shipped.layer("layer_w8gn_a8_swiglu_bf16_v1")
    problem = LayerProblem(
        layer.name, "tokens", 30, 512, 1280, 8, ("portable",), interpreted=True, widened=15
    )
    chosen = select_layer(problem, shipped)
    made = buffers(problem, layer, chosen.block_m, chosen.stages)
    assert made["hidden_wide"] == made["output_wide"] == Buffer((15, 512), torch.bfloat16)
