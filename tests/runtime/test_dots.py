"""Targets without int8 dots: fp16 sums in exact chunks, and outer products, give the same bits."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from generator.data import folder
from generator.emit.outputs import outputs
from generator.emit.sync import write
from generator.errors import NoVariantError
from generator.lower.program import Selection, program
from generator.runtime import layer as layer_module
from generator.runtime import reference
from generator.runtime.entry import Entry
from generator.runtime.manifest import Layer, Manifest, load
from generator.runtime.problem import LayerProblem, Problem
from generator.runtime.select import select, select_layer
from generator.runtime.workspace import torch_dtype
from generator.spec.load import load as load_specs
from generator.verify import command
from generator.verify.compare import differing_bits
from generator.verify.stages import Checked, check_stages, check_variants
from tests.runtime.gemms import Operands, operands, run_codes
from tests.runtime.small import small
from tests.shapes import ragged

LAYERS = [
    f"layer_{each}_a8_swiglu_bf16_v1" for each in ("w8gn", "w8g128", "w4g128", "w4g320", "w4gn")
]
DOTS = {"ilu": "fp16_exact", "lab_rank1": "rank1"}
CHUNK = 1024  # 2**24 // (128 * 128): as many products as fp32 adds up exactly
N = 64


def rank1_target(ilu: str) -> str:
    """The shipped example of a user's target, with outer products alone."""
    changes = {
        "name: ilu": "name: lab_rank1",
        "capability: [7, 1]": "capability: [7, 2]",
        "dots: [fp16_exact]": "dots: [rank1]",
        "row_tiles: [16, 64]": "row_tiles: [16]",
        "fp16_exact: 1500000, rank1: none": "fp16_exact: none, rank1: 100000",
    }
    for old, new in changes.items():
        assert ilu.count(old) == 1, old
        ilu = ilu.replace(old, new)
    return ilu


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Portable modules of some layers, and those of two targets that have no int8 dot."""
    root: Path = tmp_path_factory.mktemp("lab")
    shutil.copytree(folder("specs"), root / "specs")
    targets = root / "specs" / "targets"
    (targets / "lab_rank1.yaml").write_text(rank1_target((targets / "ilu.yaml").read_text()))
    selection = Selection(contracts=tuple(LAYERS), targets=("portable", *DOTS))
    write(
        root / "generated",
        outputs(program(load_specs(root / "specs"), selection), folder("templates")),
    )
    return load(root / "generated")


def gemm_entries(
    manifest: Manifest, layer: Layer, operation: str, target: str, plan: str = "separate"
) -> list[Entry]:
    name = next(
        each for each in layer.plan(plan).rows if manifest.contracts[each]["operation"] == operation
    )
    return [each for each in manifest.by_contract[name] if each.target == target]


def test_the_targets_have_the_strategies_they_name(lab: Manifest) -> None:
    assert {each.target for each in lab.entries if each.dot is not None} == {"portable", *DOTS}
    for entry in lab.entries:
        if entry.dot is not None:
            assert entry.dot == DOTS.get(entry.target, "int8")
    fp16 = [each for each in lab.entries if each.dot == "fp16_exact" and "gn" in each.contract]
    for each in fp16:  # a whole row of nibbles as they are is held in fp32
        whole = each.unpack == "value"
        assert ("|row sum| <= " if whole else "|chunk sum| <= ") in (each.proof or "")
    assert {each.unpack == "value" for each in fp16} >= {False}


def assert_same_bits(
    manifest: Manifest, layer: Layer, given: Operands, operation: str, target: str
) -> None:
    """Every design of a target against the portable one and the oracle."""
    n = given.weight.shape[1] // (2 if operation == "up" else 1)
    dtype = torch_dtype(layer.dtype)
    want = given.sums.to(dtype)
    if operation == "up":
        table = reference.exp_table(dtype, given.codes.device)
        want = reference.swiglu(given.sums, dtype, torch_dtype(layer.intermediate), table)
    (portable,) = gemm_entries(manifest, layer, operation, "portable")
    assert differing_bits(run_codes(portable, given, n, want.dtype), want) == 0
    entries = gemm_entries(manifest, layer, operation, target)
    assert entries
    for entry in entries:
        assert differing_bits(run_codes(entry, given, n, want.dtype), want) == 0, entry.name


@pytest.mark.parametrize("target", list(DOTS))
@pytest.mark.parametrize("operation", ["up", "down"])
@pytest.mark.parametrize("name", LAYERS)
def test_gemms_have_the_bits_of_the_int8_ones(
    lab: Manifest, device: torch.device, name: str, operation: str, target: str
) -> None:
    """Codes and weights over their whole range, with rows and columns at both of its ends."""
    layer = lab.layer(name)
    group = layer.up_group if operation == "up" else layer.down_group
    k = ragged(group, 2 if (group or 256) < 256 else 1)
    n = 2 * N if operation == "up" else N
    rows = 4 if target == "lab_rank1" else 19  # outer products are slow under the interpreter
    given = operands(layer, group, k, n, device, rows=rows)
    assert_same_bits(lab, layer, given, operation, target)


@pytest.mark.parametrize("k", [CHUNK - 64, CHUNK, CHUNK + 64, 2 * CHUNK + 192])
@pytest.mark.parametrize("name", ["layer_w8gn_a8_swiglu_bf16_v1", "layer_w4gn_a8_swiglu_bf16_v1"])
def test_fp16_chunks_end_where_fp32_stops_being_exact(
    lab: Manifest, device: torch.device, name: str, k: int
) -> None:
    """All -128 by all -128 reaches 2**24 in a chunk of int8, exactly; longer rows pass it."""
    layer = lab.layer(name)
    given = operands(layer, None, k, N, device, rows=17)
    given.codes[2] = -128
    given.codes[2, k - 1] = -127
    given.codes[3, ::2], given.codes[3, 1::2] = -128, 127
    sums = given.codes[[0, 2]].double() @ given.weight[0, 0].double()
    lowest = {"int8": 128, "int4": 8}[layer.weights]
    assert sums.tolist() == [k * 128 * lowest, (k * 128 - 1) * lowest]
    if layer.weights == "int8":
        assert (sums[0] > 2**24) == (k > CHUNK)
    assert_same_bits(lab, layer, given, "down", "ilu")


def test_outer_products_of_long_rows(lab: Manifest, device: torch.device) -> None:
    layer = lab.layer(LAYERS[0])
    given = operands(layer, None, CHUNK + 64, N, device, rows=5)
    assert_same_bits(lab, layer, given, "down", "lab_rank1")


def has_plan(layer: Layer, target: str, plan: str) -> bool:
    """Whether a target's bands name a plan: one that is slower everywhere is not built for it."""
    return any(plan == each.plan for band in layer.selection[target] for each in band.choices)


