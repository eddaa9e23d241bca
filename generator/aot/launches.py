"""Which kernels the runtime launches, and with what arguments: the runtime's own code is run on
tensors without storage, and every launch is written down instead of done.

Runs in worker processes only: it replaces the kernels of the manifest's entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from math import lcm
from typing import Any

import torch

from generator.conditions import Multiple
from generator.errors import NoVariantError
from generator.packing import K_UNIT
from generator.runtime.entry import Entry
from generator.runtime.layer import rows_problem, run_rows, run_tokens, tokens_problem
from generator.runtime.manifest import Layer, LayerPlan, Manifest, Model
from generator.runtime.packed import PackedExperts, kernel_shapes
from generator.runtime.select import Choice, LayerChoice
from generator.runtime.workspace import torch_dtype

NOWHERE = torch.device("meta")
IDS = (torch.int32, torch.int64)  # dtypes in which expert ids may come
INT32_MAX = 2**31 - 1
ROW_TILE = 16  # of a layer's call; kernels take its rows as a number that they do not specialize

LONG = 1 << 31  # bytes of a storage for which AMD kernels are compiled anew
PACKED = -1  # the storage of weights, which has the length of a model's
Argument = int | tuple[str, int, int]  # a number, or a tensor's dtype, bytes and storage


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch of an emitted kernel."""

    symbol: str
    arguments: tuple[Argument, ...]


def specialized(kernel: Any, arguments: tuple[Argument, ...]) -> tuple[object, ...]:
    """All of the arguments that Triton may compile a kernel anew for: dtypes, integers longer than
    32 bits, and of integers that the kernel lets it specialize which are 1 or a multiple of 16. So
    are, on AMD, storages from 2 GiB on; `lengths` adds those. Every tensor starts at a multiple of
    16 bytes, or its kernel does not let its start count.
    """
    return tuple(
        each[0]
        if isinstance(each, tuple)
        else (each > INT32_MAX, not parameter.do_not_specialize and (each == 1, each % 16 == 0))
        for parameter, each in zip(kernel.params, arguments, strict=True)
    )


def pattern(arguments: tuple[Argument, ...]) -> tuple[object, ...]:
    """What else tells launches apart where lengths of storages count: which tensors share one, and
    whether one of the weights, which `lengths` leaves alone, is long.
    """
    return tuple(
        (each[2], each[2] == PACKED and each[1] >= LONG)
        for each in arguments
        if isinstance(each, tuple)
    )


def lengths(launch: Launch) -> Iterator[Launch]:
    """The launch with every combination of its callers' storages below and from 2 GiB on."""
    storages = sorted({each[2] for each in launch.arguments if isinstance(each, tuple)} - {PACKED})
    for sizes in product((0, LONG), repeat=len(storages)):
        yield _resized(launch, dict(zip(storages, sizes, strict=True)))


def extremes(launch: Launch) -> Iterator[Launch]:
    """The launch with all of its storages below 2 GiB, and with all from there on."""
    storages = {each[2] for each in launch.arguments if isinstance(each, tuple)}
    for size in (0, LONG):
        yield _resized(launch, dict.fromkeys(storages, size))


def _resized(launch: Launch, sizes: Mapping[int, int]) -> Launch:
    return Launch(
        launch.symbol,
        tuple(
            each if isinstance(each, int) else (each[0], sizes.get(each[2], each[1]), each[2])
            for each in launch.arguments
        ),
    )


@dataclass
class _Recorder:
    """Stands for an entry's kernel."""

    symbol: str
    kernel: Any
    launches: dict[tuple[object, ...], Launch]
    packed: set[int]  # storages of weights
    long: bool

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return self._record

    def _record(self, *arguments: int | torch.Tensor, **_: object) -> None:
        storages = dict.fromkeys(self.packed, PACKED)  # others are numbered in order of use
        plain = tuple(
            each if isinstance(each, int) else _plain(each, storages) for each in arguments
        )
        key = (self.symbol, *specialized(self.kernel, plain))
        key += pattern(plain) if self.long else ()
        self.launches.setdefault(key, Launch(self.symbol, plain))


def _plain(tensor: torch.Tensor, storages: dict[int, int]) -> tuple[str, int, int]:
    storage = tensor.untyped_storage()
    index = storages.setdefault(storage._cdata, len(storages))
    return str(tensor.dtype).removeprefix("torch."), storage.nbytes(), index


