"""What a layer is compared with: torch in bf16, vLLM, and the algorithm of the seed.

Each is a subject for the same timer, on the same tokens, or the reason why it has no row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch

from generator.errors import NoVariantError
from generator.runtime.layer import LayerRun
from generator.runtime.manifest import Manifest, Model
from generator.tune.calls import Prepared
from generator.tune.rotation import copies_allowed, memory_of
from generator.tune.seed_layer import BUILD, SeedCall, seed_calls, seed_subject
from generator.tune.timing import Subject
from generator.tune.torch_layer import TorchExperts, random_torch_experts, torch_layer
from generator.tune.vllm_layer import REFUSALS, unavailable, vllm_layer

TORCH, VLLM, SEED = "bf16 torch", "vllm int8", "seed"


@dataclass(frozen=True, slots=True)
class Absent:
    """A baseline without times."""

    name: str
    why: str


@dataclass(frozen=True)
class Baseline:
    """A baseline that ran once."""

    subject: Subject
    seed_call: SeedCall | None = None  # call 0, where its bits are the layer's
    run: LayerRun | None = None  # what that chose


def external(prepared: Prepared, model: Model, seed: int) -> Iterator[Baseline | Absent]:
    """Other people's layers."""
    yield _tried(TORCH, lambda: _torch(prepared, model, seed), (ValueError, RuntimeError))
    why = unavailable(prepared.layer)
    if why is not None:
        yield Absent(VLLM, why)
    else:
        yield _tried(VLLM, lambda: _vllm(prepared, model), REFUSALS)


def seed_baseline(prepared: Prepared, manifest: Manifest | None) -> Baseline | Absent:
    """The seed's algorithm in modules of `ilu`."""
    if manifest is None:
        return Absent(SEED, f"pass --seed-modules DIR of `{BUILD}`")
    if prepared.layer.name not in manifest.layers:
        return Absent(SEED, "its modules hold no such layer")
    try:
        calls = seed_calls(manifest, prepared.copies, prepared.tokens)
    except NoVariantError as error:
        return Absent(SEED, error.findings[0].what)
    return Baseline(seed_subject(calls), calls[0], calls[0].run())


def _tried(
    name: str, make: Callable[[], Subject], refusals: tuple[type[Exception], ...]
) -> Baseline | Absent:
    """A baseline that ran its first call, or the one of `refusals` that was raised instead."""
    try:
        subject = make()
        subject.eager_calls[0]()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    except refusals as error:
        return Absent(name, f"failed: {type(error).__name__}: {_first_line(error)}")
    return Baseline(subject)


def _torch(prepared: Prepared, model: Model, seed: int) -> Subject:
    """On half as many copies as ours: weights of twice the bytes or more leave the cache as
    soon.
    """
    wanted = -(-len(prepared.copies) // 2)
    first = random_torch_experts(model, prepared.device, seed)
    size = (first.up.numel() + first.down.numel()) * first.up.element_size()
    if prepared.device.type == "cuda":
        wanted = min(wanted, copies_allowed(size, memory_of(prepared.device)))
    others = (TorchExperts(first.up.clone(), first.down.clone()) for _ in range(wanted - 1))
    experts = (first, *others)
    tokens = [replace(each, hidden=each.hidden.to(torch.bfloat16)) for each in prepared.tokens]
    calls = (
        partial(torch_layer, experts[index % wanted], given) for index, given in enumerate(tokens)
    )
    return Subject(TORCH, tuple(calls))


def _vllm(prepared: Prepared, model: Model) -> Subject:
    layers = [vllm_layer(each, model.global_experts) for each in prepared.copies]
    calls = (
        partial(layers[index % len(layers)], given) for index, given in enumerate(prepared.tokens)
    )
    return Subject(VLLM, tuple(calls))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "no message")
