"""QuantExperts and QuantMoE: strict state dicts, custom ops, gating and expert-parallel ranks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from generator.errors import BuildError, LaunchError
from generator.runtime import module
from generator.runtime.manifest import Manifest
from generator.runtime.module import Gating, QuantExperts, QuantMoE
from generator.runtime.ops import experts_rows, experts_tokens
from generator.runtime.pack import pack
from generator.verify.cases import Shape
from generator.verify.inputs import seed_state
from tests.runtime.small import Small, small

LAYER = "layer_w8g128_a8_swiglu_bf16_v1"
INT4 = "layer_w4g128_a8_swiglu_bf16_v1"
SIZES = {"experts": 4, "hidden": 128, "intermediate": 128}


@pytest.fixture
def layer(shipped: Manifest, device: torch.device) -> Small:
    return small(shipped, device)


@pytest.fixture
def experts(layer: Small, device: torch.device) -> QuantExperts:
    module = QuantExperts(LAYER, **SIZES, device=device)
    module.load_state_dict(seed_state(layer.layer, layer.shape, device, seed=0))
    return module


def test_sizes_that_no_layer_has(device: torch.device) -> None:
    for name, changes, told in (
        (LAYER, {"experts": -2}, "experts: is -2; use 1 or more"),
        (LAYER, {"hidden": 0}, "hidden: is 0; use 1 or more"),
        (INT4, {"hidden": 127}, "hidden: is 127, and int4 stands two rows to a byte; use an even"),
    ):
        with pytest.raises(LaunchError) as caught:
            QuantExperts(name, **(SIZES | changes), device=device)
        assert str(caught.value).startswith(f"[launch] {told}")
    for top_k in (0, -1, 5):
        with pytest.raises(LaunchError, match=rf"top_k: {top_k} experts a token, of 4; use 1 .. 4"):
            QuantMoE(LAYER, **SIZES, top_k=top_k, device=device)


def test_what_is_no_hidden_state_is_refused_before_it_is_routed(
    experts: QuantExperts, device: torch.device
) -> None:
    moe = QuantMoE(LAYER, **SIZES, top_k=2, device=device)
    rows = torch.zeros(3, 128, dtype=torch.bfloat16, device=device)
    for wrong, told in (
        (rows[:, :64], r"hidden: has shape \[3, 64\]; pass \[any, 128\]"),
        (rows[0, 0], r"hidden: has shape \[\]; pass \[any, 128\]"),
        ([1], "hidden: is a list; pass a torch.Tensor"),
    ):
        for call in (
            lambda x: moe(x),
            lambda x: experts(x, torch.zeros(4, dtype=torch.int32, device=device)),
            lambda x: experts.forward_tokens(x, torch.zeros(3, 1), torch.zeros(3, 1)),
        ):
            with pytest.raises(LaunchError, match=told):
                call(wrong)
    with pytest.raises(LaunchError, match="tokens_per_expert: is a list"):
        experts(rows, [1, 1, 1, 0])
    with pytest.raises(LaunchError, match="ids: is a list"):
        experts.forward_tokens(rows, [[0]] * 3, torch.zeros(3, 1, device=device))


def test_a_folder_may_be_a_string(shipped: Manifest, device: torch.device) -> None:
    module = QuantExperts(LAYER, **SIZES, generated=str(shipped.directory), device=device)
    assert module.manifest is shipped


def test_ops_find_a_folder_by_any_of_its_names(
    layer: Small, shipped: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that depends on the current folder is looked up at every call."""
    batch, packed = layer.batch, list(layer.packed.tensors().values())
    call = partial(experts_tokens, batch.hidden, batch.ids, batch.weights, *packed, LAYER)
    want = layer.tokens().out
    monkeypatch.chdir(shipped.directory.parent)
    for name in (str(shipped.directory), shipped.directory.name, str(shipped.directory)):
        assert torch.equal(call(name, 0), want)
    monkeypatch.chdir("/")
    with pytest.raises(BuildError, match="does not exist"):
        call(shipped.directory.name, 0)


