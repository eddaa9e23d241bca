"""What follows from a design: its name, its walk, what it asks of a call, and what it takes."""

from __future__ import annotations

import pytest

from generator.lower.design import Design
from generator.lower.program import Program
from generator.lower.registers import RESERVES
from generator.lower.variant import BARRIERS, Count, Variant
from generator.lower.walk import Advance, Plane, Tail, Tile
from generator.spec.model import MatrixUnit
from tests.lower.conftest import LIMITS, MFMA, TARGET, TARGETS, WGMMA, changed, contract, gemm

MMA = TARGET.matrix
TCGEN05 = (MatrixUnit(name="tcgen05", block_m=64),)
RESULTS = 16 * 64 * 2  # bytes of bf16, of the smallest tile below
TILE = {"block_m": 16, "block_n": 128, "block_k": 256}


@pytest.mark.parametrize(
    ("design", "name"),
    [
        (Design(4, 3, **TILE), "m16n128k256_w4s3"),
        (Design(1, 1, block_n=64), "n64_w1s1"),
        (
            Design(4, 3, **TILE, dot="int8", unpack="none", tail="none", offsets="int32"),
            "m16n128k256_w4s3",
        ),
        (Design(4, 3, **TILE, dot="fp16_exact"), "m16n128k256_w4s3_fp16"),
        (Design(4, 3, **TILE, dot="rank1"), "m16n128k256_w4s3_rank1"),
        (Design(4, 3, **TILE, unpack="value"), "m16n128k256_w4s3_value"),
        (
            Design(4, 3, **TILE, dot="fp16_exact", unpack="ptx", tail="any", offsets="int64"),
            "m16n128k256_w4s3_fp16_ptx_tail_wide",
        ),
        (
            Design(4, 3, **TILE, operands="rows_first", gates="apart", order="tiles"),
            "m16n128k256_w4s3",
        ),
        (
            Design(4, 3, **TILE, tail="any", operands="weights_first", gates="joined"),
            "m16n128k256_w4s3_tail_swap_joined",
        ),
        (
            Design(4, 3, **TILE, operands="weights_first", order="columns"),
            "m16n128k256_w4s3_swap_columns",
        ),
        (Design(4, 3, **TILE, order="blocks"), "m16n128k256_w4s3_blocks"),
        (Design(4, 1, block_m=1, block_k=512, row="steps"), "m1k512_w4s1"),
        (Design(4, 1, block_m=1, block_k=512, row="whole"), "m1k512_w4s1_whole"),
    ],
)
def test_name_tells_tiles_and_what_departs_from_the_usual(design: Design, name: str) -> None:
    assert design.name == name


def test_no_two_kept_variants_share_a_symbol_or_a_path(built: Program) -> None:
    kept = [variant for plan in built.plans for variant in plan.kept]
    assert len({variant.symbol for variant in kept}) == len(kept)
    assert len({variant.path for variant in kept}) == len(kept)


def asked(variant: Variant) -> list[str]:
    return [str(each) for each in variant.requires]


BOUNDS = ["rows <= 1048576", "K <= 16384", "N <= 65536", "experts <= 1024"]


@pytest.mark.parametrize(
    ("variant", "own"),
    [
        (
            gemm(group=320, k=64),
            ["K % 320 == 0", "rows * K < 2**31", "N % 64 == 0", "rows * N < 2**31"],
        ),
        (
            gemm(group=320, k=64, tail="any"),
            ["K % 64 == 0", "rows * K < 2**31", "N % 64 == 0", "rows * N < 2**31"],
        ),
        (gemm(group=320, k=64, tail="any", offsets="int64"), ["K % 64 == 0", "N % 64 == 0"]),
        (gemm(k=128, offsets="int64"), ["K % 128 == 0", "N % 64 == 0"]),
        (gemm(group=64, k=32, offsets="int64", spec="w4a8"), ["K % 128 == 0", "N % 64 == 0"]),
        (gemm(k=32, offsets="int64", spec="w4a8"), ["K % 256 == 0", "N % 64 == 0"]),
        # A tail that cannot occur loosens nothing.
        (gemm(k=64, tail="any", offsets="int64"), ["K % 64 == 0", "N % 64 == 0"]),
    ],
    ids=lambda each: each.design.name if isinstance(each, Variant) else None,
)
def test_call_must_fit_the_turns_and_the_width_of_offsets(variant: Variant, own: list[str]) -> None:
    assert asked(variant) == own + BOUNDS


