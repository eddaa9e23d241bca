"""What a torch device is to selection, and how to make it current for a launch."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from ..errors import Finding, LaunchError
from . import interpreter
from .entry import Entry
from .manifest import Manifest, Target


def targets_for(device: torch.device, manifest: Manifest) -> tuple[str, ...]:
    """Targets whose modules run on a device, best first: its own, then those of any back end.

    The interpreter runs modules of every target; by default it takes the portable ones.
    """
    portable = tuple(each.name for each in manifest.targets.values() if each.backend == "any")
    if interpreter.active():
        return portable
    if device.type != "cuda":
        what = f"is on {device}, and kernels run on the GPU in this process"
        fix = f"move it to cuda, or export {interpreter.FLAG}=1 for the CPU interpreter"
        raise LaunchError(Finding("packed weights", what, fix))
    backend = "hip" if torch.version.hip else "cuda"
    capability = torch.cuda.get_device_capability(device)
    own = tuple(
        each.name
        for each in manifest.targets.values()
        if each.backend == backend and each.capability == capability
    )
    return own + portable


def here() -> torch.device:
    """Where kernels run in this process. Raises LaunchError without GPU and without interpreter."""
    if interpreter.active():
        return torch.device("cpu")
    if not torch.cuda.is_available():
        what = "there is no GPU, and the CPU interpreter is switched off"
        raise LaunchError(Finding("device", what, f"unset {interpreter.FLAG}, or set it to 1"))
    return torch.device("cuda")


def runs(entry: Entry, target: Target, device: torch.device) -> bool:
    """Whether a device can start a module of a target: its own or another's."""
    if interpreter.active():
        return not entry.needs_gpu
    if target.backend not in ("any", "hip" if torch.version.hip else "cuda"):
        return False
    from triton.runtime import driver

    index = torch.cuda.current_device() if device.index is None else device.index
    here = driver.active.utils.get_device_properties(index)
    capability = torch.cuda.get_device_capability(device)
    older = target.capability is None or target.capability <= capability
    return older and bool(target.shared_memory <= here["max_shared_mem"])


def current(device: torch.device) -> AbstractContextManager[object]:
    """Launch on this device's current stream; under the interpreter, NaN and Inf raise no
    warnings.
    """
    if device.type == "cuda":
        return torch.cuda.device(device)
    return interpreter.quiet() if interpreter.active() else nullcontext()


def is_current(device: torch.device) -> bool:
    """Whether launches go to a device as things stand, without `current`."""
    return device.type != "cuda" or torch.cuda.current_device() == device.index
