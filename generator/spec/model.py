"""The spec language: frozen, strictly typed models of the YAML files under specs/.

Pydantic is imported in this folder alone. `load.py` builds these, lowering reads them; nothing
changes them. A field with one legal value today is there so that a second one is a visible change.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from generator.resources import Calibration, Record
from generator.spec.values import (
    ActivationDtype,
    Axis,
    Capability,
    Dot,
    Exp,
    FloatFormat,
    Gates,
    GroupK,
    Name,
    NonNegativeFloat,
    One,
    Operands,
    Order,
    PlanName,
    Positive,
    PositiveFloat,
    Rate,
    Roles,
    Rounding,
    Routing,
    SchemaNumber,
    Unpack,
    Zero,
)

OperationName = Literal[
    "count", "route", "dispatch", "quantize", "requantize", "up", "down", "combine"
]


class Frozen(BaseModel):
    """Unknown keys fail, values are never converted, fields are never set again."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Weights(Frozen):
    """How the expert weights and their scales are stored."""

    format: Literal["int8", "int4"]
    packing: Literal["none", "planes"]  # one weight a byte; two, in planes (generator/packing.py)
    layout: Literal["rows"]  # [experts, N, K], K contiguous
    zero_point: Literal["none"]
    group_k: Annotated[tuple[GroupK, ...], Field(min_length=1)]  # axis: K elements per scale
    scale: FloatFormat  # element format of the weight scales
    scale_layout: Literal["groups_n"]  # [experts, groups, N]


class Activations(Frozen):
    """How hidden states are quantized."""

    format: Literal["int8"]
    dtype: Annotated[tuple[ActivationDtype, ...], Field(min_length=1)]  # axis: input and output
    activation_scale: Literal["token"]  # one fp32 scale per row
    smooth: Literal["expert"]  # fp32 [experts, K], multiplied before quantization
    rounding: Annotated[tuple[Rounding, ...], Field(min_length=1)]  # axis: of x' / s


class Gate(Frozen):
    """The gated activation: silu(alpha * gate) * (up + up_offset), unclamped."""

    kind: Literal["swiglu"]
    order: Literal["gate_first"]  # the first N/2 rows of the stacked weight are the gate
    alpha: One
    limit: Literal["none"]
    up_offset: Zero


class Layer(Frozen):
    """What happens between and around the two GEMMs."""

    intermediate: Annotated[tuple[FloatFormat, ...], Field(min_length=1)]  # axis
    gate: Gate
    exp: Annotated[tuple[Exp, ...], Field(min_length=1)]  # axis
    bias: Literal["none"]
    router_weight: Literal["output"]  # multiplied in the combine, not into the input
    sentinel: Literal["skip"]  # ids outside the local experts own no row
    # Ways to realise a layer: requantization as a kernel, or folded into the down kernel; routing
    # and quantization of few rows in one kernel.
    plans: Annotated[tuple[PlanName, ...], Field(min_length=1)]


class Limits(Frozen):
    """Upper bounds of a call. Every proof holds up to these, and nothing is claimed past them."""

    rows: Positive  # routed rows, tokens * top_k
    k: Positive  # contraction length of either GEMM
    n: Positive  # rows of the stacked gate and up weight
    experts: Positive  # local experts


class CountSpace(Frozen):
    """block_n: bins, at least the number of experts."""

    block_n: Axis
    warps: Axis
    stages: Axis


class RouteSpace(Frozen):
    """block_m: rows or tiles per step; block_n: bins, at least the number of experts."""

    block_m: Axis
    block_n: Axis
    warps: Axis
    stages: Axis


class DispatchSpace(Frozen):
    """block_m: slots or tiles per step; block_n: bins, at least the number of experts; block_k:
    columns of a row, at most.
    """

    block_m: Axis
    block_n: Axis
    block_k: Axis
    warps: Axis
    stages: Axis


class QuantizeSpace(Frozen):
    """block_m: rows per program; block_k: columns of a `whole` row, at most, or of each of its
    `steps`.
    """

    row: Annotated[tuple[Literal["whole", "steps"], ...], Field(min_length=1)]
    block_m: Axis
    block_k: Axis
    warps: Axis
    stages: Axis


