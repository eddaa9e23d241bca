"""The count and route kernels against a stable sort, and the bound on row tiles."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.packing import CHUNK
from generator.runtime import interpreter, launch, reference
from generator.runtime.device import current
from generator.runtime.entry import Entry
from generator.runtime.manifest import load
from generator.runtime.workspace import tile_bound
from generator.verify.compare import differing_bits

DEVICE = torch.device("cpu" if interpreter.active() else "cuda")

splits = st.lists(st.integers(0, 200), min_size=1, max_size=20)


@given(splits, st.sampled_from([16, 32, 64, 128]))
def test_the_bound_holds_for_every_split(counts: list[int], block_m: int) -> None:
    needed = sum(-(-count // block_m) for count in counts)
    assert needed <= tile_bound(sum(counts), len(counts), block_m)


@given(st.integers(1, 40), st.integers(1, 500), st.sampled_from([16, 64]))
def test_the_bound_is_reached(owners: int, rows: int, block_m: int) -> None:
    """One row each, and the rest in whole tiles for the first: no smaller grid would do."""
    used = min(owners, rows)
    counts = [1 + rows - used, *[1] * (used - 1)]
    assert sum(-(-count // block_m) for count in counts) == tile_bound(rows, owners, block_m)


def buffers(rows: int, tiles: int, experts: int = 1) -> dict[str, torch.Tensor]:
    sizes: dict[str, tuple[int, ...]] = {"chunk_count": (-(-rows // CHUNK), experts)}
    sizes |= dict.fromkeys(("slot_row", "row_slot", "row_expert", "row_amax"), (rows,))
    sizes |= dict.fromkeys(("tile_expert", "tile_start", "tile_end"), (tiles,))
    return {
        name: torch.full(size, -99, dtype=torch.int32, device=DEVICE)
        for name, size in sizes.items()
    }


def entries(contract: str, experts: int) -> list[Entry]:
    """Those that take so many experts."""
    sizes = {"rows": 1, "experts": experts}
    found = load().by_contract[contract]
    return [each for each in found if all(one.holds(sizes) for one in each.requires)]


def sorted_ids(
    ids: torch.Tensor, experts: int, first: int, block_m: int, rank: int = 0
) -> dict[str, torch.Tensor]:
    """What both kernels write, each held against the oracle; `rank` of the entries in order."""
    rows = ids.numel()
    tiles = tile_bound(rows, experts + 1, block_m)
    got = buffers(rows, tiles, experts)
    local = {"experts": experts, "first_expert": first}
    with current(DEVICE):
        launch.count(entries("count_v1", experts)[rank], ids, got, **local)
        launch.route_ids(entries("route_ids_v1", experts)[rank], ids, got, **local, block_m=block_m)
    counted = reference.count(ids, experts, first, CHUNK)
    assert differing_bits(got["chunk_count"], counted) == 0
    want = reference.route_ids(ids, experts, first, block_m, tiles)
    present = want.row_slot.numel()
    assert differing_bits(got["row_slot"][:present], want.row_slot) == 0
    absent = (got["slot_row"] < 0).nonzero().flatten().int()
    assert differing_bits(got["row_slot"][present:], absent) == 0
    for name in ("slot_row", "row_expert", "tile_expert", "tile_start", "tile_end"):
        assert differing_bits(got[name], getattr(want, name)) == 0, name
    assert not got["row_amax"].any()
    return got


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_ids_are_sorted_stably(data: st.DataObject) -> None:
    experts = data.draw(st.integers(1, 9))
    first = data.draw(st.integers(0, 5))
    ids = data.draw(st.lists(st.integers(-2, 16), min_size=1, max_size=60))
    block_m = data.draw(st.sampled_from([2, 16]))
    sorted_ids(torch.tensor(ids, device=DEVICE)[:, None], experts, first, block_m)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_counts_make_a_tile_map(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(-3, 40), min_size=1, max_size=9))
    rows = data.draw(st.integers(1, 120))
    block_m = data.draw(st.sampled_from([2, 16]))
    per_expert = torch.tensor(counts, dtype=torch.int32, device=DEVICE)
    tiles = tile_bound(rows, len(counts) + 1, block_m)
    got = buffers(rows, tiles)
    entry = load().by_contract["route_counts_v1"][0]
    with current(DEVICE):
        launch.route_counts(entry, per_expert, got, rows=rows, block_m=block_m)
    want = reference.route_counts(per_expert, rows, block_m, tiles)
    for name in ("row_expert", "tile_expert", "tile_start", "tile_end"):
        assert differing_bits(got[name], getattr(want, name)) == 0, name
    assert not got["row_amax"].any()


def routed(slots: int, seed: int = 0, *, low: int, high: int) -> torch.Tensor:
    """Ids of tokens with two choices each."""
    random = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (slots // 2, 2), generator=random).to(DEVICE)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("slots", [CHUNK - 2, CHUNK, CHUNK + 2, 5 * CHUNK + 6])
def test_several_chunks(slots: int, dtype: torch.dtype) -> None:
    sorted_ids(routed(slots, low=-2, high=12).to(dtype), experts=8, first=1, block_m=16)


@pytest.mark.parametrize("experts", [8, 32, 33, 200])
def test_every_number_of_bins_that_takes_the_experts(experts: int) -> None:
    """More chunks than a step adds up, where there are many bins."""
    ids = routed(10 * CHUNK if experts == 200 else 600, low=0, high=experts + 3)
    for rank in range(len(entries("count_v1", experts))):
        sorted_ids(ids, experts, 2, 16, rank)


def test_experts_without_slots_and_slots_of_one_expert() -> None:
    ids = torch.full((CHUNK, 2), 5, device=DEVICE)
    sorted_ids(ids, experts=3, first=4, block_m=16)
    absent = sorted_ids(ids, experts=3, first=6, block_m=16)
    assert (absent["tile_expert"] == -1).all() and not absent["chunk_count"].any()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_ids_at_the_ends_of_their_type_own_no_row(dtype: torch.dtype) -> None:
    """The difference to the first expert wraps; it meets no local expert for all that."""
    ends = torch.iinfo(dtype)
    ids = torch.tensor([[ends.min, ends.max], [ends.min + 5, 6]], dtype=dtype, device=DEVICE)
    got = sorted_ids(ids, experts=4, first=5, block_m=16)
    assert got["slot_row"].tolist() == [-1, -1, -1, 0]
