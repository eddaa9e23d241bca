"""Rules on one file specs/models/<name>.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from generator.spec.check import Check, Defect, name_is_file, nearest
from generator.spec.model import Model, ModelLayer, Spec, SpecSet
from generator.spec.yaml_source import YamlPath


def _model_shape(model: Model, _: Path, __: SpecSet) -> Iterator[Defect]:
    if model.experts > model.global_experts:
        yield Defect(
            ("experts",),
            f"{model.experts} local experts of {model.global_experts}",
            f"use at most {model.global_experts}",
        )
    if model.top_k > model.global_experts:
        yield Defect(
            ("top_k",),
            f"top_k {model.top_k} of {model.global_experts} experts",
            f"use at most {model.global_experts}",
        )


def _model_layers(
    model: Model, everything: SpecSet
) -> Iterator[tuple[YamlPath, ModelLayer, Spec | None]]:
    specs = {spec.name: spec for spec in everything.specs}
    for index, layer in enumerate(model.layers):
        yield ("layers", index), layer, specs.get(layer.spec)


def _layer_axes(model: Model, _: Path, everything: SpecSet) -> Iterator[Defect]:
    for at, layer, spec in _model_layers(model, everything):
        if spec is None and layer.spec in everything.broken:
            continue
        if spec is None:
            known = [each.name for each in everything.specs]
            yield Defect((*at, "spec"), f"no spec `{layer.spec}`", nearest(layer.spec, known))
            continue
        axes: dict[str, tuple[object, ...]] = {
            "up": spec.weights.group_k,
            "down": spec.weights.group_k,
            "dtype": spec.activations.dtype,
            "intermediate": spec.layer.intermediate,
            "rounding": spec.activations.rounding,
            "exp": spec.layer.exp,
        }
        for key, legal in axes.items():
            value = getattr(layer, key)
            if value not in legal:
                yield Defect(
                    (*at, key),
                    f"`{value}` is no value of this axis of spec {spec.name}",
                    nearest(value, legal),
                )


def _layer_limits(model: Model, _: Path, everything: SpecSet) -> Iterator[Defect]:
    for _at, _layer, spec in _model_layers(model, everything):
        if spec is None:
            continue
        limits = spec.limits
        for key, what, value, limit in (
            ("experts", "experts", model.experts, limits.experts),
            ("hidden", "hidden", model.hidden, min(limits.k, limits.n)),
            (
                "intermediate",
                "2 * intermediate",
                2 * model.intermediate,
                min(2 * limits.k, limits.n),
            ),
            ("tokens", "tokens * top_k", max(model.tokens) * model.top_k, limits.rows),
        ):
            if value > limit:
                yield Defect(
                    (key,),
                    f"{what} = {value} exceeds the limit {limit} of spec {spec.name}",
                    f"raise the limits in specs/{spec.name}.yaml",
                )


MODEL_CHECKS: tuple[Check[Model], ...] = (
    Check("name_is_file", "names are looked up as file names", name_is_file),
    Check("model_shape", "ids are drawn without repetition from the global experts", _model_shape),
    Check("layer_axes", "a model uses contracts that its spec describes", _layer_axes),
    Check("layer_limits", "proofs hold up to the limits", _layer_limits),
)
