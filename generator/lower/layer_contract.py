"""Contracts of layers: what a whole layer computes to the last bit, the plans of operations that
realise it, and the layers that specs describe and models use.

Everything here is derived from specs and models. Names are built here and parsed nowhere; `axes()`
is what the manifest holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from generator.formats import FORMATS
from generator.lower.contract import (
    Axes,
    CombineContract,
    Contract,
    CountContract,
    DispatchContract,
    GemmContract,
    QuantizeContract,
    RouteContract,
    group_name,
    join,
)
from generator.packing import CHUNK
from generator.spec.model import Model, ModelLayer, Spec


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """Operation contracts that realise a layer contract, in launch order, for either way in."""

    name: str
    tokens: tuple[Contract, ...]  # from hidden states, top-k ids and weights
    rows: tuple[Contract, ...]  # from rows sorted by expert and tokens_per_expert

    @property
    def contracts(self) -> tuple[Contract, ...]:
        return tuple(dict.fromkeys(self.tokens + self.rows))


@dataclass(frozen=True, slots=True)
class LayerContract:
    """A whole layer: the value of every intermediate, whichever plan and variants run."""

    spec: str
    weights: str
    up_group: int | None
    down_group: int | None
    scale: str
    codes: str
    gate: str
    dtype: str
    intermediate: str
    rounding: str
    exp: str
    version: int

    @property
    def name(self) -> str:
        up, down = group_name(self.up_group), group_name(self.down_group)
        return join(
            "layer",
            f"w{FORMATS[self.weights].bits}{up if up == down else up + down}",
            f"a{FORMATS[self.codes].bits}",
            self.gate,
            self.dtype,
            f"mid{self.intermediate}" if self.intermediate != self.dtype else "",
            "away" if self.rounding == "half_away" else "",
            "expdevice" if self.exp == "device" else "",
            f"v{self.version}",
        )

    def axes(self) -> Axes:
        return asdict(self)

    def values(self) -> dict[str, str]:
        """What stands between the stages; H hidden, I intermediate, rows sorted by expert."""
        codes = FORMATS[self.codes].dtype
        return {
            "chunk_count": f"int32 [ceil(rows / {CHUNK}), experts]",
            "hidden_codes": f"{codes} [rows, H]",
            "hidden_scale": "float32 [rows]",
            "activation": f"{FORMATS[self.intermediate].dtype} [rows, I]",
            "activation_codes": f"{codes} [rows, I]",
            "activation_scale": "float32 [rows]",
            "expert_output": f"{FORMATS[self.dtype].dtype} [rows, H]",
            "output": f"{FORMATS[self.dtype].dtype} [tokens, H]",
        }


def _up(spec: Spec, layer: LayerContract, *, amax: bool) -> GemmContract:
    return GemmContract(
        operation="up",
        **_weights(spec),
        group_k=layer.up_group,
        input=spec.activations.format,
        rounding=None,
        rounded=layer.dtype,
        gate=spec.layer.gate.kind,
        gate_order=spec.layer.gate.order,
        exp=layer.exp,
        output=layer.intermediate,
        amax=amax,
    )


def _down(spec: Spec, layer: LayerContract, *, requantizes: bool) -> GemmContract:
    return GemmContract(
        operation="down",
        **_weights(spec),
        group_k=layer.down_group,
        input=layer.intermediate if requantizes else spec.activations.format,
        rounding=layer.rounding if requantizes else None,
        rounded=layer.dtype,
        gate=None,
        gate_order=None,
        exp=None,
        output=layer.dtype,
        amax=False,
    )


def _weights(spec: Spec) -> dict[str, Any]:
    """What both GEMMs of a spec share."""
    return {
        "weights": spec.weights.format,
        "packing": spec.weights.packing,
        "layout": spec.weights.layout,
        "zero_point": spec.weights.zero_point,
        "scale": spec.weights.scale,
        "scale_layout": spec.weights.scale_layout,
        "codes": spec.activations.format,
        "activation_scale": spec.activations.activation_scale,
        "version": spec.version,
    }


def _quantize(spec: Spec, operation: str, element: str, rounding: str, source: str) -> Contract:
    return QuantizeContract(
        operation=operation,
        input=element,
        codes=spec.activations.format,
        rounding=rounding,
        source=source,
        smooth=spec.activations.smooth,
        activation_scale=spec.activations.activation_scale,
        version=spec.version,
    )


def layer_contract(spec: Spec, layer: ModelLayer) -> LayerContract:
    """The layer contract that one value of every axis names."""
    return LayerContract(
        spec=spec.name,
        weights=spec.weights.format,
        up_group=layer.up if isinstance(layer.up, int) else None,
        down_group=layer.down if isinstance(layer.down, int) else None,
        scale=spec.weights.scale,
        codes=spec.activations.format,
        gate=spec.layer.gate.kind,
        dtype=layer.dtype,
        intermediate=layer.intermediate,
        rounding=layer.rounding,
        exp=layer.exp,
        version=spec.version,
    )


def plans(spec: Spec, layer: LayerContract) -> tuple[LayerPlan, ...]:
    """Every way to realise a layer contract."""

    sentinel, version = spec.layer.sentinel, spec.version
    count = CountContract("count", CHUNK, sentinel, version)
    sort = RouteContract("route", "ids", CHUNK, sentinel, "row_amax", version)
    lay_out = RouteContract("route", "counts", None, sentinel, "row_amax", version)
    dispatch = DispatchContract(
        operation="dispatch",
        input=layer.dtype,
        codes=spec.activations.format,
        rounding=layer.rounding,
        smooth=spec.activations.smooth,
        activation_scale=spec.activations.activation_scale,
        sentinel=sentinel,
        version=version,
    )
    middles: dict[str, tuple[Contract, ...]] = {
        "separate": (  # every stage is a kernel of its own
            _up(spec, layer, amax=False),
            _quantize(spec, "requantize", layer.intermediate, layer.rounding, "sorted"),
            _down(spec, layer, requantizes=False),
        ),
        "folded": (  # up finds each row's amax, down quantizes the rows that it loads
            _up(spec, layer, amax=True),
            _down(spec, layer, requantizes=True),
        ),
    }
    combine = CombineContract("combine", layer.dtype, spec.layer.router_weight, spec.version)
    gather = _quantize(spec, "quantize", layer.dtype, layer.rounding, "gather")
    in_order = _quantize(spec, "quantize", layer.dtype, layer.rounding, "sorted")
    middles["dispatched"] = middles["separate"]
    starts: dict[str, tuple[Contract, ...]] = {"dispatched": (dispatch,)}
    return tuple(
        LayerPlan(
            name=name,
            tokens=(*starts.get(name, (count, sort, gather)), *middles[name], combine),
            rows=(lay_out, in_order, *middles[name]),
        )
        for name in spec.layer.plans
    )


def model_layers(specs: tuple[Spec, ...], models: tuple[Model, ...]) -> list[LayerContract]:
    """The layer contracts that shipped models use, each once, in file order."""
    by_name = {spec.name: spec for spec in specs}
    layers = [
        layer_contract(by_name[each.spec], each)
        for model in models
        for each in model.layers
        if each.spec in by_name
    ]
    return list(dict.fromkeys(layers))


def all_layers(spec: Spec, *, mixed: bool = False) -> Iterator[LayerContract]:
    """Every layer contract of a spec whose GEMMs share a group size; `mixed`: those that do not."""
    groups = spec.weights.group_k
    pairs = [(up, down) for up in groups for down in groups if (up != down) == mixed]
    for (up, down), dtype, intermediate, rounding, exp in product(
        pairs,
        spec.activations.dtype,
        spec.layer.intermediate,
        spec.activations.rounding,
        spec.layer.exp,
    ):
        yield layer_contract(
            spec,
            ModelLayer(
                spec=spec.name,
                up=up,
                down=down,
                dtype=dtype,
                intermediate=intermediate,
                rounding=rounding,
                exp=exp,
            ),
        )
