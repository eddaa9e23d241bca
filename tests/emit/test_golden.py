"""One module of each template and epilogue, kept to be read; every other module is covered by
rules. `pytest tests/emit/test_golden.py --update-golden` rewrites them.
"""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from generator.emit.render import Renderer
from generator.lower.contract import Contract
from generator.lower.design import Design
from generator.lower.layer_contract import all_layers, plans
from generator.lower.variant import Variant
from generator.spec.load import load
from generator.spec.model import SpecSet

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
COMMAND = "pytest tests/emit/test_golden.py --update-golden"

# Designs are fixed here, so that another ranking rewrites nothing.
ROWS = Design(block_m=2, block_k=1024, warps=4, stages=1, row="steps")
WHOLE = Design(block_m=2, block_k=1024, warps=4, stages=1, row="whole")
SORT = Design(block_m=1024, block_n=1024, warps=4, stages=1)


def gemm(
    m: int,
    n: int,
    k: int,
    warps: int,
    stages: int,
    *,
    dot: str = "int8",
    unpack: str = "none",
    tail: str = "none",
    offsets: str = "int32",
    operands: str = "rows_first",
    gates: str | None = None,
    order: str = "tiles",
    roles: str | None = None,
) -> Design:
    return Design(
        block_m=m,
        block_n=n,
        block_k=k,
        warps=warps,
        stages=stages,
        dot=dot,
        unpack=unpack,
        tail=tail,
        offsets=offsets,
        operands=operands,
        gates=gates,
        order=order,
        roles=roles,
    )


