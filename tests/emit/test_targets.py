"""Every target is a file and no code: its modules compile for it on a machine that has none."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from generator.aot.check import compile_entries
from generator.aot.jobs import specializes_length
from generator.data import folder
from generator.emit.outputs import outputs
from generator.emit.sync import write
from generator.lower.program import Selection, program
from generator.runtime.entry import Entry
from generator.runtime.manifest import load as load_manifest
from generator.spec.load import load
from generator.spec.model import Target
from tests.emit.compiling import ptx

SHIPPED = load(folder("specs"))
TARGETS = [each for each in SHIPPED.targets if each.compiler != "none"]
CONTRACTS = ("up_w4g128_a8_swiglu_bf16_v1", "down_w8gn_a8_bf16_v1")
LAYERS = ("layer_w4g128_a8_swiglu_bf16*_v1", "layer_w8gn_a8_swiglu_bf16*_v1")
# Of a target that has a stand-in, whose GEMMs nobody else compiles: both plans and either format.
STAND_IN_CONTRACTS = (
    "up_w4g128_a8_swiglu_bf16*_v1",
    "down_w4g128_a8_bf16*_v1",
    "up_w8gn_a8_swiglu_bf16*_v1",
    "down_w8gn_a8_bf16*_v1",
)


def stands_in(target: Target) -> bool:
    """Whether the compiler is that of another device."""
    arch = target.compiler.arch
    return isinstance(arch, int) and target.capability != (arch // 10, arch % 10)


def shortest_and_tallest(own: list[Entry]) -> list[Entry]:
    """Of the designs of each contract, those of the least and of the largest row tile."""
    chosen: dict[str, Entry] = {}
    for contract in dict.fromkeys(entry.contract for entry in own):
        kept = [entry for entry in own if entry.contract == contract]
        for pick in (min, max):
            entry = pick(kept, key=lambda each: each.rows_per_program)
            chosen[entry.symbol] = entry
    return list(chosen.values())


def test_a_shipped_target_has_a_stand_in() -> None:
    assert "ilu" in [each.name for each in TARGETS if stands_in(each)]


@pytest.mark.parametrize("target", TARGETS, ids=lambda each: each.name)
def test_modules_compile_and_pass_the_gates(tmp_path: Path, target: Target) -> None:
    contracts = STAND_IN_CONTRACTS if stands_in(target) else CONTRACTS
    selection = Selection(contracts=LAYERS, targets=("portable", target.name))
    write(tmp_path, outputs(program(SHIPPED, selection), folder("templates")))
    manifest = load_manifest(tmp_path)
    own = [
        entry
        for entry in manifest.entries
        if entry.target == target.name
        and any(fnmatch(entry.contract, pattern) for pattern in contracts)
    ]
    assert {entry.contract for entry in own} >= set(CONTRACTS)
    entries = own if stands_in(target) else shortest_and_tallest(own)
    there = manifest.targets[target.name]
    result = compile_entries(manifest, entries, [there], 1, lambda _: None)
    assert result.compiled == len(entries) * (2 if specializes_length(there) else 1)
    [record] = result.records
    assert record.variants.keys() == {each.symbol for each in entries}  # each of them compiled
    if not stands_in(target):  # whose registers and loads say nothing of the device itself
        assert result.failures == ()


def test_inline_ptx_unpacks_four_bytes_in_three_instructions(tmp_path: Path) -> None:
    """The seed's two copies of the weights are replaced by a shift and two ands in registers."""
    asked = Selection(contracts=("down_w4g128_a8_bf16_v1",), targets=("sm_90",))
    lowered = program(SHIPPED, asked)
    [variant] = [v for plan in lowered.plans for v in plan.kept][:1]
    path = tmp_path / "kernel.py"
    path.write_text(outputs(lowered, folder("templates"))[variant.path], encoding="utf-8")
    made = ptx(path, variant.symbol)
    masks = len(re.findall(r"and\.b32 \S+, \S+, 0xF0F0F0F0", made))
    shifts = len(re.findall(r"shl\.b32 \S+, \S+, 4", made))
    assert masks > 0 and masks == 2 * shifts