class GemmSpace(Frozen):
    """block_m x block_n: outputs per program; block_k: the longest K tile of one dot,
    or of two in a row where a group or a plane is half as long.

    unpack: nibbles to their value, or kept times 16 by shifts or by inline PTX. tail: `any` walks
    what of K is left after whole groups. offsets: the width of row offsets.
    """

    dot: Annotated[tuple[Dot, ...], Field(min_length=1)]
    block_m: Axis
    block_n: Axis
    block_k: Axis
    warps: Axis
    stages: Axis
    unpack: Annotated[tuple[Unpack, ...], Field(min_length=1)]
    tail: Annotated[tuple[Literal["none", "any"], ...], Field(min_length=1)]
    offsets: Annotated[tuple[Literal["int32", "int64"], ...], Field(min_length=1)]


class UpSpace(GemmSpace):
    """Of gate and up together; how their tiles meet is an axis of a target."""


class CombineSpace(Frozen):
    """block_n: columns per program."""

    block_n: Axis
    warps: Axis
    stages: Axis


class Designs(Frozen):
    """The space that lowering enumerates, per operation."""

    count: CountSpace
    route: RouteSpace
    dispatch: DispatchSpace
    quantize: QuantizeSpace
    requantize: QuantizeSpace
    up: UpSpace
    down: GemmSpace
    combine: CombineSpace


class Spec(Frozen):
    """One file specs/<name>.yaml: a family of contracts, the designs to search, the targets."""

    schema_: SchemaNumber = Field(alias="schema")
    name: Name
    version: Positive  # the contracts' version: raised when bits or bytes change
    weights: Weights
    activations: Activations
    layer: Layer
    limits: Limits
    designs: Designs
    targets: Annotated[tuple[Name, ...], Field(min_length=1)]  # built where none is named


class DotRates(Frozen):
    """Multiplications and additions of one processor per microsecond, by dot strategy."""

    int8: Positive | Literal["none"]
    fp16_exact: Positive | Literal["none"]
    rank1: Positive | Literal["none"]

    def of(self, dot: str) -> int:
        """The rate of a strategy; 0 for one that the target lacks."""
        rate: int | str = getattr(self, dot)
        return rate if isinstance(rate, int) else 0


class CostFigures(Frozen):
    """Figures of the cost model. They order designs and never decide what is legal."""

    processors: Positive  # SMs or compute units
    resident_threads: Positive  # threads per processor
    register_file: Positive  # 32-bit registers per processor
    shared_per_processor: Positive  # bytes
    dot_ops_per_us: DotRates
    dram_bytes_per_us: Positive
    cache_bytes_per_us: Positive  # last-level cache, whole device
    load_latency_us: Rate  # from issue to use of a load that misses the cache
    launch_us: Rate  # fixed cost of one kernel


class AcceptMultiples(Frozen):
    """A promise of a target: layers whose N and K are multiples of these always run, whatever
    their rows.
    """

    n: Positive
    k: Positive


class MatrixUnit(Frozen):
    """A family of matrix instructions, and the rows from which a dot compiles to it."""

    name: Literal["mma", "wgmma", "tcgen05", "mfma"]
    block_m: Positive


class Compiler(Frozen):
    """What Triton compiles a target's modules for, where no such device is at hand."""

    backend: Literal["cuda", "hip"]
    arch: int | Name  # 90 for sm_90, gfx942
    stand_in: bool = False  # the device's own Triton is another: nothing made here runs on it


class SpecializedSpace(Frozen):
    """GEMMs whose warps have roles: one loads tiles by TMA, two groups of four multiply them
    (generator/lower/warps.py). block_m: rows of a tile.
    """

    roles: Annotated[tuple[Roles, ...], Field(min_length=1)]
    block_m: Axis
    stages: Axis