SPECIALIZED = {"offsets": "int64", "operands": "weights_first", "roles": "specialized"}
NARROW = gemm(32, 64, 128, 4, 2)
DEEP = gemm(64, 64, 128, 4, 4)
ANY_LAYER = {"tail": "any", "offsets": "int64"}
CASES = {
    "up_channel": ("up_w8gn_a8_swiglu_bf16_v1", "sm_90", DEEP),
    "up_channel_device_fp32": ("up_w8gn_a8_swiglu_fp32_gatebf16_expdevice_v1", "sm_90", DEEP),
    "up_g128": ("up_w8g128_a8_swiglu_bf16_v1", "sm_90", DEEP),
    "up_g320_looped": ("up_w8g320_a8_swiglu_bf16_v1", "sm_90", DEEP),
    "up_amax": ("up_w8g128_a8_swiglu_bf16_amax_v1", "sm_90", NARROW),
    "up_channel_fp16_chunks": (
        "up_w8gn_a8_swiglu_bf16_v1",
        "ilu",
        gemm(16, 32, 128, 4, 2, dot="fp16_exact", **ANY_LAYER),
    ),
    "up_int4_pairs_ptx": (
        "up_w4g128_a8_swiglu_bf16_v1",
        "sm_90",
        gemm(16, 64, 128, 4, 3, unpack="ptx"),
    ),
    "up_int4_pairs_ptx_swapped_joined": (
        "up_w4g128_a8_swiglu_bf16_v1",
        "sm_90",
        gemm(
            *(16, 32, 128, 4, 2),
            unpack="ptx",
            operands="weights_first",
            gates="joined",
            order="blocks",
        ),
    ),
    "up_specialized_channel": (
        "up_w8gn_a8_swiglu_bf16_v1",
        "sm_90",
        gemm(256, 64, 128, 8, 4, gates="joined", order="blocks", **SPECIALIZED),
    ),
    "up_specialized_pingpong": (
        "up_w8gn_a8_swiglu_bf16_v1",
        "sm_90",
        gemm(
            *(128, 64, 128, 8, 4),
            gates="joined",
            order="columns",
            **(SPECIALIZED | {"roles": "pingpong"}),
        ),
    ),
    "down_specialized_pingpong": (
        "down_w8gn_a8_bf16_v1",
        "sm_90",
        gemm(64, 128, 128, 8, 6, **(SPECIALIZED | {"roles": "pingpong"})),
    ),
    "up_specialized_amax_pairs": (
        "up_w4g128_a8_swiglu_bf16_amax_v1",
        "sm_90",
        gemm(128, 64, 128, 8, 4, unpack="ptx", gates="joined", **SPECIALIZED),
    ),
    "down_specialized_g128": (
        "down_w8g128_a8_bf16_v1",
        "sm_90",
        gemm(128, 128, 128, 8, 5, order="columns", **SPECIALIZED),
    ),
    "down_specialized_int4_g320_any_layer": (
        "down_w4g320_a8_bf16_v1",
        "sm_90",
        gemm(128, 128, 32, 8, 4, unpack="ptx", tail="any", order="columns", **SPECIALIZED),
    ),
    "down_specialized_g320_any_layer": (
        "down_w8g320_a8_bf16_v1",
        "sm_90",
        gemm(128, 128, 64, 8, 4, tail="any", order="columns", **SPECIALIZED),
    ),
    "down_specialized_int4_channel": (
        "down_w4gn_a8_bf16_v1",
        "sm_90",
        gemm(128, 128, 128, 8, 4, unpack="ptx", order="columns", **SPECIALIZED),
    ),
    "down_specialized_g256": (
        "down_w8g256_a8_bf16_v1",
        "sm_90",
        gemm(128, 128, 128, 8, 5, order="columns", **SPECIALIZED),
    ),
    "down_g320_swapped": (
        "down_w8g320_a8_bf16_v1",
        "sm_90",
        gemm(16, 64, 128, 4, 2, operands="weights_first", order="columns"),
    ),
    "down_g320_unrolled": ("down_w8g320_a8_bf16_v1", "portable", NARROW),
    "down_g128_any_layer": (
        "down_w8g128_a8_bf16_v1",
        "portable",
        gemm(32, 64, 128, 4, 2, **ANY_LAYER),
    ),
    "down_g128_rank1": ("down_w8g128_a8_bf16_v1", "portable", gemm(32, 64, 1, 4, 2, dot="rank1")),
    "down_int4_g320_fp16": (
        "down_w4g320_a8_bf16_v1",
        "ilu",
        gemm(16, 64, 128, 4, 2, dot="fp16_exact", unpack="value", **ANY_LAYER),
    ),
    "down_int4_pairs_any_layer": (
        "down_w4g128_a8_bf16_v1",
        "portable",
        gemm(32, 64, 64, 4, 2, unpack="shift", **ANY_LAYER),
    ),
    "down_int4_channel_any_layer": (
        "down_w4gn_a8_bf16_v1",
        "portable",
        gemm(32, 64, 128, 4, 2, unpack="shift", **ANY_LAYER),
    ),
    "down_int4_g512_rank1": (
        "down_w4g512_a8_bf16_v1",
        "portable",
        gemm(32, 64, 1, 4, 2, dot="rank1", unpack="value"),
    ),
    "down_requantizes": (
        "down_w8g128_a8_bf16_requantbf16_away_v1",
        "sm_90",
        gemm(16, 64, 64, 4, 3),
    ),
    "quantize_even_sorted": ("quantize_a8_bf16_v1", "portable", ROWS),
    "quantize_away_gather": ("quantize_a8_bf16_gather_away_v1", "portable", ROWS),
    "quantize_whole": ("quantize_a8_bf16_v1", "portable", WHOLE),
    "requantize_fp32": ("requantize_a8_fp32_v1", "portable", ROWS),
    "combine": ("combine_bf16_v1", "portable", Design(block_n=256, warps=4, stages=1)),
    "count": ("count_v1", "portable", Design(block_n=128, warps=4, stages=1)),
    "dispatch": (
        "dispatch_a8_bf16_v1",
        "portable",
        Design(block_m=1024, block_n=128, block_k=2048, warps=4, stages=1),
    ),
    "route_ids": ("route_ids_v1", "portable", SORT),
    "route_counts": ("route_counts_v1", "portable", SORT),
}


@pytest.fixture(scope="module")
def loaded() -> SpecSet:
    return load(ROOT / "specs")


@pytest.fixture(scope="module")
def contracts(loaded: SpecSet) -> dict[str, Contract]:
    every_plan = [
        plan for spec in loaded.specs for layer in all_layers(spec) for plan in plans(spec, layer)
    ]
    return {contract.name: contract for plan in every_plan for contract in plan.contracts}


@pytest.mark.parametrize("name", CASES)
def test_module_is_as_it_was_read(
    name: str, loaded: SpecSet, contracts: dict[str, Contract], request: pytest.FixtureRequest
) -> None:
    contract, target_name, design = CASES[name]
    [target] = (each for each in loaded.targets if each.name == target_name)
    variant = Variant(contracts[contract], design, target, loaded.specs[0].limits)
    text = Renderer(ROOT / "templates").module(variant)
    path = GOLDEN / f"{name}.py.txt"
    if request.config.getoption("--update-golden"):
        path.write_text(text, encoding="utf-8")
    golden = path.read_text(encoding="utf-8") if path.exists() else ""
    if golden != text:
        change = difflib.unified_diff(
            golden.splitlines(), text.splitlines(), path.name, "emitted", lineterm=""
        )
        pytest.fail("\n".join([*change, "", f"if this is meant: {COMMAND}"]), pytrace=False)


def test_every_golden_file_is_compared() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {f"{name}.py.txt" for name in CASES}