def test_up_accepts_half_of_the_stacked_columns() -> None:
    assert "N <= 32768" in asked(gemm("up"))


@pytest.mark.parametrize(
    ("variant", "counts"),
    [
        (gemm(k=128), [("n_tiles", "N", 64), ("k_tiles", "K", 128)]),
        (gemm(group=320), [("n_tiles", "N", 64), ("groups", "K", 320)]),
        (gemm(group=320, tail="any"), [("n_tiles", "N", 64), ("k_units", "K", 64)]),
        (gemm(group=64, k=32, spec="w4a8"), [("n_tiles", "N", 64), ("group_pairs", "K", 128)]),
        (gemm(group=320, k=32, spec="w4a8"), [("n_tiles", "N", 64), ("groups", "K", 320)]),
        (gemm(k=32, spec="w4a8"), [("n_tiles", "N", 64), ("k_blocks", "K", 256)]),
        (
            gemm(group=64, k=32, tail="any", spec="w4a8"),
            [("n_tiles", "N", 64), ("k_units", "K", 64)],
        ),
    ],
    ids=lambda each: each.design.name if isinstance(each, Variant) else None,
)
def test_counts_are_in_units_that_the_module_multiplies_back(
    variant: Variant, counts: list[tuple[str, str, int]]
) -> None:
    assert variant.counts == tuple(Count(*each) for each in counts)


def test_group_of_a_few_tiles_is_unrolled_and_a_longer_one_looped() -> None:
    assert gemm(group=320, k=128).walk.repeat == 0  # 128 + 128 + 64
    assert gemm(group=512, k=128, n=32).walk.repeat == 0  # four dots
    assert gemm(group=1024, k=128).walk.repeat == 8
    assert gemm(group=256, k=64, spec="w4a8").walk.repeat == 0  # two tiles of two planes
    assert gemm(group=256, k=32, spec="w4a8").walk.repeat == 4


def test_group_that_does_not_fit_shared_memory_at_once_is_looped() -> None:
    row = gemm(group=512, n=32, k=128, stages=3)
    assert row.walk.repeat == 0
    whole = 2 * 512 * (32 + 16)  # copies, K, columns and rows of a byte
    rest = 2 * 32 * 2 + RESULTS // 2 + BARRIERS  # scales in flight, half as many results
    assert row.shared_bytes == whole + rest
    tight = gemm(group=512, n=32, k=128, stages=3, shared_memory=whole - 1)
    assert tight.walk.repeat == 4
    assert tight.shared_bytes == 2 * 128 * (32 + 16) + rest


def test_group_longer_than_a_chunk_is_looped_so_that_it_can_be_cut() -> None:
    assert gemm(group=2048, k=512, shared_memory=2**20).walk.repeat == 0
    chunked = gemm(group=2048, k=512, dot="fp16_exact", shared_memory=2**20)
    assert (chunked.walk.repeat, chunked.chunk_turns) == (4, 2)


def test_outer_products_walk_one_element_a_turn() -> None:
    walk = gemm(group=128, k=1, dot="rank1").walk
    assert (walk.unit_k, walk.repeat, walk.step) == (128, 128, Advance(1, 1))
    assert walk.repeated == (Tile(0, 1, (Plane(0, 0),)),)
    assert gemm(k=1, dot="rank1").walk.unit_k == 1
    planes = gemm(group=128, k=1, dot="rank1", spec="w4a8").walk
    assert planes.repeated == (Tile(0, 1, (Plane(0, 0), Plane(128, 1))),)
    assert (planes.unit_k, planes.repeat) == (256, 128)


