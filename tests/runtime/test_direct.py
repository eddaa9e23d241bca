"""Launches past Triton's JIT: with what, after what, and when not. Kernels are stand-ins, so that
compiled ones exist where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from triton import knobs
from triton.compiler import CompiledKernel

from generator.errors import LaunchError
from generator.runtime import direct, interpreter
from generator.runtime.layer import LayerRun, run_rows, run_tokens, workspace_bytes
from generator.runtime.manifest import Manifest
from tests.runtime.small import Small, small

STREAM = 7


@dataclass(frozen=True)
class Seen:
    """One launch as a device would see it."""

    way: str  # jit | direct | hooked
    symbol: str
    dtypes: tuple[torch.dtype, ...]  # that the kernel was compiled for
    grid: tuple[int, ...]
    arguments: tuple[int, ...]  # addresses, then integers


@dataclass
class Device:
    """What was launched, and what was compiled for it."""

    seen: list[Seen] = field(default_factory=list)
    compiled: dict[tuple[object, ...], Compiled] = field(default_factory=dict)

    def ways(self) -> set[str]:
        """Of the launches since the last question."""
        ways = {each.way for each in self.seen}
        self.seen.clear()
        return ways


class Compiled(CompiledKernel):
    """A compiled kernel; its launcher takes what Triton's takes."""

    def __init__(self, device: Device, symbol: str, dtypes: tuple[torch.dtype, ...]) -> None:
        self.device, self.symbol, self.dtypes = device, symbol, dtypes
        self.function, self.packed_metadata = f"function of {symbol}", f"metadata of {symbol}"
        self.module = None

    def see(self, way: str, grid: tuple[int, ...], *arguments: int) -> None:
        assert all(isinstance(each, int) for each in arguments)
        self.device.seen.append(Seen(way, self.symbol, self.dtypes, grid, arguments))

    def run(
        self,
        x: int,
        y: int,
        z: int,
        stream: int,
        function: str,
        metadata: str,
        launch_metadata: None,
        enter: None,
        leave: None,
        *arguments: int,
    ) -> None:
        assert (stream, launch_metadata, enter, leave) == (STREAM, None, None, None)
        assert (function, metadata) == (self.function, self.packed_metadata)
        self.see("direct", (x, y, z), *arguments)

    def __getitem__(self, grid: tuple[int, int, int]) -> Callable[..., None]:
        def runner(*arguments: int, stream: int) -> None:
            assert stream == STREAM
            self.see("hooked", grid, *arguments)

        return runner


class Kernel:
    """A Triton kernel: compiles for the dtypes of its arguments."""

    def __init__(self, device: Device, symbol: str) -> None:
        self.device, self.symbol = device, symbol
        self.pre_run_hooks: list[Callable[..., None]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., Compiled]:
        return partial(self.start, grid)

    def start(
        self, grid: tuple[int, ...], *arguments: torch.Tensor | int, **options: object
    ) -> Compiled:
        assert options.keys() >= {"num_warps", "num_stages"}
        tensors = [each for each in arguments if isinstance(each, torch.Tensor)]
        counts = [each for each in arguments if not isinstance(each, torch.Tensor)]
        dtypes = tuple(each.dtype for each in tensors)
        found = self.device.compiled.setdefault(
            (self.symbol, dtypes, knobs.runtime.debug), Compiled(self.device, self.symbol, dtypes)
        )
        found.see("jit", (*grid, 1, 1)[:3], *(each.data_ptr() for each in tensors), *counts)
        return found


