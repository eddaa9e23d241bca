"""One kernel for few rows writes what count, route and quantize write for any, to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch

from generator.packing import CHUNK
from generator.runtime import launch, reference
from generator.runtime.device import current
from generator.runtime.entry import Entry
from generator.runtime.manifest import Manifest
from generator.runtime.workspace import tile_bound, torch_dtype
from generator.verify.compare import differing_bits

SEPARATE = ("count_v1", "route_ids_v1", "quantize_a8_{}_gather_v1")
BLOCK_M = 16
EXPERTS, FIRST = 4, 3  # ids 3 .. 6 are local
UNWRITTEN = -99


@dataclass(frozen=True)
class Call:
    """Tokens of fewer columns than a row-wise step has, and their choices."""

    ids: torch.Tensor  # [tokens, top_k]
    dtype: str = "bf16"
    experts: int = EXPERTS
    first: int = FIRST
    k: int = 96

    @property
    def tokens(self) -> torch.Tensor:
        """Among them a row of zeros and two that are not finite."""
        random = torch.Generator().manual_seed(0)
        x = torch.randn(self.ids.shape[0], self.k, generator=random)
        x[1:2] = 0
        x[2:3, 5] = float("inf")
        x[3:4, 7] = float("nan")
        return x.to(torch_dtype(self.dtype)).to(self.ids.device)

    @property
    def inv_smooth(self) -> torch.Tensor:
        random = torch.Generator().manual_seed(1)
        smooth = torch.rand(self.experts, self.k, generator=random) + 0.5
        return smooth.to(self.ids.device)

    def buffers(self) -> dict[str, torch.Tensor]:
        rows, device = self.ids.numel(), self.ids.device
        tiles = tile_bound(rows, self.experts + 1, BLOCK_M)
        sizes: dict[str, tuple[int, ...]] = {"chunk_count": (-(-rows // CHUNK), self.experts)}
        sizes |= dict.fromkeys(("slot_row", "row_slot", "row_expert", "row_amax"), (rows,))
        sizes |= dict.fromkeys(("tile_expert", "tile_start", "tile_end"), (tiles,))
        made = {
            name: torch.full(size, UNWRITTEN, dtype=torch.int32, device=device)
            for name, size in sizes.items()
        }
        codes = torch.full((rows, self.k), UNWRITTEN, dtype=torch.int8, device=device)
        scale = torch.full((rows,), float(UNWRITTEN), device=device)
        return made | {"hidden_codes": codes, "hidden_scale": scale}

    def sizes(self) -> dict[str, int]:
        return {"rows": self.ids.numel(), "K": self.k, "experts": self.experts, "N": 0}


def accepting(manifest: Manifest, contract: str, call: Call) -> list[Entry]:
    found = manifest.by_contract[contract]
    return [each for each in found if all(one.holds(call.sizes()) for one in each.requires)]


def separate(manifest: Manifest, call: Call) -> dict[str, torch.Tensor]:
    """By three kernels, the first that takes the call each."""
    got = call.buffers()
    names = (name.format(call.dtype) for name in SEPARATE)
    count, route, quantize = (accepting(manifest, name, call)[0] for name in names)
    local = {"experts": call.experts, "first_expert": call.first}
    with current(call.ids.device):
        launch.count(count, call.ids, got, **local)
        launch.route_ids(route, call.ids, got, **local, block_m=BLOCK_M)
        launch.quantize(
            quantize,
            call.tokens,
            call.inv_smooth,
            got["row_expert"],
            got["hidden_codes"],
            got["hidden_scale"],
            row_slot=got["row_slot"],
            top_k=call.ids.shape[1],
        )
    return got


def dispatched(entry: Entry, call: Call) -> dict[str, torch.Tensor]:
    got = call.buffers()
    with current(call.ids.device):
        launch.dispatch(
            entry,
            call.tokens,
            call.ids,
            call.inv_smooth,
            got,
            first_expert=call.first,
            block_m=BLOCK_M,
        )
    return got


def compare(manifest: Manifest, call: Call, entries: Sequence[Entry]) -> dict[str, torch.Tensor]:
    """Every entry against three kernels, and those against the oracle; of rows without expert no
    code is written, and no scale read.
    """
    assert entries
    want = separate(manifest, call)
    tiles = want["tile_expert"].numel()
    oracle = reference.route_ids(call.ids, call.experts, call.first, BLOCK_M, tiles)
    present = oracle.row_slot.numel()
    tokens = call.tokens[oracle.row_slot.long() // call.ids.shape[1]]
    codes, scale = reference.quantize(
        tokens, call.inv_smooth, oracle.row_expert[:present], "half_even"
    )
    assert differing_bits(want["hidden_codes"][:present], codes) == 0
    assert differing_bits(want["hidden_scale"][:present], scale) == 0
    assert differing_bits(want["slot_row"], oracle.slot_row) == 0
    for entry in entries:
        got = dispatched(entry, call)
        for name in ("slot_row", "row_slot", "row_expert", "tile_expert", "tile_start", "tile_end"):
            assert differing_bits(got[name], want[name]) == 0, (entry.name, name)
        assert differing_bits(got["hidden_codes"], want["hidden_codes"]) == 0, entry.name
        owned = (each["hidden_scale"][:present] for each in (got, want))
        assert differing_bits(*owned) == 0, entry.name
        assert (got["hidden_codes"][present:] == UNWRITTEN).all()
    return want


def choices(tokens: int, low: int, high: int, top_k: int = 2) -> torch.Tensor:
    random = torch.Generator().manual_seed(tokens)
    return torch.randint(low, high, (tokens, top_k), generator=random)


IDS = {
    "local": choices(9, FIRST, FIRST + EXPERTS),
    "absent": choices(9, -1, FIRST + EXPERTS),
    "repeated": choices(9, FIRST, FIRST + 2).sort(1).values[:, :1].expand(9, 3).contiguous(),
    "out of range": choices(9, 0, 40),
    "no local expert": choices(5, FIRST + EXPERTS, 40),
    "one token": choices(1, FIRST, FIRST + EXPERTS, top_k=1),
    "one expert": torch.full((20, 2), FIRST + EXPERTS - 1),
}


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("ids", IDS)
def test_every_kind_of_ids(
    shipped: Manifest, device: torch.device, ids: str, dtype: torch.dtype
) -> None:
    call = Call(IDS[ids].to(dtype).to(device))
    want = compare(shipped, call, accepting(shipped, "dispatch_a8_bf16_v1", call))
    assert (want["tile_expert"] == -1).all() == (ids == "no local expert")


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_ids_at_the_ends_of_their_type(
    shipped: Manifest, device: torch.device, dtype: torch.dtype
) -> None:
    ends = torch.iinfo(dtype)
    rows = [[ends.min, FIRST], [ends.max, ends.min + FIRST], [-1, FIRST + 1]]
    call = Call(torch.tensor(rows, dtype=dtype, device=device))
    want = compare(shipped, call, accepting(shipped, "dispatch_a8_bf16_v1", call))
    assert want["slot_row"].tolist() == [-1, 0, -1, -1, -1, 1]


def test_ids_may_start_anywhere(shipped: Manifest, device: torch.device) -> None:
    ids = choices(10, 0, FIRST + EXPERTS).to(device)[1:]
    call = Call(ids)
    compare(shipped, call, accepting(shipped, "dispatch_a8_bf16_v1", call)[:1])


def test_fp16(shipped: Manifest, device: torch.device) -> None:
    call = Call(IDS["absent"].to(device), "fp16")
    compare(shipped, call, accepting(shipped, "dispatch_a8_fp16_v1", call))


def test_rows_as_long_as_a_program_holds(shipped: Manifest, device: torch.device) -> None:
    """Of each reach the longest row, and the one that is 32 shorter."""
    for entry in shipped.by_contract["dispatch_a8_bf16_v1"]:
        for k in (entry.block_k, entry.block_k - 32):
            compare(shipped, Call(choices(3, 0, FIRST + EXPERTS).to(device), k=k), [entry])


def test_more_slots_than_a_step(shipped: Manifest, device: torch.device) -> None:
    """Of few columns, since every slot is a program."""
    entry = shipped.by_contract["dispatch_a8_bf16_v1"][0]
    assert entry.block_m == 1024
    ids = choices(entry.block_m // 2 + 20, 0, FIRST + EXPERTS).to(device)
    compare(shipped, Call(ids, k=32), [entry])


def test_as_many_experts_as_bins(shipped: Manifest, device: torch.device) -> None:
    entry = shipped.by_contract["dispatch_a8_bf16_v1"][0]
    assert entry.block_n is not None
    ids = choices(20, 0, entry.block_n + 12).to(device)
    compare(shipped, Call(ids, experts=entry.block_n, first=7, k=32), [entry])
