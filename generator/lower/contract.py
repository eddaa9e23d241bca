"""Contracts of operations: what one kernel computes to the last bit.

Everything here is derived from a spec. Names are built in this module and parsed nowhere; `axes()`
is what the manifest holds and what the digest covers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product

from generator.formats import FORMATS

Axes = dict[str, object]
WIDE = ("bf16", "fp16")  # formats that only conversions tell apart


def group_name(group_k: int | None) -> str:
    """Of a K group in names: `gn` where it is the whole K."""
    return "gn" if group_k is None else f"g{group_k}"


def join(*parts: str) -> str:
    """Of a name, the parts that are not empty."""
    return "_".join(part for part in parts if part)


def _digest(axes: Axes) -> str:
    return hashlib.sha256(json.dumps(axes, sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class GemmContract:
    """A grouped GEMM over rows sorted by expert: `up` with its gated activation, or `down`."""

    operation: str  # up | down
    weights: str  # element format
    packing: str
    layout: str
    zero_point: str
    group_k: int | None  # K elements per weight scale; None is the whole K
    scale: str  # element format of the weight scales
    scale_layout: str
    input: str  # element format of the rows: that of `codes`, or rows still to be quantized
    codes: str  # element format of the activations as they are multiplied
    rounding: str | None  # of x' / s, where the rows are still to be quantized
    activation_scale: str
    rounded: str  # what acc * s is rounded to: the activation dtype
    gate: str | None  # up: the gated activation after that rounding
    gate_order: str | None
    exp: str | None
    output: str  # element format stored
    amax: bool  # up: also the largest |a * inv_smooth| of each row, as a bit pattern
    version: int

    @property
    def name(self) -> str:
        return join(
            self.operation,
            f"w{FORMATS[self.weights].bits}{group_name(self.group_k)}",
            f"a{FORMATS[self.codes].bits}",
            self.gate or "",
            self.output,
            f"gate{self.rounded}" if self.rounded != self.output else "",
            "expdevice" if self.exp == "device" else "",
            "amax" if self.amax else "",
            f"requant{self.input}" if self.requantizes else "",
            "away" if self.rounding == "half_away" else "",
            f"v{self.version}",
        )

    @property
    def weight_tiles(self) -> int:
        """Weight tiles that one tile of outputs reads: gate and up, or one."""
        return 2 if self.gate else 1

    @property
    def requantizes(self) -> bool:
        """Whether the rows are quantized on their way into the dot."""
        return self.input != self.codes

    @property
    def geometry(self) -> GemmContract:
        """What designs are judged by: one for all contracts that move and multiply alike."""

        def as_wide(name: str) -> str:
            return WIDE[0] if name in WIDE else name

        return replace(
            self,
            input=as_wide(self.input),
            rounding=self.rounding and "half_even",
            rounded=WIDE[0],
            exp=self.exp and "exact",
            output=as_wide(self.output),
            amax=False,
        )

    def alike(self) -> Iterator[GemmContract]:
        """Every contract of its geometry."""

        def any_wide(name: str) -> tuple[str, ...]:
            return WIDE if name in WIDE else (name,)

        for given, rounding, rounded, exp, output, amax in product(
            any_wide(self.input),
            ("half_even", "half_away") if self.rounding else (None,),
            WIDE,
            ("exact", "device") if self.exp else (None,),
            any_wide(self.output),
            (False, True) if self.gate else (False,),
        ):
            yield replace(
                self,
                input=given,
                rounding=rounding,
                rounded=rounded,
                exp=exp,
                output=output,
                amax=amax,
            )

    def axes(self) -> Axes:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class QuantizeContract:
    """Smooth, scale and round rows to integer codes: `quantize` hidden states, `requantize` the
    activation.
    """

    operation: str  # quantize | requantize
    input: str  # element format of the rows
    codes: str
    rounding: str
    source: str  # sorted: row r is row r of the input; gather: it is the token of slot r
    smooth: str
    activation_scale: str
    version: int

    @property
    def name(self) -> str:
        return join(
            self.operation,
            f"a{FORMATS[self.codes].bits}",
            self.input,
            "gather" if self.source == "gather" else "",
            "away" if self.rounding == "half_away" else "",
            f"v{self.version}",
        )

    def axes(self) -> Axes:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class CountContract:
    """Count the slots of each expert in each chunk of slots, from top-k expert ids."""

    operation: str  # count
    chunk: int  # slots
    sentinel: str
    version: int

    @property
    def name(self) -> str:
        return join(self.operation, f"v{self.version}")

    def axes(self) -> Axes:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class DispatchContract:
    """Sort slots by expert, cut the sorted rows into row tiles, and quantize the token of each."""

    operation: str  # dispatch
    input: str  # element format of the tokens
    codes: str
    rounding: str
    smooth: str
    activation_scale: str
    sentinel: str
    version: int

    @property
    def name(self) -> str:
        return join(
            self.operation,
            f"a{FORMATS[self.codes].bits}",
            self.input,
            "away" if self.rounding == "half_away" else "",
            f"v{self.version}",
        )

    def axes(self) -> Axes:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RouteContract:
    """Sort slots by expert, or lay out rows that are sorted, and cut them into row tiles."""

    operation: str  # route
    source: str  # ids: top-k expert ids; counts: tokens_per_expert of sorted rows
    chunk: int | None  # slots of a chunk that was counted before, where ids are the source
    sentinel: str
    zeroes: str  # what each row's kernel may add to later: its amax
    version: int

    @property
    def name(self) -> str:
        return join(self.operation, self.source, f"v{self.version}")

    def axes(self) -> Axes:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class CombineContract:
    """Weighted fp32 sum of a token's rows in slot order."""

    operation: str  # combine
    output: str  # element format of the rows and of the result
    router_weight: str
    version: int

    @property
    def name(self) -> str:
        return join(self.operation, self.output, f"v{self.version}")

    def axes(self) -> Axes:
        return asdict(self)


Contract = (
    GemmContract
    | QuantizeContract
    | CountContract
    | RouteContract
    | DispatchContract
    | CombineContract
)


def contract_digest(contract: Contract) -> str:
    """Eight hex digits of what is computed; two contracts of one name must agree on it."""
    return _digest(contract.axes())
