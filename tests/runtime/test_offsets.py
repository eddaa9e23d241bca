"""Rows whose bytes lie past 2**31: pointers are shifted back, so that the true addresses are small.

Under the interpreter a pointer is a number, and only lanes that are not masked are touched. A GPU
driver refuses addresses that nobody allocated: tests/gpu/test_edges.py takes the gigabytes there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from generator.runtime import interpreter, launch, reference
from generator.runtime.device import current
from generator.runtime.entry import Entry
from generator.runtime.manifest import Layer, Manifest
from generator.runtime.workspace import torch_dtype
from generator.verify.compare import differing_bits
from tests.runtime.gemms import Operands, operands

pytestmark = pytest.mark.skipif(not interpreter.active(), reason="GPUs check addresses")

K, N = 4096, 64
FIRST = 2**20 - 32  # row of the tile; the limit of rows is 2**20
NAMES = ["layer_w8g128_a8_swiglu_bf16_v1", "layer_w4g128_a8_swiglu_bf16_v1"]


@dataclass(frozen=True)
class Shifted:
    """A tensor that claims to start `rows` rows before its memory, as the interpreter reads it."""

    tensor: torch.Tensor
    rows: int

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    @property
    def shape(self) -> torch.Size:
        return self.tensor.shape

    def data_ptr(self) -> int:
        row = self.tensor.stride(0) * self.tensor.element_size()
        # Where memory lies at a small address this is below 0, and wraps as pointers do.
        return (self.tensor.data_ptr() - self.rows * row) % 2**64

    # The interpreter copies tensors to the host by their storage: here there is nothing to copy.
    def untyped_storage(self) -> torch.UntypedStorage:
        return self.tensor.untyped_storage()

    def storage_offset(self) -> int:
        return self.tensor.storage_offset()

    def size(self) -> torch.Size:
        return self.tensor.shape

    def stride(self) -> tuple[int, ...]:
        return self.tensor.stride()

    def new_empty(self, *_: object, **__: object) -> Shifted:
        return self

    def set_(self, *_: object) -> None:
        """The copy is the original."""


def portable(manifest: Manifest, layer: Layer, plan: str, operation: str) -> Entry:
    name = next(
        each for each in layer.plan(plan).rows if manifest.contracts[each]["operation"] == operation
    )
    return next(each for each in manifest.by_contract[name] if each.target == "portable")


def far(value: torch.Tensor) -> Shifted:
    return Shifted(value, FIRST)


def launched(
    run: Callable[[dict[str, object], object], None],
    given: Operands,
    entry: Entry,
    n: int,
    dtype: torch.dtype,
    **per_row: torch.Tensor,
) -> torch.Tensor:
    """The kernel's rows, which it believes to be FIRST and on."""
    assert entry.design.endswith("_wide")
    out = torch.full((given.codes.shape[0], n), 77.0, dtype=dtype)
    tiles: dict[str, object] = dict(given.tiles(entry.rows_per_program, shift=FIRST))
    with current(given.codes.device):
        run(tiles | {name: far(value) for name, value in per_row.items()}, far(out))
    return out


@pytest.mark.parametrize("name", NAMES)
def test_down_of_codes(shipped: Manifest, device: torch.device, name: str) -> None:
    layer = shipped.layer(name)
    entry = portable(shipped, layer, "separate", "down")
    given = operands(layer, layer.down_group, K, N, device, rows=5)
    assert FIRST * K > 2**31

    def run(tiles: dict[str, object], out: object) -> None:
        scales = given.weight_scale
        launch.gemm(entry, far(given.codes), far(given.scale), given.stored, scales, tiles, out)

    got = launched(run, given, entry, N, torch_dtype(layer.dtype))
    assert differing_bits(got, given.sums.to(got.dtype)) == 0


@pytest.mark.parametrize("name", NAMES)
def test_down_of_an_activation(shipped: Manifest, device: torch.device, name: str) -> None:
    layer = shipped.layer(name)
    entry = portable(shipped, layer, "folded", "down")
    given = operands(layer, layer.down_group, K, N, device, rows=5)
    a = torch.randn(5, K, device=device).to(torch_dtype(layer.intermediate))
    inv_smooth = torch.rand(2, K, device=device) + 0.5
    amax = reference.amax_bits(a, inv_smooth, given.row_expert)

    def run(tiles: dict[str, object], out: object) -> None:
        weights = (given.stored, given.weight_scale)
        launch.gemm_of_activation(entry, far(a), inv_smooth, *weights, tiles, out)

    got = launched(run, given, entry, N, torch_dtype(layer.dtype), row_amax=amax)
    codes, scale = reference.quantize(a, inv_smooth, given.row_expert, layer.rounding)
    y = reference.gemm(
        codes, scale, given.weight, given.weight_scale, given.row_expert, layer.down_group
    )
    assert differing_bits(got, y.to(got.dtype)) == 0


@pytest.mark.parametrize("plan", ["separate", "folded"])
@pytest.mark.parametrize("name", NAMES)
def test_up(shipped: Manifest, device: torch.device, name: str, plan: str) -> None:
    layer = shipped.layer(name)
    entry = portable(shipped, layer, plan, "up")
    given = operands(layer, layer.up_group, K, 2 * N, device, rows=5)
    inv_smooth = torch.rand(2, N, device=device) + 0.5
    amax = torch.zeros(5, dtype=torch.int32, device=device)

    def run(tiles: dict[str, object], out: object) -> None:
        launch.gemm(
            entry,
            far(given.codes),
            far(given.scale),
            given.stored,
            given.weight_scale,
            tiles,
            out,
            inv_smooth=inv_smooth if plan == "folded" else None,
        )

    dtype, intermediate = torch_dtype(layer.dtype), torch_dtype(layer.intermediate)
    got = launched(run, given, entry, N, intermediate, row_amax=amax)
    table = reference.exp_table(dtype, device)
    want = reference.swiglu(given.sums, dtype, intermediate, table)
    assert differing_bits(got, want) == 0
    if plan == "folded":
        assert torch.equal(amax, reference.amax_bits(want, inv_smooth, given.row_expert))


def test_wide_columns(shipped: Manifest, device: torch.device) -> None:
    """rows * N past 2**31 too, of the output of a down kernel."""
    layer = shipped.layer(NAMES[0])
    entry = portable(shipped, layer, "separate", "down")
    wide = 4096
    given = operands(layer, layer.down_group, 64, wide, device, rows=2)
    assert FIRST * wide > 2**31 > FIRST * 64

    def run(tiles: dict[str, object], out: object) -> None:
        scales = given.weight_scale
        launch.gemm(entry, far(given.codes), far(given.scale), given.stored, scales, tiles, out)

    got = launched(run, given, entry, wide, torch_dtype(layer.dtype))
    assert differing_bits(got, given.sums.to(got.dtype)) == 0


def test_int32_offsets_are_refused_there(shipped: Manifest) -> None:
    """What the wide designs are for: the others say up to where they hold."""
    entries = [each for each in shipped.entries if each.dot is not None]
    wide = [each for each in entries if each.design.endswith("_wide") or each.programs]
    assert {each.target for each in wide} >= {"portable"} and len(wide) < len(entries)
    sizes = {"rows": 2**20, "N": N, "K": K, "experts": 2}
    for entry in entries:
        failures = [each.failure(sizes) for each in entry.requires if not each.holds(sizes)]
        told = f"rows (1048576) * K ({K}) = {2**20 * K} is not below {2**31}"
        assert (told in failures) == (entry not in wide), entry.name