class Launches:
    """Collects the distinct launches of calls on one manifest, whose kernels it stands in for while
    it is open. `long`: the target's kernels are compiled anew for storages from 2 GiB on.
    """

    def __init__(self, manifest: Manifest, *, long: bool = False) -> None:
        self.manifest = manifest
        self.long = long
        self.found: dict[tuple[object, ...], Launch] = {}
        self.packed: set[int] = set()

    def __enter__(self) -> Launches:
        for entry in self.manifest.entries:
            vars(entry)["kernel"] = _Recorder(
                entry.symbol, entry.kernel, self.found, self.packed, self.long
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.manifest.choices.clear()  # some of them were made by hand
        for entry in self.manifest.entries:
            vars(entry)["kernel"] = getattr(entry.module, entry.symbol)

    def of_entries(self, symbols: Iterable[str]) -> list[Launch]:
        """Every way in which layers launch some entries; nothing for one that no layer uses."""
        wanted = dict.fromkeys(symbols)
        for entry in self.manifest.entries:
            if entry.symbol in wanted:
                self._alone(entry)
        return [each for each in self.found.values() if each.symbol in wanted]

    def _alone(self, entry: Entry) -> None:
        """Run a layer that has the entry chosen."""
        for layer in self.manifest.layers.values():
            for plan in layer.plans:
                for start, names in (("tokens", plan.tokens), ("rows", plan.rows)):
                    if entry.contract in names:
                        self._chosen(layer, plan, start, names, entry)
                        return

    def _chosen(
        self, layer: Layer, plan: LayerPlan, start: str, names: tuple[str, ...], entry: Entry
    ) -> None:
        stages = {}
        for name in names:
            one = entry if name == entry.contract else self.manifest.by_contract[name][0]
            stages[self.manifest.contracts[name]["operation"]] = Choice(one, "to be compiled")
        units = lcm(K_UNIT, *(each for one in stages.values() for each in _multiples(one.entry)))
        packed = experts(layer, 2, units, units)
        choice = LayerChoice(plan, "to be compiled", stages, ROW_TILE)
        self._call(packed, start, 16, 2, (entry.target,), plan.name, choice)

    def of_models(self, models: Iterable[Model], targets: tuple[str, ...]) -> list[Launch]:
        """Every launch that some number of tokens can lead to, in either way in, in every plan."""
        for model in models:
            for name in model.layers:
                layer = self.manifest.layers[name]
                packed = experts(layer, model.experts, model.hidden, model.intermediate)
                self._call(packed, "tokens", 1, model.top_k, targets, None)  # it is served at all
                for plan in (None, *(each.name for each in layer.plans)):
                    for tokens in token_counts(self.manifest, model):
                        for start in ("tokens", "rows"):
                            with suppress(NoVariantError):  # more rows than the limits, or no plan
                                self._call(packed, start, tokens, model.top_k, targets, plan)
        return list(self.found.values())

    def _call(
        self,
        packed: PackedExperts,
        start: str,
        tokens: int,
        top_k: int,
        targets: tuple[str, ...],
        plan: str | None,
        choice: LayerChoice | None = None,
    ) -> None:
        """One layer call; `choice` goes where selection remembers its own."""
        manifest = self.manifest
        self.packed.clear()
        self.packed |= {each.untyped_storage()._cdata for each in packed.tensors().values()}
        dtype = torch_dtype(manifest.layers[packed.layer].dtype)
        if start == "rows":
            if choice is not None:
                problem = rows_problem(packed, tokens, targets, plan)
                manifest.choices[problem] = choice
            hidden = torch.empty(tokens, packed.hidden, dtype=dtype, device=NOWHERE)
            counts = torch.empty(packed.experts, dtype=torch.int32, device=NOWHERE)
            run_rows(packed, hidden, counts, manifest, targets=targets, plan=plan)
            return
        if choice is not None:
            problem = tokens_problem(packed, tokens, top_k, targets, plan)
            manifest.choices[problem] = choice
        hidden = torch.empty(tokens, packed.hidden, dtype=dtype, device=NOWHERE)
        weights = torch.empty(tokens, top_k, dtype=torch.float32, device=NOWHERE)
        for ids_dtype in IDS:
            ids = torch.empty(tokens, top_k, dtype=ids_dtype, device=NOWHERE)
            run_tokens(packed, hidden, ids, weights, manifest, targets=targets, plan=plan)


def token_counts(manifest: Manifest, model: Model) -> list[int]:
    """Numbers of tokens, or of rows, between which selection chooses alike: the first of each band,
    and powers of two, of which each side of any limit has one.
    """
    ranges = [band for bands in manifest.bands.values() for band in bands]
    edges = {each.low * model.experts for each in ranges}
    counts = {1 << power for power in range(INT32_MAX.bit_length() - 1)} | set(model.tokens)
    for edge in edges:
        counts |= {edge, -(-edge // model.top_k)}
    return sorted(counts)


def _multiples(entry: Entry) -> Iterator[int]:
    return (each.by for each in entry.requires if isinstance(each, Multiple))


def experts(layer: Layer, count: int, hidden: int, intermediate: int) -> PackedExperts:
    """Packed weights without storage."""
    dtypes = {"weight": torch.int8, "scale": torch_dtype(layer.scale), "smooth": torch.float32}
    tensors: Mapping[str, Any] = {
        name: torch.empty(shape, dtype=dtypes[name.rpartition("_")[2]], device=NOWHERE)
        for name, shape in kernel_shapes(layer, count, hidden, intermediate).items()
    }
    return PackedExperts(layer.name, count, hidden, intermediate, **tensors)
