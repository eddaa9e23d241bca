"""The route kernels against a stable sort, and the bound on row tiles."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.runtime import interpreter, launch, reference
from generator.runtime.device import current
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


def buffers(rows: int, tiles: int) -> dict[str, torch.Tensor]:
    sizes = {"slot_row": rows, "row_slot": rows, "row_expert": rows, "row_amax": rows}
    sizes |= dict.fromkeys(("tile_expert", "tile_start", "tile_end"), tiles)
    return {
        name: torch.full((size,), -99, dtype=torch.int32, device=DEVICE)
        for name, size in sizes.items()
    }


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_ids_are_sorted_stably(data: st.DataObject) -> None:
    experts = data.draw(st.integers(1, 9))
    first = data.draw(st.integers(0, 5))
    ids = data.draw(st.lists(st.integers(-2, 16), min_size=1, max_size=60))
    block_m = data.draw(st.sampled_from([2, 16]))
    slots = torch.tensor(ids, device=DEVICE)[:, None]
    tiles = tile_bound(len(ids), experts + 1, block_m)
    got = buffers(len(ids), tiles)
    entry = load().by_contract["route_ids_v1"][0]
    with current(DEVICE):
        launch.route_ids(entry, slots, got, experts=experts, first_expert=first, block_m=block_m)
    want = reference.route_ids(slots, experts, first, block_m, tiles)
    present = want.row_slot.numel()
    assert differing_bits(got["row_slot"][:present], want.row_slot) == 0
    for name in ("slot_row", "row_expert", "tile_expert", "tile_start", "tile_end"):
        assert differing_bits(got[name], getattr(want, name)) == 0, name
    assert not got["row_amax"].any()


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


def test_more_slots_than_one_chunk() -> None:
    ids = torch.arange(2500, device=DEVICE).reshape(-1, 5) * 7919 % 11
    got = buffers(2500, tile_bound(2500, 9, 16))
    entry = load().by_contract["route_ids_v1"][0]
    with current(DEVICE):
        launch.route_ids(entry, ids, got, experts=8, first_expert=1, block_m=16)
    want = reference.route_ids(ids, 8, 1, 16, got["tile_expert"].numel())
    assert differing_bits(got["slot_row"], want.slot_row) == 0
    assert differing_bits(got["tile_end"], want.tile_end) == 0