@pytest.mark.parametrize("target", list(DOTS))
def test_both_plans_are_built_somewhere(lab: Manifest, target: str) -> None:
    built = {
        plan
        for layer in lab.layers.values()
        for plan in ("separate", "folded")
        if has_plan(layer, target, plan)
    }
    assert built == {"separate", "folded"}


@pytest.mark.parametrize("plan", ["separate", "folded"])
@pytest.mark.parametrize("target", list(DOTS))
@pytest.mark.parametrize("name", LAYERS)
def test_layers_have_the_bits_of_the_int8_ones(
    lab: Manifest, device: torch.device, name: str, target: str, plan: str
) -> None:
    layer = small(
        lab, device, name=name, experts=2, global_experts=2, count=2, hidden=64, intermediate=64
    )
    want = layer.tokens(plan=plan, targets=("portable",))
    if not has_plan(layer.layer, target, plan):
        with pytest.raises(NoVariantError, match=f"by int8, which is not right on {target}"):
            layer.tokens(plan=plan, targets=(target, "portable"))
        return
    got = layer.tokens(plan=plan, targets=(target, "portable"))
    assert {got.choice[each].entry.dot for each in ("up", "down")} == {DOTS[target]}
    assert {want.choice[each].entry.dot for each in ("up", "down")} == {"int8"}
    assert torch.equal(got.out, want.out)
    batch = layer.batch
    checked = Checked(
        layer.packed, layer.layer, got, batch.hidden, ids=batch.ids, weights=batch.weights
    )
    assert not [each for each in check_stages(checked) if each.different]


