"""What follows from a design: its name, its walk, what it asks of a call, and what it takes."""

from __future__ import annotations

import pytest

from generator.lower.program import Program
from generator.lower.variant import Count, Design, Variant
from generator.lower.walk import Advance, Plane, Tail, Tile
from tests.lower.conftest import LIMITS, TARGET, changed, contract, gemm

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
    row = gemm(group=512, n=32, k=128, stages=2)
    assert row.walk.repeat == 0
    assert row.shared_bytes == 2 * 512 * (32 + 16)
    tight = gemm(group=512, n=32, k=128, stages=2, shared_memory=row.shared_bytes - 1)
    assert tight.walk.repeat == 4
    assert tight.shared_bytes == 2 * 128 * (32 + 16)


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
    ("variant", "shared"),
    [
        (gemm(k=64), 2 * 64 * (64 + 16)),  # stages, K, columns and rows of a byte
        (gemm("up", k=64), 2 * 64 * (2 * 64 + 16)),  # gate and up
        (gemm(k=64, dot="fp16_exact"), 2 * 64 * (64 + 32) + 64 * 64 * 2),  # and columns in fp16
        (gemm(k=64, plan="folded"), 2 * 64 * (64 + 32)),  # rows in bf16
        # Bytes of two nibbles meet two tiles of rows, and stand once more unpacked.
        (gemm(group=64, k=64, spec="w4a8"), 2 * 64 * (64 + 2 * 16) + 64 * 64 * 2),
        # 128 + 128 with stages, 64 after them once.
        (
            gemm(group=320, k=128, stages=3, m=64, n=128, warps=8),
            (3 * 128 + 64) * (128 + 64),
        ),
    ],
    ids=["int8", "gated", "fp16", "folded", "nibbles", "remainder"],
)
def test_shared_memory_by_hand(variant: Variant, shared: int) -> None:
    assert variant.shared_bytes == shared


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


def test_row_wise_kernels_ask_for_whole_access_units() -> None:
    variant = Variant(contract("quantize"), Design(4, 1, block_m=1, block_k=512), TARGET, LIMITS)
    assert asked(variant) == ["K % 32 == 0", "rows <= 1048576", "K <= 16384", "experts <= 1024"]
    assert variant.counts == (Count("k_units", "K", 32),)
    assert (variant.sum_registers, variant.shared_bytes) == (0, 0)


def test_route_asks_for_no_more_experts_than_bins() -> None:
    few = Variant(contract("route"), Design(4, 1, block_m=64, block_n=128), TARGET, LIMITS)
    assert asked(few) == ["rows * experts < 2**31", "rows <= 1048576", "experts <= 128"]


def test_threads_are_warps_of_the_target() -> None:
    assert gemm(warps=8).threads == 256
    wide = gemm(warps=8, warp_size=64)
    assert (wide.threads, wide.result_registers) == (512, 2)
    assert wide.target == changed(TARGET, warp_size=64)