def test_outer_products_hold_nothing_in_shared_memory() -> None:
    assert gemm(k=1, dot="rank1").shared_bytes == 0


def test_tail_is_walked_where_the_design_says_so_and_turns_leave_one() -> None:
    assert gemm(group=320).tail is None
    assert gemm(group=320).possible_tail == Tail(64, 1, 320, False, 64, 256)
    assert gemm(group=320, tail="any").tail == Tail(64, 1, 320, False, 64, 256)
    assert gemm(k=64, tail="any").tail is None
    assert gemm(k=1, dot="rank1", tail="any").possible_tail is None
    pairs = gemm(group=128, k=32, tail="any", spec="w4a8")
    assert pairs.tail == Tail(32, 2, 128, True, 64, 192)


@pytest.mark.parametrize(
    ("variant", "tiles"),
    [
        (gemm(k=64), 64 * (64 + 16)),  # K, columns and rows of a byte; one of two stages in flight
        (gemm(k=64, stages=1), 64 * (64 + 16)),
        (gemm(k=64, stages=4), 3 * 64 * (64 + 16)),
        # wgmma reads all stages from there, mma what it has loaded into registers before.
        (gemm(m=64, k=64, matrix=MMA), 64 * (64 + 64)),
        (gemm(m=64, k=64, matrix=WGMMA), 2 * 64 * (64 + 64)),
        (gemm(m=32, k=64, matrix=WGMMA), 64 * (64 + 32)),  # too few rows for it
        (gemm("up", k=64), 64 * (2 * 64 + 16)),  # gate and up
        (gemm(k=64, dot="fp16_exact"), 64 * (64 + 32) + 64 * 64 * 2),  # and columns in fp16
        (gemm(k=64, plan="folded"), 64 * (64 + 32)),  # rows in bf16
        # Bytes of two nibbles meet two tiles of rows; a pair of groups has two scales.
        (gemm(group=64, k=64, spec="w4a8"), 64 * (64 + 2 * 16) + 2 * 64 * 2),
        # The same and once more unpacked, for wgmma.
        (
            gemm(group=64, m=64, k=64, spec="w4a8", matrix=WGMMA),
            2 * 64 * (64 + 2 * 64) + 2 * 64 * 64 + 2 * 2 * 64 * 2,
        ),
        # 128 + 128 with stages, 64 after them once; scales in flight.
        (
            gemm(group=320, k=128, stages=3, m=64, n=128, warps=8),
            (2 * 128 + 64) * (128 + 64) + 2 * 128 * 2,
        ),
        # 128 + 128 + 64 at once, and a loop over a tail by 64.
        (gemm(group=320, k=128, tail="any"), (320 + 64) * (64 + 16) + 64 * 2),
        # The tail of nibbles has no stages.
        (gemm(group=320, k=32, tail="any", spec="w4a8"), 32 * (64 + 2 * 16) + 64 * 2),
    ],
    ids=[
        "int8",
        "one stage",
        "stages",
        "mma",
        "wgmma",
        "few rows",
        "gated",
        "fp16",
        "folded",
        "nibbles",
        "nibbles of wgmma",
        "remainder",
        "tail",
        "tail of nibbles",
    ],
)
def test_shared_memory_by_hand(variant: Variant, tiles: int) -> None:
    design = variant.design
    assert design.block_m is not None and design.block_n is not None
    results = design.block_m * design.block_n * 2  # of bf16
    assert variant.shared_bytes == tiles + results + BARRIERS