class Target(Frozen):
    """One file specs/targets/<name>.yaml: hardware as data."""

    schema_: SchemaNumber = Field(alias="schema")
    name: Name
    backend: Literal["any", "cuda", "hip"]
    capability: Capability
    compiler: Compiler | Literal["none"]  # none: any of the others compiles these modules
    operations: Annotated[tuple[OperationName, ...], Field(min_length=1)]  # emitted for it
    dots: Annotated[tuple[Dot, ...], Field(min_length=1)]  # dot strategies that compile right
    unpacks: Annotated[tuple[Unpack, ...], Field(min_length=1)]  # that its back end compiles
    accept_multiples: AcceptMultiples | Literal["none"]
    row_tiles: Axis  # of GEMMs: one band of rows per expert, and the designs kept for it, each
    # Axes of its GEMMs' designs beside those of a spec: they suit hardware, not layers.
    operands: Annotated[tuple[Operands, ...], Field(min_length=1)]
    gates: Annotated[tuple[Gates, ...], Field(min_length=1)]
    orders: Annotated[tuple[Order, ...], Field(min_length=1)]
    specialized: SpecializedSpace | Literal["none"]
    warp_size: Positive
    shared_memory: Positive  # bytes one program may hold
    registers: Positive  # 32-bit registers one thread may hold
    matrix: Annotated[tuple[MatrixUnit, ...], Field(min_length=1)]  # by ascending block_m
    cost: CostFigures

    @property
    def fastest_dot(self) -> Dot:
        """Of the strategies that compile right, the one with the highest rate."""
        return max(self.dots, key=self.cost.dot_ops_per_us.of)


class ModelLayer(Frozen):
    """One layer contract that a model's checkpoints use, as a value of every axis of its spec."""

    spec: Name
    up: GroupK  # group of the gate and up weights
    down: GroupK  # group of the down weights
    dtype: ActivationDtype
    intermediate: FloatFormat
    rounding: Rounding
    exp: Exp


class Model(Frozen):
    """One file specs/models/<name>.yaml: a real layer's shape and the contracts it is served
    with.
    """

    schema_: SchemaNumber = Field(alias="schema")
    name: Name
    experts: Positive  # local experts
    global_experts: Positive  # experts that ids are drawn from
    top_k: Positive
    hidden: Positive
    intermediate: Positive  # of this shard
    tokens: Annotated[tuple[Positive, ...], Field(min_length=1)]  # batch sizes worth ranking for
    layers: Annotated[tuple[ModelLayer, ...], Field(min_length=1)]


class TunedBucket(Frozen):
    """The design that is taken for a number of routed rows, and for calls of rows near them."""

    rows: Positive
    design: str
    us: PositiveFloat  # median of a launch
    iqr: NonNegativeFloat
    fastest: PositiveFloat  # of all designs of the same row tile
    rivals: Positive  # designs that were timed
    # Of the design: the fastest, or as good and taken elsewhere too; none: its tuner gave none.
    reason: Literal["fastest", "shared", "none"] = "none"
    # That it was timed under: the figures are of the first, the design is the fastest over all.
    routings: Annotated[tuple[Routing, ...], Field(min_length=1)] = ("uniform",)


class TunedShape(Frozen):
    """A GEMM contract at one shape."""

    contract: str
    n: Positive
    k: Positive
    experts: Positive
    buckets: Annotated[tuple[TunedBucket, ...], Field(min_length=1)]  # by ascending rows


class Tuning(Frozen):
    """One file specs/tuning/<device>.yaml: what `python -m generator tune` measured."""

    schema_: SchemaNumber = Field(alias="schema")
    device: str
    target: Name
    driver: str
    triton: str
    torch: str
    date: str
    shapes: tuple[TunedShape, ...]


class SpecSet(Frozen):
    """Everything under one specs folder, in the order of file names."""

    specs: tuple[Spec, ...]
    targets: tuple[Target, ...]
    models: tuple[Model, ...]
    tunings: tuple[Tuning, ...] = ()  # what was measured on devices
    resources: tuple[Record, ...] = ()  # what compiled variants take
    calibrations: tuple[Calibration, ...] = ()  # what compiled designs take, kept or not
    broken: tuple[str, ...] = ()  # names of files that have no model; they are not "missing"
