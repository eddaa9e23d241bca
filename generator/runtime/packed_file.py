"""Packed experts on disk: a safetensors file whose metadata says what the bytes are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ..errors import Finding, PackError
from .packed import LAYOUT, SEED_NAMES, PackedExperts, is_shard


def _safetensors() -> Any:
    """The library, which only files need: who loads a state dict serves without it."""
    try:
        import safetensors.torch
    except ModuleNotFoundError as error:
        what = "is not installed, and packed weights are stored by it"
        raise PackError(Finding("safetensors", what, "pip install safetensors")) from error
    return safetensors


def save(packed: PackedExperts, path: Path) -> None:
    """Write a safetensors file whose metadata says what the bytes are."""
    library = _safetensors()
    facts = {name: getattr(packed, name) for name in FACTS}
    try:
        metadata = {"groupwise": json.dumps(facts)}
        library.torch.save_file(packed.tensors(), str(path), metadata=metadata)
    except (OSError, library.SafetensorError) as error:
        raise PackError(
            Finding(str(path), f"cannot be written: {error}", "pass a path that can be")
        ) from error


FACTS = {  # what the metadata of a file says, and the type of each fact
    "layer": str,
    "layout": int,
    "experts": int,
    "hidden": int,
    "intermediate": int,
    "shard": list,
}


def load(path: Path, device: torch.device | str = "cpu") -> PackedExperts:
    """Read what `save` wrote. Raises PackError for a foreign file or another layout version."""
    library = _safetensors()
    try:
        with library.safe_open(str(path), framework="pt", device=str(device)) as file:
            facts = json.loads((file.metadata() or {}).get("groupwise", "null"))
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (OSError, ValueError, library.SafetensorError) as error:
        raise PackError(
            Finding(str(path), f"cannot be read: {error}", "pass a file of save()")
        ) from error
    known = isinstance(facts, dict) and facts.keys() == FACTS.keys()
    typed = known and all(isinstance(facts[name], kind) for name, kind in FACTS.items())
    if not typed or not is_shard(facts["shard"]) or set(tensors) != set(SEED_NAMES):
        raise PackError(Finding(str(path), "holds no packed experts", "pass a file of save()"))
    if facts["layout"] != LAYOUT:
        what = f"has layout version {facts['layout']}; this runtime reads {LAYOUT}"
        raise PackError(Finding(str(path), what, "pack the checkpoint again"))
    rank, size = facts.pop("shard")
    return PackedExperts(**facts, **tensors, shard=(rank, size))