@pytest.mark.parametrize(
    ("block_m", "matrix", "families"),
    [
        (128, MMA, ("mma",)),
        (32, WGMMA, ("mma",)),
        (64, WGMMA, ("wgmma",)),
        (128, WGMMA, ("wgmma",)),
        (16, MFMA, ("mfma",)),
        (128, MMA + MFMA, ("mma", "mfma")),  # a target that stands for devices of both
        (128, WGMMA + TCGEN05, ("wgmma", "tcgen05")),
        (32, WGMMA + TCGEN05, ("mma",)),
    ],
)
def test_rows_decide_the_family_of_matrix_instructions(
    block_m: int, matrix: tuple[MatrixUnit, ...], families: tuple[str, ...]
) -> None:
    variant = gemm(m=block_m, matrix=matrix)
    assert variant.matrix == families
    assert variant.reads_shared == bool({"wgmma", "tcgen05"} & set(families))


def test_the_most_demanding_of_several_families_is_foretold() -> None:
    by_family = {
        name: gemm(m=64, matrix=matrix).registers
        for name, matrix in (("mma", MMA), ("mfma", MFMA), ("both", MMA + MFMA))
    }
    assert by_family["both"] == by_family["mfma"] != by_family["mma"]


@pytest.mark.parametrize(
    ("variant", "held", "operands", "reserve"),
    [
        # Half of (rows + columns) * K bytes in registers of four, shared by 128 threads.
        (gemm(k=64), 8, 80 * 64 // 4 // 128 // 2, ("mma", "plain", "none")),
        # Two bytes an element, and chunks beside what they are added up in.
        (gemm(k=64, dot="fp16_exact"), 16, 80 * 64 // 2 // 128 // 2, ("mma", "plain", "none")),
        (gemm("up", k=64), 16, 144 * 64 // 4 // 128 // 2, ("mma", "gated", "none")),
        (gemm(k=64, plan="folded"), 8, 80 * 64 // 4 // 128 // 2, ("mma", "requantizing", "none")),
        # 128 + 128 + 64 in one turn: the widest tile, and two dots more.
        (gemm(group=320, k=128), 16, 80 * 128 // 4 // 128 // 2 + 2 * 8, ("mma", "plain", "none")),
        # Two planes, hence two dots, and two sums beside what they are scaled into.
        (
            gemm(group=64, k=64, spec="w4a8", unpack="value"),
            24,
            80 * 64 * 2 // 4 // 128 // 2 + 8,
            ("mma", "plain", "value"),
        ),
        (gemm(m=64, k=64, matrix=WGMMA), 32, 128 * 64 // 4 // 128 // 2, ("wgmma", "plain", "none")),
        (
            gemm("up", 64, m=64, k=64, spec="w4a8", unpack="ptx", matrix=WGMMA),
            192,
            192 * 64 * 2 // 4 // 128 // 2 + 8,
            ("wgmma", "gated", "ptx"),
        ),
        # 256 threads.
        (
            gemm(k=64, warp_size=64, matrix=MFMA),
            4,
            80 * 64 // 4 // 256 // 2,
            ("mfma", "plain", "none"),
        ),
    ],
    ids=["int8", "fp16", "gated", "folded", "dots", "planes", "wgmma", "gated of wgmma", "mfma"],
)
def test_registers_by_hand(
    variant: Variant, held: int, operands: int, reserve: tuple[str, str, str]
) -> None:
    family, kind, unpack = reserve
    need = variant.registers
    assert need is not None
    assert (need.held, need.operands) == (held, operands)
    assert need.reserve == RESERVES[family][kind][unpack]
    assert need.beside == operands + need.reserve
    assert need.needed == held + need.beside


@pytest.mark.parametrize(
    ("variant", "limit"),
    [
        (gemm(), 255),  # of a thread
        (gemm(warps=16), 65536 // 512),  # of a processor, by its threads
        (gemm(plan="folded"), 168),  # what a call leaves
        (gemm(plan="folded", warps=16), 128),
    ],
    ids=["thread", "processor", "call", "both"],
)
def test_limit_of_a_thread_is_the_least_of_what_bounds_it(variant: Variant, limit: int) -> None:
    assert variant.registers is not None
    assert variant.registers.limit == limit


def test_every_family_has_a_reserve_for_each_unpacking_of_its_targets() -> None:
    named = {unit.name for target in TARGETS.values() for unit in target.matrix}
    assert named == set(RESERVES)
    for target in TARGETS.values():
        for unit in target.matrix:
            for reserves in RESERVES[unit.name].values():
                assert set(target.unpacks) <= set(reserves), (target.name, unit.name)


@pytest.mark.parametrize(
    ("variant", "sums", "results"),
    [
        (gemm(m=64), 32, 32),  # 64 * 64 / 128 threads
        (gemm(m=64, group=128), 64, 32),  # int32 of a group beside fp32
        (gemm(m=64, dot="fp16_exact"), 64, 32),  # chunks are added up in int32
        (gemm(m=64, k=64, group=64, spec="w4a8"), 96, 32),  # a pair of groups
        (gemm("up", m=64), 64, 64),
    ],
    ids=["channel", "group", "chunks", "pair", "gated"],
)
def test_registers_of_sums_by_hand(variant: Variant, sums: int, results: int) -> None:
    assert (variant.sum_registers, variant.result_registers) == (sums, results)


@pytest.mark.parametrize(("row", "longest"), [("steps", 16384), ("whole", 512)])
def test_row_wise_kernels_ask_for_whole_access_units(row: str, longest: int) -> None:
    """And, where a row is held whole, for one that is."""
    design = Design(4, 1, block_m=1, block_k=512, row=row)
    variant = Variant(contract("quantize"), design, TARGET, LIMITS)
    bounds = ["rows <= 1048576", f"K <= {longest}", "experts <= 1024"]
    assert asked(variant) == ["K % 32 == 0", *bounds]
    assert variant.longest_row == longest
    assert variant.counts == (Count("k_units", "K", 32),)
    assert (variant.sum_registers, variant.shared_bytes, variant.registers) == (0, 0, None)


def test_a_whole_row_is_no_longer_than_the_limits() -> None:
    design = Design(4, 1, block_m=1, block_k=32768, row="whole")
    assert Variant(contract("quantize"), design, TARGET, LIMITS).longest_row == 16384


@pytest.mark.parametrize(("bins", "most"), [(128, 128), (2048, 1024)])
@pytest.mark.parametrize("operation", ["count", "route"])
def test_routing_asks_for_no_more_experts_than_bins(operation: str, bins: int, most: int) -> None:
    variant = Variant(contract(operation), Design(4, 1, block_m=64, block_n=bins), TARGET, LIMITS)
    assert asked(variant) == ["rows * experts < 2**31", "rows <= 1048576", f"experts <= {most}"]
    assert variant.counts == ()


def test_dispatch_asks_for_rows_that_a_program_holds_and_experts_that_bins_do() -> None:
    design = Design(4, 1, block_m=1024, block_n=128, block_k=2048)
    variant = Variant(contract("dispatch", plan="dispatched"), design, TARGET, LIMITS)
    whole, bounds = ["K % 32 == 0", "rows * experts < 2**31"], ["rows <= 1048576", "K <= 2048"]
    assert asked(variant) == [*whole, *bounds, "experts <= 128"]
    assert variant.counts == (Count("k_units", "K", 32),)


def test_combine_masks_its_last_columns() -> None:
    variant = Variant(contract("combine"), Design(4, 1, block_n=512), TARGET, LIMITS)
    assert asked(variant) == ["N % 32 == 0", "rows <= 1048576", "N <= 65536"]
    assert variant.counts == (Count("n_units", "N", 32),)


def test_threads_are_warps_of_the_target() -> None:
    assert gemm(warps=8).threads == 256
    wide = gemm(warps=8, warp_size=64)
    assert (wide.threads, wide.result_registers) == (512, 2)
    assert wide.target == changed(TARGET, warp_size=64)
