"""What is remembered of a layer call: all that does not depend on where its tensors lie.

`layer.py` finds it by the call's facts (`facts`), which are everything that its checks ask for but
addresses. So what is found was checked, and a call whose facts are known costs no selection, no
layout and no arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter

import torch

from . import launch, sequence
from .direct import Grid, Launcher, launcher
from .entry import Entry
from .launch import Tensors
from .manifest import Layer, Manifest
from .packed import SEED_NAMES, PackedExperts
from .problem import LayerProblem
from .select import MEMO, LayerChoice, select_layer
from .workspace import Layout, buffers, layout

weights_of = attrgetter(*SEED_NAMES)  # the tensors of PackedExperts, in that order

NOWHERE = torch.device("meta")
Facts = tuple[object, ...]
Switches = tuple[object, ...]  # of `direct.switches`


@dataclass(frozen=True, slots=True)
class Stage:
    """One launch of a call, its tensors by name."""

    entry: Entry
    grid: tuple[int, ...]
    tensors: tuple[str, ...]
    counts: tuple[int, ...]

    def by_jit(self, given: Tensors) -> object:
        """Launch as Triton does; what it compiled, if it compiles."""
        tensors = tuple(given[name] for name in self.tensors)
        return launch.by_jit(self.entry, self.grid, tensors, self.counts)


@dataclass(frozen=True)
class Prepared:
    """A call before it has tensors."""

    device: torch.device
    problem: LayerProblem
    choice: LayerChoice
    layout: Layout  # of the intermediates in the workspace
    given: tuple[str, ...]  # tensors of the call, by name: the caller's, the weights, the output
    stages: tuple[Stage, ...]
    launchers: dict[Switches, tuple[Launcher, ...]] = field(default_factory=dict)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Of the intermediates, in the order in which they follow `given`."""
        return tuple(self.layout.offsets.values())

    def by_jit(self, given: Tensors, state: Switches | None) -> None:
        """Launch every stage through Triton's JIT, and keep what that compiled under `state`."""
        made = [each.by_jit(given) for each in self.stages]
        if state is None:
            return
        places = {name: i for i, name in enumerate((*self.given, *self.layout.offsets))}
        launchers = [
            launcher(
                each.entry,
                compiled,
                _whole(each.grid),
                [places[name] for name in each.tensors],
                each.counts,
            )
            for each, compiled in zip(self.stages, made, strict=True)
        ]
        kept = tuple(each for each in launchers if each is not None)
        if len(kept) == len(launchers):
            self.launchers[state] = kept


def _whole(grid: tuple[int, ...]) -> Grid:
    x, y, z = (*grid, 1, 1)[:3]
    return x, y, z


def facts(
    packed: PackedExperts, tensors: tuple[torch.Tensor, ...], *options: object
) -> Facts | None:
    """What tells calls apart; `tensors` are the caller's and the weights. None for what is no
    tensor.
    """
    try:
        return (
            packed.layer,
            packed.layout,
            packed.experts,
            packed.hidden,
            packed.intermediate,
            *options,
            *[(each.shape, each.dtype, each.device, each.is_contiguous()) for each in tensors],
        )
    except AttributeError:
        return None


def remember(manifest: Manifest, known: Facts | None, prepared: Prepared) -> None:
    """Keep it for calls of the same facts. Those on tensors without storage are played through for
    their launches alone, by choices that are made by hand.
    """
    if known is None or prepared.device == NOWHERE:
        return
    if len(manifest.prepared) >= MEMO:
        manifest.prepared.clear()
    manifest.prepared[known] = prepared


def prepare(
    problem: LayerProblem,
    layer: Layer,
    manifest: Manifest,
    packed: PackedExperts,
    caller: Tensors,
    first_expert: int = 0,
) -> Prepared:
    """Choose, lay out, and write down the launches. Raises NoVariantError where nothing accepts the
    problem.
    """
    chosen, device = select_layer(problem, manifest), caller["hidden"].device
    if problem.rows == 0:
        return Prepared(device, problem, chosen, layout({}), (), ())
    placed = layout(buffers(problem, layer, chosen.block_m, chosen.stages))
    given = {name: each.shape for name, each in caller.items()}
    given |= {name: each.shape for name, each in packed.tensors().items()}
    given["output"] = caller["hidden"].shape
    shapes = given | {name: torch.Size(each.shape) for name, each in placed.buffers.items()}
    # Tensors without storage stand for the call's: each is one name, whatever callers pass twice.
    stand_ins = {name: torch.empty(shape, device=NOWHERE) for name, shape in shapes.items()}
    names = {id(each): name for name, each in stand_ins.items()}
    stages: list[Stage] = []

    def write_down(
        entry: Entry,
        grid: tuple[int, ...],
        tensors: tuple[torch.Tensor, ...],
        counts: tuple[int, ...],
    ) -> None:
        stages.append(Stage(entry, grid, tuple(names[id(each)] for each in tensors), counts))

    if problem.start == "tokens":
        sequence.from_tokens(chosen, stand_ins, write_down, first_expert=first_expert)
    else:
        sequence.from_rows(chosen, stand_ins, write_down)
    return Prepared(device, problem, chosen, placed, tuple(given), tuple(stages))
