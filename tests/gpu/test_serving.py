"""Serving promises: no host sync, whole-layer graphs, streams, and the CPU's bits on the GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from generator.runtime.layer import run_tokens
from generator.runtime.manifest import Manifest
from generator.runtime.pack import pack
from generator.runtime.packed import PackedExperts
from generator.verify.cases import Shape
from generator.verify.inputs import Tokens, seed_state, tokens

pytestmark = pytest.mark.gpu

Layer = tuple[PackedExperts, Tokens, Callable[..., torch.Tensor]]


@pytest.fixture
def layer(edge_layer: str, manifest: Manifest, device: torch.device) -> Layer:
    contract = manifest.layer(edge_layer)
    shape = Shape(8, 16, 2, 1280, 1280, 48)
    packed = pack(seed_state(contract, shape, device, seed=9), contract)
    batch = tokens(contract, shape, device, seed=9)

    def call(of: Tokens = batch, **options: torch.Tensor) -> torch.Tensor:
        return run_tokens(packed, of.hidden, of.ids, of.weights, manifest, **options).out

    call()  # compile before anything is captured or watched
    torch.cuda.synchronize()
    return packed, batch, call


def test_a_forward_never_waits_for_the_device(layer: Layer) -> None:
    _, _, call = layer
    torch.cuda.set_sync_debug_mode("error")
    try:
        call()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_whole_layer_replays_from_a_graph(layer: Layer) -> None:
    packed, batch, call = layer
    graph, out = torch.cuda.CUDAGraph(), torch.empty_like(batch.hidden)
    with torch.cuda.graph(graph):
        call(out=out)
    for seed in (1, 2, 3):
        random = torch.Generator("cuda").manual_seed(seed)
        batch.hidden.copy_(torch.randn(batch.hidden.shape, device="cuda", generator=random))
        batch.ids.copy_(torch.rand(48, 16, device="cuda", generator=random).topk(2, dim=1).indices)
        want = call().clone()
        out.fill_(float("nan"))
        graph.replay()
        assert torch.equal(out, want)
    assert packed.experts == 8


def test_launches_go_to_the_current_stream(layer: Layer) -> None:
    _, batch, call = layer
    want, stream = call(), torch.cuda.Stream()
    hidden = torch.zeros_like(batch.hidden)
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)  # cycles: a launch on another stream would read the zeros
        hidden.copy_(batch.hidden)
        got = call(Tokens(hidden, batch.ids, batch.weights))
    stream.synchronize()
    assert torch.equal(got, want)


def test_a_direct_launch_has_the_bits_of_a_first_one(layer: Layer, manifest: Manifest) -> None:
    """From the second call of a batch on, compiled kernels are launched past Triton's JIT."""
    _, batch, call = layer
    for count in (48, 7, 1):
        for ids in (batch.ids, batch.ids.int()):
            of = Tokens(batch.hidden[:count], ids[:count], batch.weights[:count])
            manifest.prepared.clear()
            want = call(of)
            (prepared,) = manifest.prepared.values()
            assert [len(each) for each in prepared.launchers.values()] == [len(prepared.stages)]
            assert torch.equal(call(of), want)


def test_a_batch_may_be_first_met_in_a_capture(layer: Layer, manifest: Manifest) -> None:
    """Its kernels are compiled; only the facts of the call are new."""
    _, batch, call = layer
    of = Tokens(batch.hidden[:5], batch.ids[:5], batch.weights[:5])
    want = call(of)
    torch.cuda.synchronize()
    manifest.prepared.clear()
    graph, outs = torch.cuda.CUDAGraph(), [torch.empty_like(of.hidden) for _ in range(2)]
    with torch.cuda.graph(graph):
        for out in outs:  # the first through the JIT, the second directly
            call(of, out=out)
    graph.replay()
    assert all(torch.equal(out, want) for out in outs)


def test_every_device_has_launches_of_its_own(layer: Layer, manifest: Manifest) -> None:
    """A layer moved to the last GPU: where there are several, the current device is another than
    its tensors'; where there is one, the copy's launches stand beside the layer's own.
    """
    packed, batch, call = layer
    want, other = call(), torch.device("cuda", torch.cuda.device_count() - 1)
    there = packed.to(other)
    moved = [each.to(other) for each in (batch.hidden, batch.ids, batch.weights)]
    for _ in range(2):
        assert torch.equal(run_tokens(there, *moved, manifest).out.to(want.device), want)
        assert torch.equal(call(), want)


def test_one_compile_serves_every_batch(layer: Layer, manifest: Manifest) -> None:
    """Counts, never lengths: no argument value makes another specialization of a kernel."""
    packed, batch, call = layer
    for count in (1, 2, 3, 16, 17, 31, 48):
        call(Tokens(batch.hidden[:count], batch.ids[:count], batch.weights[:count]))
    for entry in manifest.entries:
        if "module" in vars(entry):
            takes_ids = "id_ptr" in entry.kernel.arg_names  # int32 or int64
            for cache, *_ in entry.kernel.device_caches.values():
                assert len(cache) <= (2 if takes_ids else 1), entry.symbol
    assert packed.experts == 8


def test_a_token_alone_has_the_bits_it_has_in_a_batch(layer: Layer) -> None:
    _, batch, call = layer
    whole = call()
    for token in range(0, 48, 5):
        one = slice(token, token + 1)
        alone = call(Tokens(batch.hidden[one], batch.ids[one], batch.weights[one]))
        assert torch.equal(alone, whole[one])
