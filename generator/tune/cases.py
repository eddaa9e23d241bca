"""Which layers to measure, and on which batches: what the options name, read off the manifest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from generator.errors import Finding, LaunchError
from generator.runtime.manifest import Layer, Manifest, Model
from generator.tune.routing import refusal


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of a layer: how many tokens, and how they choose experts."""

    tokens: int
    routing: str


@dataclass(frozen=True, slots=True)
class Setup:
    """A model's layer, whose weights all its batches share."""

    model: Model
    layer: Layer
    batches: tuple[Batch, ...]


def setups(
    manifest: Manifest,
    *,
    models: Sequence[str] = (),
    contract: str | None = None,
    tokens: Sequence[int] = (),
    routings: Sequence[str] = ("uniform",),
) -> tuple[Setup, ...]:
    """Models in the manifest's order, each with its layers; without `tokens`, with its own.

    Raises LaunchError with everything that names nothing or cannot be drawn.
    """
    findings = list(_findings(manifest, models, contract, tokens))
    if findings:
        raise LaunchError(findings)
    chosen = [each for each in manifest.models.values() if not models or each.name in models]
    for model in chosen:
        for routing in routings:
            refused = refusal(routing, model.top_k, model.global_experts)
            findings += [] if refused is None else [refused]
    if findings:
        raise LaunchError(findings)
    found = tuple(
        Setup(model, manifest.layers[name], _batches(tokens or model.tokens, routings))
        for model in chosen
        for name in model.layers
        if contract is None or fnmatch(name, contract)
    )
    if not found:
        there = ", ".join(dict.fromkeys(name for model in chosen for name in model.layers))
        what = f"`{contract}` names no layer contract of {', '.join(m.name for m in chosen)}"
        raise LaunchError(Finding("--contract", what, f"use a pattern of {there}"))
    return found


def _batches(tokens: Sequence[int], routings: Sequence[str]) -> tuple[Batch, ...]:
    return tuple(
        Batch(count, routing)
        for count in dict.fromkeys(tokens)
        for routing in dict.fromkeys(routings)
    )


def _findings(
    manifest: Manifest, models: Sequence[str], contract: str | None, tokens: Sequence[int]
) -> Iterator[Finding]:
    if not manifest.models:
        fix = "pass the folder of a build that has models, or build one"
        yield Finding(f"--generated {manifest.directory}", "its manifest holds no model", fix)
        return
    there = ", ".join(manifest.models)
    for name in models:
        if name not in manifest.models:
            yield Finding(f"--model {name}", "no such model", f"use one of {there}")
    if contract is not None and not any(fnmatch(name, contract) for name in manifest.layers):
        fix = f"use a pattern of {', '.join(manifest.layers)}"
        yield Finding("--contract", f"`{contract}` names no layer contract", fix)
    for count in tokens:
        if count < 1:
            yield Finding(f"--tokens {count}", "is no number of tokens", "use 1 or more")