def test_verify_runs_no_dot_that_is_not_right_on_the_device(
    lab: Manifest, device: torch.device
) -> None:
    layer = small(lab, device, name=LAYERS[1], hidden=64, intermediate=64, count=3)
    run, batch = layer.tokens(targets=("ilu", "portable")), layer.batch
    checked = Checked(
        layer.packed, layer.layer, run, batch.hidden, ids=batch.ids, weights=batch.weights
    )
    results = list(check_variants(checked, lab))
    gemms = {each.variant.split("/")[0] for each in results if each.stage in ("up", "down")}
    assert gemms == {"ilu"} and not [each for each in results if each.different]


def test_verify_takes_the_plans_that_the_device_has(
    lab: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device without int8 dots has no portable GEMM to fall back on, so a plan may have no module
    here: it is named, not run, and not one of the others is taken for it.
    """
    name = "layer_w4g128_a8_swiglu_bf16_v1"
    folded = {each for each in lab.layer(name).plan("folded").rows if "_amax_" in each}
    entries = tuple(
        each for each in lab.entries if (each.contract, each.target) not in {(*folded, "ilu")}
    )
    bands = {key: each for key, each in lab.bands.items() if key != (*folded, "ilu")}
    assert len(entries) < len(lab.entries) and len(bands) < len(lab.bands)
    without = replace(lab, entries=entries, bands=bands, choices={}, logged=set())
    monkeypatch.setattr(command, "load", lambda _: without)
    for module in (command, layer_module):
        monkeypatch.setattr(module, "targets_for", lambda *_: ("ilu", "portable"))
    lines: list[str] = []
    code = command.verify(
        shape="experts=1,global_experts=1,top_k=1,hidden=128,intermediate=128,tokens=1",
        contract=name,
        generated=lab.directory,
        everything=True,
        seed=0,
        say=lines.append,
    )
    assert code == 0 and "  plan folded has no modules here" in lines
    assert [each for each in lines if "plan separate: asked for" in each]
    gemms = [each for each in lines if each.split() and each.split()[0] in ("up", "down")]
    assert gemms and all(" ilu/" in each for each in gemms)


def test_a_target_without_int8_refuses_portable_int8_gemms(lab: Manifest) -> None:
    """The example of mojo_opset #343: its int8 dot is wrong, so no call may reach one."""
    contract = "up_w8gn_a8_swiglu_bf16_v1"
    problem = Problem(contract, 10, 80, 64, 4, ("ilu", "portable"))
    with pytest.raises(NoVariantError) as caught:
        select(problem, lab)
    told = str(caught.value).splitlines()
    portable = [each for each in told if f"{contract} portable/" in each]
    what = "multiplies by int8, which is not right on ilu; "
    fix = "python -m generator build --target portable --target ilu --out DIR"
    assert any(what + fix in each for each in portable)
    assert any("N = 80 is no multiple of 64" in each for each in told if " ilu/" in each)


def test_the_shipped_modules_refuse_a_device_without_int8(shipped: Manifest) -> None:
    """The manifest knows the target and holds none of its modules: nothing is launched."""
    assert "ilu" in shipped.targets and not [e for e in shipped.entries if e.target == "ilu"]
    for plan in (None, "separate", "folded"):
        problem = LayerProblem(
            LAYERS[0], "tokens", 10, 64, 64, 4, ("ilu", "portable"), interpreted=True, plan=plan
        )
        with pytest.raises(NoVariantError, match="multiplies by int8, which is not right on ilu"):
            select_layer(problem, shipped)
