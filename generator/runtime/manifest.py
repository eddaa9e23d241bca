"""manifest.json as the runtime reads it: entries, layers, selection bands."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from ..conditions import Condition, Multiple, condition_from_data, nearest_timed
from ..errors import BuildError, Finding
from .entry import Count, Entry, damaged

DIMENSIONS = {"rows", "N", "K", "experts"}  # what conditions and counts may speak of
SCHEMA = 6  # the manifest that this reader understands


@dataclass(frozen=True, slots=True)
class Compiler:
    """What Triton compiles for where no device of a target is at hand."""

    backend: str
    arch: int | str
    warp_size: int
    stand_in: bool  # the device's own Triton is another


@dataclass(frozen=True, slots=True)
class Target:
    """What tells a device's modules from another's."""

    name: str
    backend: str
    capability: tuple[int, int] | None
    dots: tuple[str, ...]  # dot strategies that compile right for it
    shared_memory: int  # bytes that one of its programs may take
    registers: int  # 32-bit vector registers that one of its threads may take
    matrix: tuple[
        tuple[str, int], ...
    ]  # matrix instructions, and the rows that they take, at least
    compiler: Compiler | None


@dataclass(frozen=True, slots=True)
class RowRange:
    """Rows per expert, both ends included; high None has no upper end."""

    low: int
    high: int | None

    def holds(self, rows_per_expert: int) -> bool:
        return self.low <= rows_per_expert and (self.high is None or rows_per_expert <= self.high)


@dataclass(frozen=True, slots=True)
class Band(RowRange):
    """Designs by preference for a range of rows per expert."""

    designs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tuned:
    """Designs of one GEMM contract at one shape, as measured on a device: by routed rows, which
    ascend.
    """

    n: int
    k: int
    experts: int
    device: str
    date: str
    buckets: tuple[tuple[int, str], ...]

    def choice(self, rows: int, bands: Sequence[RowRange]) -> tuple[int, str] | None:
        """The rows nearest to a call's that say anything of it, and the design; None for none."""
        by_rows = dict(self.buckets)
        near = nearest_timed(by_rows, rows, self.experts, bands)
        return None if near is None else (near, by_rows[near])


@dataclass(frozen=True, slots=True)
class PlanChoice:
    """A layer plan, and the conditions on the down kernel's problem under which it is taken."""

    plan: str
    requires: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class PlanBand(RowRange):
    """Plans by preference for a range of rows per expert."""

    choices: tuple[PlanChoice, ...]


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """Contract names in launch order: from tokens with expert ids, and from sorted rows."""

    name: str
    tokens: tuple[str, ...]
    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer contract: its axes, the values between its stages, the plans that realise it."""

    name: str
    spec: str
    weights: str
    up_group: int | None
    down_group: int | None
    scale: str
    dtype: str
    intermediate: str
    rounding: str
    exp: str
    values: Mapping[str, str]
    plans: tuple[LayerPlan, ...]
    selection: Mapping[str, tuple[PlanBand, ...]]  # by target

    def plan(self, name: str) -> LayerPlan:
        """The plan of that name. Raises BuildError with the names there are."""
        for each in self.plans:
            if each.name == name:
                return each
        there = ", ".join(each.name for each in self.plans)
        raise BuildError(
            Finding(self.name, f"has no plan `{name}`, only {there}", "name one of them")
        )


@dataclass(frozen=True, slots=True)
class Model:
    """A real layer's shape and the layer contracts it is served with."""

    name: str
    experts: int
    global_experts: int
    top_k: int
    hidden: int
    intermediate: int
    tokens: tuple[int, ...]
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """Everything that one build emitted."""

    directory: Path
    targets: Mapping[str, Target]
    contracts: Mapping[str, Mapping[str, Any]]
    layers: Mapping[str, Layer]
    models: Mapping[str, Model]
    entries: tuple[Entry, ...]
    bands: Mapping[tuple[str, str], tuple[Band, ...]]  # by contract and target
    tuned: Mapping[tuple[str, str], tuple[Tuned, ...]]  # likewise
    choices: dict[Any, Any] = field(default_factory=dict, compare=False)  # memo of selection
    prepared: dict[Any, Any] = field(default_factory=dict, compare=False)  # memo of layer calls
    logged: set[Any] = field(default_factory=set, compare=False)  # choices told already

    @cached_property
    def by_contract(self) -> Mapping[str, tuple[Entry, ...]]:
        grouped: dict[str, list[Entry]] = {}
        for entry in self.entries:
            grouped.setdefault(entry.contract, []).append(entry)
        return {name: tuple(entries) for name, entries in grouped.items()}

    @cached_property
    def by_symbol(self) -> Mapping[str, Entry]:
        return {entry.symbol: entry for entry in self.entries}

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        """Copies and pickles of a model share one manifest a folder, and no imported modules."""
        return _load, (self.directory,)

    def layer(self, name: str) -> Layer:
        """The layer contract of that name. Raises BuildError with the names there are."""
        if name not in self.layers:
            raise BuildError(
                Finding(
                    str(self.directory / "manifest.json"),
                    f"holds no layer contract `{name}`, only {', '.join(self.layers) or 'none'}",
                    f"python -m generator build --contract {name} --out DIR",
                )
            )
        return self.layers[name]