def test_state_dict_round_trip(layer: Small, experts: QuantExperts, device: torch.device) -> None:
    seed = seed_state(layer.layer, layer.shape, device, seed=0)
    saved = experts.state_dict()
    assert saved.keys() == seed.keys()
    assert all(torch.equal(saved[name], seed[name]) for name in seed)


def test_weights_are_held_once(experts: QuantExperts) -> None:
    held = sum(each.numel() for each in experts.buffers() if each.dtype == torch.int8)
    assert held == 4 * (2 * 128 * 128 + 128 * 128)


def test_loading_is_strict(layer: Small, device: torch.device) -> None:
    seed = seed_state(layer.layer, layer.shape, device, seed=0)
    module = QuantExperts(LAYER, **SIZES, device=device)
    with pytest.raises(RuntimeError, match=r"Missing key.*up_proj_weight_scale"):
        module.load_state_dict({k: v for k, v in seed.items() if k != "up_proj_weight_scale"})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*bias"):
        module.load_state_dict(seed | {"bias": torch.zeros(1)})
    with pytest.raises(RuntimeError, match=r"holds \(E, H, I\) = \(3, 128, 128\)"):
        other = Shape(3, 3, 1, 128, 128, 1)
        module.load_state_dict(seed_state(layer.layer, other, device, seed=0))
    with pytest.raises(RuntimeError, match="packing never rounds a scale"):
        rough = seed["up_proj_weight_scale"].float() * (1 + 2.0**-20)
        module.load_state_dict(seed | {"up_proj_weight_scale": rough})


def test_casts_of_a_model_leave_the_contracts_dtypes(experts: QuantExperts) -> None:
    before = {name: each.clone() for name, each in experts.named_buffers()}
    model = torch.nn.Sequential(experts, Gating(8, 4, 2, renormalize=True, device=None))
    model.half().to(torch.bfloat16)
    assert all(torch.equal(each, before[name]) for name, each in experts.named_buffers())
    assert model[1].gate_weight.dtype == torch.float32
    experts.to("meta")
    assert all(each.is_meta for each in experts.buffers())
    assert experts.up_inv_smooth.dtype == torch.float32


def test_weights_can_be_assigned_to_a_module_without_storage(
    layer: Small, device: torch.device
) -> None:
    module = QuantExperts(LAYER, **SIZES, device="meta")
    seed = seed_state(layer.layer, layer.shape, device, seed=0)
    module.load_state_dict(seed, assign=True)
    batch = layer.batch
    got = module.forward_tokens(batch.hidden, batch.ids, batch.weights)
    assert torch.equal(got, layer.tokens().out)


def test_a_module_without_storage_loads_and_runs_nothing(
    layer: Small, device: torch.device
) -> None:
    module = QuantExperts(LAYER, **SIZES, device="meta")
    seed = seed_state(layer.layer, layer.shape, device, seed=0)
    with pytest.raises(RuntimeError, match="has no storage; pass assign=True"):
        module.load_state_dict(seed)
    batch = layer.batch
    with pytest.raises(LaunchError, match="load the weights, on one device"):
        module.forward_tokens(batch.hidden, batch.ids, batch.weights)


def test_experts_load_whole_or_not_at_all(layer: Small, device: torch.device) -> None:
    seed = seed_state(layer.layer, layer.shape, device, seed=0)
    del seed["up_proj_weight_scale"]
    module = QuantExperts(LAYER, **SIZES, device=device)
    with pytest.raises(RuntimeError, match="experts load whole or not at all"):
        module.load_state_dict(seed, strict=False)


def test_a_shard_stays_a_shard(layer: Small, device: torch.device) -> None:
    wide = Shape(4, 4, 2, 128, 256, 1)
    packed = pack(seed_state(layer.layer, wide, device, seed=0), layer.layer, shard=(1, 2))
    assert QuantExperts.from_packed(packed).packed().shard == (1, 2)


def test_copies_share_the_manifest(layer: Small, experts: QuantExperts) -> None:
    batch = layer.batch
    want = experts.forward_tokens(batch.hidden, batch.ids, batch.weights)
    twin = copy.deepcopy(experts)
    assert twin.manifest is experts.manifest
    assert torch.equal(twin.forward_tokens(batch.hidden, batch.ids, batch.weights), want)


