"""What a torch device is to selection, and how to make it current for a launch."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from generator.runtime import interpreter
from generator.runtime.manifest import Manifest


def targets_for(device: torch.device, manifest: Manifest) -> tuple[str, ...]:
    """Targets whose modules run on a device, best first: its own, then those of any back end.

    The interpreter runs modules of every target; by default it takes the portable ones.
    """
    portable = tuple(each.name for each in manifest.targets.values() if each.backend == "any")
    if device.type != "cuda" or interpreter.active():
        return portable
    backend = "hip" if torch.version.hip else "cuda"
    capability = torch.cuda.get_device_capability(device)
    own = tuple(
        each.name
        for each in manifest.targets.values()
        if each.backend == backend and each.capability == capability
    )
    return own + portable


def current(device: torch.device) -> AbstractContextManager[object]:
    """Launch on this device's current stream; under the interpreter, NaN and Inf raise no
    warnings.
    """
    if device.type == "cuda":
        return torch.cuda.device(device)
    return interpreter.quiet() if interpreter.active() else nullcontext()