@pytest.fixture
def fake(shipped: Manifest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """Every kernel of the manifest, and what the driver says of the current stream."""
    fake = Device()
    for entry in shipped.entries:
        monkeypatch.setitem(vars(entry), "kernel", Kernel(fake, entry.symbol))
        monkeypatch.setitem(vars(entry), "options", {"num_warps": 4, "num_stages": 1})
    active = SimpleNamespace(get_current_device=lambda: 0, get_current_stream=lambda _: STREAM)
    monkeypatch.setattr(direct, "driver", SimpleNamespace(active=active))
    shipped.prepared.clear()
    yield fake
    shipped.prepared.clear()


@pytest.fixture
def layer(shipped: Manifest, device: torch.device) -> Small:
    return small(shipped, device)


Call = Callable[..., LayerRun]


def calls(layer: Small) -> dict[str, Call]:
    """Either way in."""
    counts = torch.tensor([3, 0, 4, 2], dtype=torch.int32, device=layer.batch.hidden.device)
    rows = partial(run_rows, layer.packed, layer.batch.hidden, counts, layer.manifest)
    return {"tokens": layer.tokens, "rows": rows}


def plans(layer: Small) -> list[str]:
    return [each.name for each in layer.layer.plans]


@pytest.mark.parametrize("start", ["tokens", "rows"])
@pytest.mark.parametrize("hidden", [128, 90])
def test_the_second_call_launches_the_same_directly(
    shipped: Manifest, device: torch.device, fake: Device, start: str, hidden: int
) -> None:
    """Also where H is padded, so that the kernels read and write copies."""
    layer = small(shipped, device, hidden=hidden)
    call = calls(layer)[start]
    for plan in plans(layer):
        first = call(plan=plan)
        memory = {"out": first.out, "workspace": first.workspace}
        by_jit = [replace(each, way="") for each in fake.seen]
        assert len(by_jit) == len(first.choice.stages) and fake.ways() == {"jit"}
        second = call(plan=plan, **memory)
        assert [replace(each, way="") for each in fake.seen] == by_jit
        assert fake.ways() == {"direct"} and second.prepared is first.prepared


def test_memory_of_the_call_itself_is_found_anew(layer: Small, fake: Device) -> None:
    """Other results, workspaces, tokens and weights: the kernels get their addresses."""
    first = layer.tokens()
    old = {each.data_ptr() for each in (first.out, layer.batch.hidden)}
    old |= {each.data_ptr() for each in first.buffers.values()}
    old |= {each.data_ptr() for each in layer.packed.tensors().values()}
    fake.ways()
    packed = replace(
        layer.packed, **{name: each.clone() for name, each in layer.packed.tensors().items()}
    )
    batch = layer.batch
    other = {"hidden": batch.hidden.clone(), "ids": batch.ids.clone(), "packed": packed}
    run = layer.tokens(**other, weights=batch.weights.clone())
    got = {each for seen in fake.seen for each in seen.arguments}
    assert fake.ways() == {"direct"} and not got & old
    new = {run.out.data_ptr(), *(each.data_ptr() for each in run.buffers.values())}
    assert new <= got


def test_intermediates_lie_where_the_kernels_had_them(layer: Small, fake: Device) -> None:
    """They are made when someone reads them: of the layout's shapes, apart, in the workspace."""
    layer.tokens()
    fake.ways()
    run = layer.tokens()
    assert "buffers" not in vars(run)
    addresses = dict(zip(run.prepared.stages, fake.seen, strict=True))
    for stage, seen in addresses.items():
        for name, address in zip(stage.tensors, seen.arguments, strict=False):
            if name in run.buffers:
                assert run.buffers[name].data_ptr() == address, name
    start, end = run.workspace.data_ptr(), run.workspace.data_ptr()
    for name, each in run.prepared.layout.buffers.items():
        view = run.buffers[name]
        assert (view.shape, view.dtype, view.is_contiguous()) == (each.shape, each.dtype, True)
        assert end <= view.data_ptr()
        end = view.data_ptr() + each.bytes
    assert end <= start + workspace_bytes(run.problem, layer.manifest) == start + len(run.workspace)


def test_ids_of_either_width_have_kernels_of_their_own(layer: Small, fake: Device) -> None:
    wide, narrow = layer.batch.ids.long(), layer.batch.ids.int()
    for ids in (narrow, wide):
        layer.tokens(ids=ids)
        assert fake.ways() == {"jit"}
    for ids in (narrow, wide, narrow):
        layer.tokens(ids=ids)
        compiled_for = {each for seen in fake.seen for each in seen.dtypes}
        assert (torch.int64 in compiled_for) == (ids is wide)
        assert fake.ways() == {"direct"}


def test_what_changes_an_integer_is_compiled_for_once_more(layer: Small, fake: Device) -> None:
    batch = layer.batch
    layer.tokens()
    assert fake.ways() == {"jit"}
    one = {"hidden": batch.hidden[:5], "ids": batch.ids[:5], "weights": batch.weights[:5]}
    turned = {"ids": batch.ids.view(5, 4), "weights": batch.weights.view(5, 4)}
    for changes in (one, one | turned, {"first_expert": 2}, {"first_expert": True}):
        for way in ("jit", "direct"):
            layer.tokens(**changes)
            assert fake.ways() == {way}, changes


def test_weights_that_changed_in_place_are_noticed(layer: Small, fake: Device) -> None:
    for _ in range(2):
        layer.tokens()
    fake.ways()
    packed = layer.packed
    for change, told in (
        (packed.up_scale[:, :, :128].contiguous(), r"up_scale: has shape \[4, 1, 128\]"),
        (packed.up_scale.float(), "up_scale: is torch.float32"),
        (packed.up_scale.repeat(1, 1, 2)[:, :, ::2], "up_scale: is not contiguous"),
        (torch.cat([packed.up_scale.view(-1)[:1], packed.up_scale.view(-1)])[1:], None),
    ):
        kept = packed.up_scale.data
        packed.up_scale.data = change if told else change.view(kept.shape)
        with pytest.raises(LaunchError, match=told or "up_scale: does not start at a multiple"):
            layer.tokens()
        packed.up_scale.data = kept
        assert fake.seen == []
    layer.tokens()
    assert fake.ways() == {"direct"}


def test_a_known_call_is_still_checked(layer: Small, fake: Device) -> None:
    run = layer.tokens()
    layer.tokens()
    fake.ways()
    device, batch = layer.batch.hidden.device, layer.batch
    storage = torch.zeros(10 * 128 + 4, dtype=torch.bfloat16, device=device)
    short = torch.empty(len(run.workspace) - 1, dtype=torch.uint8, device=device)
    for changes, told in (
        ({"hidden": storage[4:].view(10, 128)}, "hidden: does not start at a multiple of 16"),
        ({"out": storage[4:].view(10, 128)}, "out: does not start at a multiple of 16"),
        ({"out": torch.empty(10, 128, device=device)}, "out: is torch.float32; pass torch.bfl"),
        ({"out": [0]}, "out: is a list"),
        ({"hidden": batch.hidden.to("meta")}, "hidden: is on meta"),
        ({"ids": batch.ids.t().contiguous().t()}, "ids: is not contiguous"),
        ({"ids": [[0, 1]]}, "ids: is a list"),
        ({"weights": batch.weights.double()}, "weights: is torch.float64"),
        ({"workspace": short}, f"workspace: holds {len(short)} bytes of {len(short) + 1}"),
        ({"workspace": run.workspace, "out": run.workspace[:2560].view(torch.bfloat16)}, "shape"),
        ({"packed": replace(layer.packed, layout=2)}, "layout version 2"),
        ({"packed": replace(layer.packed, experts=8)}, r"up_weight: has shape \[4, 256, 128\]"),
        ({"first_expert": -1}, "first_expert: -1 is no id"),
    ):
        with pytest.raises(LaunchError, match=told):
            layer.tokens(**changes)
        assert fake.seen == [], told
    inside = run.workspace[:2560].view(torch.bfloat16).view(10, 128)
    with pytest.raises(LaunchError, match="out: overlaps workspace"):
        layer.tokens(out=inside, workspace=run.workspace)


def test_tensors_without_storage_are_never_remembered(layer: Small, fake: Device) -> None:
    """Ahead-of-time compilation plays them through, by choices that it makes by hand."""
    there = layer.packed.to("meta")
    batch = {name: getattr(layer.batch, name).to("meta") for name in ("hidden", "ids", "weights")}
    for _ in range(2):
        run = layer.tokens(packed=there, **batch, targets=("portable",))
        assert run.prepared not in layer.manifest.prepared.values()
        assert fake.ways() == {"jit"}


def test_switches_of_triton_take_the_jit(
    layer: Small, fake: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each once; a hook that may say anything every time."""
    for way in ("jit", "direct"):
        layer.tokens()
        assert fake.ways() == {way}
    with monkeypatch.context() as patch:
        patch.setattr(knobs.runtime, "debug", True)
        for way in ("jit", "direct"):
            layer.tokens()
            assert fake.ways() == {way}
    with monkeypatch.context() as patch:
        patch.setattr(knobs.compilation, "instrumentation_mode", "fpsan")
        layer.tokens()
        assert fake.ways() == {"jit"}
    with monkeypatch.context() as patch:
        patch.setattr(knobs.runtime, "add_stages_inspection_hook", lambda *_: ("", ""))
        for _ in range(2):
            layer.tokens()
            assert fake.ways() == {"jit"}
    layer.tokens()
    assert fake.ways() == {"direct"}


def test_hooks_before_a_run_and_other_kernels_take_the_jit(layer: Small, fake: Device) -> None:
    choice = layer.tokens().choice
    entry = choice["combine"].entry
    entry.kernel.pre_run_hooks.append(print)
    fake.ways()
    layer.tokens()
    assert fake.ways() == {"jit"}
    entry.kernel.pre_run_hooks.clear()
    layer.tokens()
    assert fake.ways() == {"direct"}
    vars(entry)["kernel"] = Kernel(fake, entry.symbol)
    for way in ("jit", "direct"):
        layer.tokens()
        assert fake.ways() == {way}


def test_launch_hooks_see_direct_launches(
    layer: Small, fake: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the public face of a compiled kernel, which calls them."""
    first = layer.tokens()
    fake.ways()
    memory = {"out": first.out, "workspace": first.workspace}
    layer.tokens(**memory)
    plain = [replace(each, way="") for each in fake.seen]
    chain = knobs.HookChain()
    monkeypatch.setattr(knobs.runtime, "launch_enter_hook", chain)
    fake.ways()
    layer.tokens(**memory)
    assert fake.ways() == {"direct"}
    chain.add(print)
    layer.tokens(**memory)
    assert [replace(each, way="") for each in fake.seen] == plain
    assert fake.ways() == {"hooked"}
    monkeypatch.setattr(knobs.runtime, "launch_enter_hook", print)
    layer.tokens(**memory)
    assert fake.ways() == {"hooked"}


def test_storages_count_on_amd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are compiled anew for 2 GiB and more: of any tensor, whose views count by it."""
    long = torch.empty(2**31, dtype=torch.uint8, device="meta")
    short = torch.empty(2**31 - 1, dtype=torch.uint8, device="meta")
    assert direct.switches([long]) == direct.switches([short])
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert direct.switches([long[:4]]) == direct.switches([long])
    assert len({direct.switches(each) for each in ([long, short], [short, long], [long] * 2)}) == 3


def test_memory_that_is_no_multiple_of_16_takes_the_jit(
    layer: Small, fake: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An allocator's, that is: callers' is refused. What is compiled for it is not kept."""
    layer.tokens()
    fake.ways()

    def off(hidden: torch.Tensor) -> torch.Tensor:
        return hidden.new_empty(hidden.numel() + 4)[4:].view(hidden.shape)

    with monkeypatch.context() as patch:
        patch.setattr("generator.runtime.layer.output_like", off)
        for _ in range(2):
            layer.tokens()
            assert fake.ways() == {"jit"}
    layer.tokens()
    assert fake.ways() == {"direct"}


def test_compiled_kernels_are_remembered_and_the_interpreter_is_called_every_time(
    layer: Small,
) -> None:
    want = layer.tokens()
    again = run_tokens(
        layer.packed, layer.batch.hidden, layer.batch.ids, layer.batch.weights, layer.manifest
    )
    assert again.prepared is want.prepared
    assert bool(again.prepared.launchers) != interpreter.active()
    assert torch.equal(again.out, want.out)


def test_what_is_remembered_is_bounded(
    layer: Small, fake: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("generator.runtime.prepared.MEMO", 3)
    batch: Any = layer.batch
    for count in range(1, 9):
        layer.tokens(
            hidden=batch.hidden[:count], ids=batch.ids[:count], weights=batch.weights[:count]
        )
        assert len(layer.manifest.prepared) <= 3


def test_no_rows_launch_nothing(layer: Small, fake: Device) -> None:
    batch = layer.batch
    for _ in range(2):
        run = layer.tokens(
            hidden=batch.hidden[:0], ids=batch.ids[:0], weights=batch.weights[:0], workspace=[1]
        )
        assert (run.buffers, run.out.shape, fake.seen) == ({}, (0, 128), [])
        run = layer.tokens(ids=batch.ids[:, :0], weights=batch.weights[:, :0].contiguous())
        assert not run.out.any() and fake.seen == []
