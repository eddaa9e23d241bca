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


def on(index: int | None) -> AbstractContextManager[object]:
    """Make a GPU the current one, by its number as torch counts them; None leaves it. Raises
    LaunchError where this process has no such GPU, or runs kernels by the interpreter.
    """
    if index is None:
        return nullcontext()
    count = torch.cuda.device_count()
    if not 0 <= index < count:
        fix = f"name one of 0 .. {count - 1}" if count else "leave it out, or run where one is"
        raise LaunchError(Finding(f"--device {index}", f"this process sees {count} GPUs", fix))
    if interpreter.active():
        what, fix = "kernels run on the CPU interpreter", f"unset {interpreter.FLAG}"
        raise LaunchError(Finding(f"--device {index}", what, fix))
    return torch.cuda.device(index)


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