def test_forward_takes_sorted_rows(layer: Small, experts: QuantExperts) -> None:
    hidden = layer.batch.hidden
    counts = torch.tensor([3, 0, 4, 2], dtype=torch.int32, device=hidden.device)
    assert torch.equal(experts(hidden, counts), layer.rows(hidden, [3, 0, 4, 2]).out)


def test_forward_tokens(layer: Small, experts: QuantExperts) -> None:
    batch = layer.batch
    got = experts.forward_tokens(batch.hidden, batch.ids, batch.weights)
    assert torch.equal(got, layer.tokens().out)


def test_only_who_follows_ops_is_given_one(
    layer: Small, experts: QuantExperts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others do without: it costs the host as much time as the layer. Bits are the same."""
    called: list[str] = []

    def watch(op: Callable[..., torch.Tensor], name: str) -> Callable[..., torch.Tensor]:
        def watched(*arguments: Any) -> torch.Tensor:
            called.append(name)
            return op(*arguments)

        return watched

    monkeypatch.setattr(module, "experts_tokens", watch(experts_tokens, "tokens"))
    monkeypatch.setattr(module, "experts_rows", watch(experts_rows, "rows"))
    hidden, given = layer.batch.hidden, layer.batch
    counts = torch.full((4,), 2, dtype=torch.int32, device=hidden.device)

    def both(hidden: torch.Tensor) -> list[torch.Tensor]:
        called.clear()
        tokens = experts.forward_tokens(hidden, given.ids, given.weights)
        return [tokens, experts(hidden, counts)]

    want = both(hidden)
    assert called == []
    with FlopCounterMode(display=False):
        assert all(map(torch.equal, both(hidden), want))
    assert called == ["tokens", "rows"]
    learned = hidden.clone().requires_grad_()
    for result in both(learned):
        with pytest.raises(RuntimeError):
            result.sum().backward()
    assert called == ["tokens", "rows"]
    with torch.no_grad():
        assert all(map(torch.equal, both(learned), want))
    assert called == []
    assert all(map(torch.equal, both(torch.nn.Parameter(hidden, requires_grad=False)), want))
    assert called == ["tokens", "rows"]


def test_from_packed_copies_nothing(layer: Small) -> None:
    module = QuantExperts.from_packed(layer.packed)
    assert module.up_weight.data_ptr() == layer.packed.up_weight.data_ptr()
    batch = layer.batch
    got = module.forward_tokens(batch.hidden, batch.ids, batch.weights)
    assert torch.equal(got, layer.tokens().out)


def test_custom_ops_pass_opcheck(layer: Small, experts: QuantExperts) -> None:
    batch, packed = layer.batch, list(layer.packed.tensors().values())
    folder = str(layer.manifest.directory)
    counts = torch.tensor([3, 0, 4, 2], dtype=torch.int32, device=batch.hidden.device)
    torch.library.opcheck(experts_rows, (batch.hidden, counts, *packed, LAYER, folder))
    tokens = (batch.hidden, batch.ids, batch.weights, *packed, LAYER, folder, 0)
    torch.library.opcheck(experts_tokens, tokens)


def test_the_layer_compiles_without_graph_breaks(layer: Small, experts: QuantExperts) -> None:
    batch = layer.batch

    def call(hidden: torch.Tensor) -> torch.Tensor:
        return experts.forward_tokens(hidden, batch.ids, batch.weights) + 1

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(batch.hidden), call(batch.hidden))


def moe(layer: Small, device: torch.device, **changes: int) -> QuantMoE:
    sizes = SIZES | {"top_k": 2} | changes
    module = QuantMoE(LAYER, **sizes, device=device)
    random = torch.Generator(device).manual_seed(5)
    shape = module.gating.gate_weight.shape
    module.gating.gate_weight.data = torch.randn(shape, device=device, generator=random)
    return module


def test_moe_is_gating_then_experts(
    layer: Small, experts: QuantExperts, device: torch.device
) -> None:
    module = moe(layer, device)
    state = {f"experts.{name}": each for name, each in experts.state_dict().items()}
    state["gating.gate_weight"] = module.gating.gate_weight.data.clone()
    module.load_state_dict(state)
    hidden = layer.batch.hidden
    ids, weights = module.gating(hidden)
    assert torch.allclose(weights.sum(1), torch.ones(10, device=device))
    want = layer.tokens(ids=ids, weights=weights).out
    assert torch.equal(module(hidden.view(2, 5, 128)), want.view(2, 5, 128))


def test_ranks_add_up_to_the_whole(layer: Small, device: torch.device) -> None:
    whole = moe(layer, device)
    seed = seed_state(layer.layer, layer.shape, device, seed=0)
    whole.experts.load_state_dict(seed)
    total = torch.zeros(10, 128, device=device)
    for first in (0, 2):
        rank = moe(layer, device, experts=2, global_experts=4, first_expert=first)
        rank.gating.gate_weight.data = whole.gating.gate_weight.data
        own = {name: each[first : first + 2] for name, each in seed.items()}
        rank.experts.load_state_dict(own)
        total += rank(layer.batch.hidden).float()
    want = whole(layer.batch.hidden).float()
    assert torch.allclose(total, want, rtol=2**-6, atol=2**-6 * float(want.abs().max()))


def test_bad_arguments(layer: Small) -> None:
    with pytest.raises(BuildError, match="holds no layer contract `nothing`"):
        QuantExperts("nothing", **SIZES)
    with pytest.raises(BuildError, match="does not exist; run `python -m generator build"):
        QuantExperts(LAYER, **SIZES, generated=Path("no-such-folder"))
    with pytest.raises(LaunchError, match=r"first_expert: 3 puts 4 local .* use 0 \.\. 0"):
        QuantMoE(LAYER, **SIZES, top_k=2, first_expert=3)


def test_a_hidden_size_that_pads_to_the_same_is_refused(
    layer: Small, experts: QuantExperts
) -> None:
    """Weights of 128 columns would take rows of 100, padded; the module knows better."""
    short = layer.batch.hidden[:, :100].contiguous()
    with pytest.raises(LaunchError, match=r"hidden: has shape \[10, 100\]; pass \[any, 128\]"):
        experts.forward_tokens(short, layer.batch.ids, layer.batch.weights)
    counts = torch.tensor([10, 0, 0, 0], dtype=torch.int32, device=short.device)
    with pytest.raises(LaunchError, match=r"hidden: has shape \[10, 100\]; pass \[any, 128\]"):
        experts(short, counts)


@pytest.mark.parametrize("name", [LAYER, INT4])
def test_odd_sizes_load_and_run(shipped: Manifest, device: torch.device, name: str) -> None:
    """H and I that are no multiple of 64: the state dict keeps its shapes, the ops theirs."""
    odd = small(shipped, device, name=name, hidden=90, intermediate=71)
    seed = seed_state(odd.layer, odd.shape, device, seed=0)
    module = QuantExperts(name, experts=4, hidden=90, intermediate=71, device=device)
    module.load_state_dict(seed)
    saved = module.state_dict()
    assert all(torch.equal(saved[key], seed[key]) for key in seed)
    batch = odd.batch
    got = module.forward_tokens(batch.hidden, batch.ids, batch.weights)
    assert got.shape == (10, 90) and torch.equal(got, odd.tokens().out)
    folder = str(shipped.directory)
    tokens = (batch.hidden, batch.ids, batch.weights, *module.packed().tensors().values())
    torch.library.opcheck(experts_tokens, (*tokens, name, folder, 0), test_utils="test_faketensor")


def test_int4_stays_two_to_a_byte(shipped: Manifest, device: torch.device) -> None:
    module = QuantExperts(INT4, **SIZES, device=device)
    held = sum(each.numel() for each in module.buffers() if each.dtype == torch.int8)
    assert held * 2 == 4 * (2 * 128 * 128 + 128 * 128)


def test_pack_and_module_agree(layer: Small, experts: QuantExperts, device: torch.device) -> None:
    packed = pack(seed_state(layer.layer, layer.shape, device, seed=0), layer.layer)
    for name, value in packed.tensors().items():
        assert torch.equal(getattr(experts, name), value)
