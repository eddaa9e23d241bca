"""Compare a finished layer call stage by stage, each oracle fed with that stage's real input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from generator.packing import CHUNK
from generator.runtime import launch, reference
from generator.runtime.device import current, runs
from generator.runtime.device_exp import device_exp_table
from generator.runtime.entry import Entry
from generator.runtime.layer import LayerRun
from generator.runtime.manifest import Layer, Manifest
from generator.runtime.pack import int8_weights
from generator.runtime.packed import PackedExperts
from generator.runtime.workspace import tile_bound, torch_dtype
from generator.verify.compare import Comparison, compare

Pairs = list[tuple[torch.Tensor, torch.Tensor]]
Fresh = Callable[[torch.Tensor], torch.Tensor]  # new storage of the same shape and dtype
ANY_NAN = 0x7F800001  # the least fp32 bit pattern of a NaN; which NaN is the device's affair
POISON = 0x5A  # bytes of a buffer that a variant must overwrite


@dataclass(frozen=True)
class Checked:
    """A call and what the oracle makes of it. `ids` and `weights`, or `counts`, as the call took
    them.
    """

    packed: PackedExperts
    layer: Layer
    run: LayerRun
    hidden: torch.Tensor
    ids: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    counts: torch.Tensor | None = None
    first_expert: int = 0

    @cached_property
    def exp_table(self) -> torch.Tensor:
        dtype, device = torch_dtype(self.layer.dtype), self.hidden.device
        make = reference.exp_table if self.layer.exp == "exact" else device_exp_table
        return make(dtype, device)

    def routing(self, block_m: int, tiles: int) -> reference.Routing:
        experts = self.packed.experts
        if self.ids is not None:
            return reference.route_ids(self.ids, experts, self.first_expert, block_m, tiles)
        assert self.counts is not None
        return reference.route_counts(self.counts, self.run.problem.rows, block_m, tiles)

    @cached_property
    def present(self) -> int:
        """Rows that an expert owns; they come first."""
        return int((self.run.buffers["row_expert"] >= 0).sum())

    @property
    def requantizes(self) -> bool:
        """Whether the plan has a kernel for it, which finds each row's amax itself."""
        return "requantize" in self.run.choice.stages

    @property
    def row_expert(self) -> torch.Tensor:
        return self.run.buffers["row_expert"][: self.present]

    @cached_property
    def inputs(self) -> torch.Tensor:
        """The hidden states, with zeros behind them where the layer pads its H."""
        more = self.run.problem.hidden - self.hidden.shape[1]
        return torch.nn.functional.pad(self.hidden, (0, more)) if more else self.hidden

    @property
    def rows_in(self) -> torch.Tensor:
        """What the quantize stage read, row by row."""
        if self.weights is None:
            return self.inputs[: self.present]
        slots = self.run.buffers["row_slot"][: self.present].long()
        return self.inputs[slots // self.weights.shape[1]]

    @cached_property
    def hidden_codes(self) -> tuple[torch.Tensor, torch.Tensor]:
        smooth = self.packed.up_inv_smooth
        return reference.quantize(self.rows_in, smooth, self.row_expert, self.layer.rounding)

    @cached_property
    def activation(self) -> torch.Tensor:
        own, packed = self.run.buffers, self.packed
        y = reference.gemm(
            own["hidden_codes"][: self.present],
            own["hidden_scale"][: self.present],
            int8_weights(packed.up_weight, self.layer, self.layer.up_group),
            packed.up_scale,
            self.row_expert,
            self.layer.up_group,
        )
        dtype, intermediate = torch_dtype(self.layer.dtype), torch_dtype(self.layer.intermediate)
        return reference.swiglu(y, dtype, intermediate, self.exp_table)

    @cached_property
    def activation_codes(self) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self.run.buffers["activation"][: self.present]
        smooth = self.packed.down_inv_smooth
        return reference.quantize(rows, smooth, self.row_expert, self.layer.rounding)

    @cached_property
    def row_amax(self) -> torch.Tensor:
        rows = self.run.buffers["activation"][: self.present]
        return reference.amax_bits(rows, self.packed.down_inv_smooth, self.row_expert)

    @cached_property
    def expert_output(self) -> torch.Tensor:
        own, packed = self.run.buffers, self.packed
        codes, scale = self.activation_codes
        if "activation_codes" in own:  # what the down kernel really read
            codes = own["activation_codes"][: self.present]
            scale = own["activation_scale"][: self.present]
        y = reference.gemm(
            codes,
            scale,
            int8_weights(packed.down_weight, self.layer, self.layer.down_group),
            packed.down_scale,
            self.row_expert,
            self.layer.down_group,
        ).to(torch_dtype(self.layer.dtype))
        if self.counts is None:
            return y
        return torch.cat([y, y.new_zeros(self.run.problem.rows - self.present, y.shape[1])])

    @cached_property
    def combined(self) -> torch.Tensor:
        assert self.weights is not None
        own = self.run.buffers
        return reference.combine(own["expert_output"], own["slot_row"], self.weights)

    def pairs(self, operation: str, got: dict[str, torch.Tensor], block_m: int) -> Pairs:
        """(got, want) of every tensor that an operation writes."""
        present = self.present
        if operation == "count":
            assert self.ids is not None
            counted = reference.count(self.ids, self.packed.experts, self.first_expert, CHUNK)
            return [(got["chunk_count"], counted)]
        if operation == "dispatch":
            routed = self.pairs("route", got, block_m)
            return routed + self.pairs("quantize", got, block_m)
        if operation == "route":
            want = self.routing(block_m, got["tile_expert"].numel())
            pairs = [(got["row_expert"], want.row_expert)]
            if self.ids is not None:
                pairs += [
                    (got["slot_row"], want.slot_row),
                    (got["row_slot"][: want.row_slot.numel()], want.row_slot),
                ]
            tiles = ("tile_expert", "tile_start", "tile_end")
            return pairs + [(got[each], getattr(want, each)) for each in tiles]
        if operation in ("quantize", "requantize"):
            names = {
                "quantize": ("hidden_codes", "hidden_scale"),
                "requantize": ("activation_codes", "activation_scale"),
            }[operation]
            oracle = self.hidden_codes if operation == "quantize" else self.activation_codes
            return [(got[name][:present], want) for name, want in zip(names, oracle, strict=True)]
        if operation == "up":
            pairs = [(got["activation"][:present], self.activation)]
            if not self.requantizes:
                amax = got["row_amax"][:present].clamp(max=ANY_NAN)
                pairs.append((amax, self.row_amax.clamp(max=ANY_NAN)))
            return pairs
        if operation == "down":
            want_y = self.expert_output
            return [(got["expert_output"][: want_y.shape[0]], want_y)]
        return [(got["output"], self.combined)]

    def written(self) -> dict[str, torch.Tensor]:
        """What the call wrote, by the names of `pairs`."""
        last = "output" if self.ids is not None else "expert_output"
        return self.run.buffers | {last: self.run.buffers.get("output_wide", self.run.out)}


def poisoned(like: torch.Tensor) -> torch.Tensor:
    """Storage full of a pattern that no result has: what a kernel leaves unwritten shows."""
    return torch.full_like(like.contiguous().view(torch.uint8), POISON).view(like.dtype)


def poisoned_bytes(count: int, device: torch.device) -> torch.Tensor:
    return torch.full((count,), POISON, dtype=torch.uint8, device=device)


def check_stages(checked: Checked) -> Iterator[Comparison]:
    """The stages of one call, in launch order."""
    chosen = checked.run.choice
    for operation, choice in chosen.stages.items():
        pairs = checked.pairs(operation, checked.written(), chosen.block_m)
        yield compare(operation, pairs, choice.entry.name, choice.why)


def check_variants(
    checked: Checked, manifest: Manifest, fresh: Fresh = poisoned
) -> Iterator[Comparison]:
    """Every entry of every stage's contract that accepts the call, run again into `fresh` buffers:
    poisoned ones show what is not written. Dots that are not right on the device are left out.
    """
    own = manifest.targets[checked.run.problem.targets[0]]
    for operation, choice in checked.run.choice.stages.items():
        problem = checked.run.problem.problem(choice.entry.contract, operation)
        for entry in manifest.by_contract[choice.entry.contract]:
            startable = runs(entry, manifest.targets[entry.target], checked.hidden.device)
            startable = startable and (entry.dot is None or entry.dot in own.dots)
            if startable and all(each.holds(problem.sizes()) for each in entry.requires):
                yield check_entry(checked, entry, operation, fresh)


def check_entry(
    checked: Checked, entry: Entry, operation: str, fresh: Fresh = poisoned
) -> Comparison:
    """One entry against the oracle, on the inputs that its stage really had."""
    block_m = checked.run.choice.block_m
    got = {name: fresh(each) for name, each in checked.written().items()}
    if operation in ("up", "down"):
        assert entry.block_m is not None
        block_m = entry.block_m
        got |= tile_map(checked, block_m)
        if not checked.requantizes:
            got["row_amax"] = torch.zeros_like(got["row_amax"])
    with current(checked.hidden.device):
        relaunch(checked, entry, operation, got)
    return compare(operation, checked.pairs(operation, got, block_m), entry.name, "every variant")


def tile_map(checked: Checked, block_m: int) -> dict[str, torch.Tensor]:
    """The oracle's, for another row tile than the call had."""
    problem = checked.run.problem
    want = checked.routing(block_m, tile_bound(problem.rows, problem.experts + 1, block_m))
    return {each: getattr(want, each) for each in ("tile_expert", "tile_start", "tile_end")}


def relaunch(checked: Checked, entry: Entry, operation: str, got: dict[str, torch.Tensor]) -> None:
    """One entry again, from what its stage read in the call to `got`, which also holds the tile map
    of GEMMs and the row_amax that an up kernel raises.
    """
    own, packed, block_m = checked.run.buffers, checked.packed, checked.run.choice.block_m
    experts, first = packed.experts, checked.first_expert
    if operation == "count":
        assert checked.ids is not None
        launch.count(entry, checked.ids, got, experts=experts, first_expert=first)
    elif operation == "route" and checked.ids is not None:
        counted = got | {"chunk_count": own["chunk_count"]}
        launch.route_ids(
            entry, checked.ids, counted, experts=experts, first_expert=first, block_m=block_m
        )
    elif operation == "route":
        assert checked.counts is not None
        rows = checked.run.problem.rows
        launch.route_counts(entry, checked.counts, got, rows=rows, block_m=block_m)
    elif operation == "dispatch":
        assert checked.ids is not None
        launch.dispatch(
            entry,
            checked.inputs,
            checked.ids,
            packed.up_inv_smooth,
            got,
            first_expert=checked.first_expert,
            block_m=block_m,
        )
    elif operation == "quantize":
        gathers = checked.ids is not None
        launch.quantize(
            entry,
            checked.inputs,
            packed.up_inv_smooth,
            own["row_expert"],
            got["hidden_codes"],
            got["hidden_scale"],
            row_slot=own["row_slot"] if gathers else None,
            top_k=checked.ids.shape[1] if checked.ids is not None else 1,
        )
    elif operation == "up":
        launch.gemm(
            entry,
            own["hidden_codes"],
            own["hidden_scale"],
            packed.up_weight,
            packed.up_scale,
            got,
            got["activation"],
            inv_smooth=None if checked.requantizes else packed.down_inv_smooth,
        )
    elif operation == "requantize":
        launch.quantize(
            entry,
            own["activation"],
            packed.down_inv_smooth,
            own["row_expert"],
            got["activation_codes"],
            got["activation_scale"],
        )
    elif operation == "down" and checked.requantizes:
        launch.gemm(
            entry,
            own["activation_codes"],
            own["activation_scale"],
            packed.down_weight,
            packed.down_scale,
            got,
            got["expert_output"],
        )
    elif operation == "down":
        launch.gemm_of_activation(
            entry,
            own["activation"],
            packed.down_inv_smooth,
            packed.down_weight,
            packed.down_scale,
            got | {"row_amax": own["row_amax"]},
            got["expert_output"],
        )
    elif operation == "combine":
        assert checked.weights is not None
        launch.combine(entry, own["expert_output"], own["slot_row"], checked.weights, got["output"])
