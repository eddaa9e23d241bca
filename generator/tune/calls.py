"""One layer on one batch size, ready to be called again and again: weights, tokens, caller-owned
results and workspace.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from generator.runtime.device import targets_for
from generator.runtime.layer import LayerRun, run_tokens, tokens_problem, workspace_bytes
from generator.runtime.manifest import Layer, Manifest, Model
from generator.runtime.packed import PackedExperts
from generator.runtime.workspace import torch_dtype
from generator.tune.cases import Batch
from generator.tune.routing import draw
from generator.tune.timing import Subject
from generator.tune.work import Work, work_of
from generator.verify.inputs import Tokens
from generator.verify.stages import poisoned, poisoned_bytes


def random_tokens(
    model: Model, layer: Layer, batch: Batch, device: torch.device, seed: int
) -> Tokens:
    """Normal hidden states [T, H], and ids and weights [T, k] by the batch's routing."""
    random = torch.Generator(device).manual_seed(seed)
    hidden = torch.randn(batch.tokens, model.hidden, device=device, generator=random)
    ids, weights = draw(
        batch.routing,
        tokens=batch.tokens,
        top_k=model.top_k,
        experts=model.global_experts,
        random=random,
    )
    return Tokens(hidden.to(torch_dtype(layer.dtype)), ids, weights)


@dataclass(frozen=True)
class Prepared:
    """Calls in turn: call i takes tokens i, result i, and copy i of the weights, modulo the
    copies. The workspace is one, as layers of a model share it.
    """

    layer: Layer
    manifest: Manifest
    copies: tuple[PackedExperts, ...]
    tokens: tuple[Tokens, ...]
    outs: tuple[torch.Tensor, ...]  # [T, H], the layer's dtype
    workspace: torch.Tensor  # bytes
    plan: str | None = None  # None: the one that selection takes

    @property
    def device(self) -> torch.device:
        return self.workspace.device

    def packed(self, index: int) -> PackedExperts:
        return self.copies[index % len(self.copies)]

    def run(self, index: int, workspace: torch.Tensor | None = None) -> LayerRun:
        """Call `index`, in the shared workspace or another."""
        given = self.tokens[index]
        return run_tokens(
            self.packed(index),
            given.hidden,
            given.ids,
            given.weights,
            self.manifest,
            out=self.outs[index],
            workspace=self.workspace if workspace is None else workspace,
            plan=self.plan,
        )

    def subject(self) -> Subject:
        """The whole layer, to be timed."""
        return Subject("layer", tuple(partial(self.run, i) for i in range(len(self.tokens))))

    def poison(self) -> None:
        """Overwrite the results, so that a call that writes nothing shows."""
        for out in self.outs:
            out.copy_(poisoned(out))

    @property
    def works(self) -> list[Work]:
        """What each call must do."""
        return [
            work_of(self.copies[0], each.ids, each.hidden.element_size()) for each in self.tokens
        ]


def prepare(
    manifest: Manifest,
    layer: Layer,
    copies: tuple[PackedExperts, ...],
    tokens: tuple[Tokens, ...],
    plan: str | None = None,
) -> Prepared:
    """Allocate results and workspace. Raises NoVariantError where no module accepts the batch."""
    device = tokens[0].hidden.device
    count, top_k = tokens[0].ids.shape
    problem = tokens_problem(copies[0], count, top_k, targets_for(device, manifest), plan)
    return Prepared(
        layer,
        manifest,
        copies,
        tokens,
        tuple(poisoned(each.hidden) for each in tokens),
        poisoned_bytes(workspace_bytes(problem, manifest), device),
        plan,
    )