def default_directory() -> Path:
    """The folder `generated`: inside the package in a bundle, otherwise beside it."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "generated"
    return inside if inside.is_dir() else package.parent / "generated"


def load(directory: Path | str | None = None) -> Manifest:
    """Read `directory`/manifest.json, by default of the shipped modules; each folder is read once.

    Raises BuildError where there is none, it is damaged, or a newer generator wrote it.
    """
    return _load(Path(directory or default_directory()).resolve())


@cache
def _load(directory: Path) -> Manifest:
    path = directory / "manifest.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise BuildError(
            Finding(str(path), "does not exist", "run `python -m generator build --out DIR`")
        ) from None
    except (OSError, ValueError) as error:
        raise BuildError(damaged(path, str(error))) from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(schema, int) or schema < 1:
        raise BuildError(damaged(path, "it has no schema number"))
    if schema < SCHEMA:
        raise BuildError(
            Finding(
                str(path),
                f"schema {schema} is older than this runtime, which reads schema {SCHEMA}",
                "run `python -m generator build` again",
            )
        )
    if schema > SCHEMA:
        raise BuildError(
            Finding(
                str(path),
                f"schema {schema} is newer than this runtime, which reads schema {SCHEMA}",
                "upgrade groupwise, or build again with this version",
            )
        )
    try:
        manifest = _manifest(directory, data)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BuildError(damaged(path, f"{type(error).__name__}: {error}")) from error
    broken = list(_inconsistencies(manifest))
    if broken:
        raise BuildError([damaged(path, each) for each in broken])
    return manifest


def _inconsistencies(manifest: Manifest) -> Iterator[str]:
    """Names that lead nowhere, and numbers that no kernel could have."""
    for entry in manifest.entries:
        if entry.contract not in manifest.contracts or entry.target not in manifest.targets:
            yield f"{entry.symbol} has no contract or no target"
        if any(each.unit < 1 or each.of not in DIMENSIONS for each in entry.counts):
            yield f"{entry.symbol} counts in impossible units"
        for condition in entry.requires:
            of = {condition.of} if isinstance(condition.of, str) else set(condition.of)
            bound = condition.by if isinstance(condition, Multiple) else condition.bound
            if not of <= DIMENSIONS or bound < 1:
                yield f"{entry.symbol} requires the impossible: {condition}"
        n_tiles = [each.unit for each in entry.counts if each.argument == "n_tiles"]
        if n_tiles and n_tiles != [entry.block_n]:
            yield f"{entry.symbol} counts columns in {n_tiles[0]}, not in block_n"
    designs = {(e.contract, e.target, e.design) for e in manifest.entries}
    for (contract, target), bands in manifest.bands.items():
        tables = manifest.tuned.get((contract, target), ())
        measured = {design for table in tables for _, design in table.buckets}
        for design in measured | {each for band in bands for each in band.designs}:
            if (contract, target, design) not in designs:
                yield f"the selection of {contract} names {target}/{design}, no entry"
    for layer in manifest.layers.values():
        if not layer.plans:
            yield f"{layer.name} has no plan"
        plans = {plan.name for plan in layer.plans}
        for ranked in layer.selection.values():
            if not {choice.plan for band in ranked for choice in band.choices} <= plans:
                yield f"the selection of {layer.name} names no plan of it"
        for name in {each for plan in layer.plans for each in plan.tokens + plan.rows}:
            if name not in manifest.contracts:
                yield f"{layer.name} uses {name}, which is no contract"
    for model in manifest.models.values():
        if not set(model.layers) <= manifest.layers.keys():
            yield f"{model.name} uses layers that are not there"


def _manifest(directory: Path, data: Mapping[str, Any]) -> Manifest:
    return Manifest(
        directory=directory,
        targets={name: _target(name, each) for name, each in data["targets"].items()},
        contracts=data["contracts"],
        layers={name: _layer(name, each) for name, each in data["layers"].items()},
        models={name: _model(name, each) for name, each in data["models"].items()},
        entries=tuple(_entry(directory, each) for each in data["entries"]),
        bands={
            (each["contract"], each["target"]): tuple(_band(band) for band in each["bands"])
            for each in data["selection"]
        },
        tuned={
            (each["contract"], each["target"]): tuple(_tuned(table) for table in each["tuned"])
            for each in data["selection"]
        },
    )


def _tuned(data: Mapping[str, Any]) -> Tuned:
    buckets = tuple((int(rows), str(design)) for rows, design in data["buckets"])
    return Tuned(**{**data, "buckets": buckets})


def _band(data: Mapping[str, Any]) -> Band:
    low, high = data["rows_per_expert"]
    return Band(low, high, tuple(data["designs"]))


def _plan_band(data: Mapping[str, Any]) -> PlanBand:
    low, high = data["rows_per_expert"]
    choices = tuple(
        PlanChoice(each["name"], tuple(condition_from_data(c) for c in each["requires"]))
        for each in data["plans"]
    )
    return PlanBand(low, high, choices)


def _target(name: str, data: Mapping[str, Any]) -> Target:
    capability = data["capability"]
    pair = tuple(capability) if capability else None
    compiler = data["compiler"]
    return Target(
        name=name,
        backend=data["backend"],
        capability=pair,
        dots=tuple(data["dots"]),
        shared_memory=data["shared_memory"],
        registers=data["registers"],
        matrix=tuple((each["name"], each["block_m"]) for each in data["matrix"]),
        compiler=None if compiler is None else Compiler(**compiler),
    )


def _layer(name: str, data: Mapping[str, Any]) -> Layer:
    axes = data["axes"]
    keys = (
        "spec",
        "weights",
        "up_group",
        "down_group",
        "scale",
        "dtype",
        "intermediate",
        "rounding",
        "exp",
    )
    return Layer(
        name=name,
        values=data["values"],
        plans=tuple(
            LayerPlan(each["name"], tuple(each["tokens"]), tuple(each["rows"]))
            for each in data["plans"]
        ),
        selection={
            target: tuple(_plan_band(each) for each in ranked)
            for target, ranked in data["selection"].items()
        },
        **{key: axes[key] for key in keys},
    )


def _model(name: str, data: Mapping[str, Any]) -> Model:
    shape = {
        key: data[key] for key in ("experts", "global_experts", "top_k", "hidden", "intermediate")
    }
    return Model(name=name, tokens=tuple(data["tokens"]), layers=tuple(data["layers"]), **shape)


def _entry(directory: Path, data: Mapping[str, Any]) -> Entry:
    fields = dict(data)
    return Entry(
        path=directory / fields.pop("path"),
        requires=tuple(condition_from_data(each) for each in fields.pop("requires")),
        counts=tuple(
            Count(each["argument"], each["of"], each["unit"]) for each in fields.pop("counts")
        ),
        **fields,
    )
