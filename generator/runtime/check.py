"""What every launch asks of the tensors handed to it."""

from __future__ import annotations

import torch

from ..errors import Finding, LaunchError


def is_tensor(name: str, value: object) -> None:
    """Raise LaunchError for anything else."""
    if not isinstance(value, torch.Tensor):
        raise LaunchError(Finding(name, f"is a {type(value).__name__}", "pass a torch.Tensor"))


def tensor(
    name: str,
    value: torch.Tensor,
    shape: tuple[int | None, ...],
    dtypes: tuple[torch.dtype, ...],
    device: torch.device,
) -> None:
    """Raise LaunchError with everything that is wrong with one argument; None in a shape is any
    length.
    """
    findings = []
    is_tensor(name, value)
    if value.dtype not in dtypes:
        legal = " or ".join(str(each) for each in dtypes)
        findings.append(Finding(name, f"is {value.dtype}", f"pass {legal}"))
    fits = value.dim() == len(shape) and all(
        want is None or want == have for want, have in zip(shape, value.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if each is None else str(each) for each in shape)
        findings.append(Finding(name, f"has shape {list(value.shape)}", f"pass [{wanted}]"))
    if value.device != device:
        findings.append(Finding(name, f"is on {value.device}", f"move it to {device}"))
    if not value.is_contiguous():
        findings.append(Finding(name, "is not contiguous", f"pass {name}.contiguous()"))
    if findings:
        raise LaunchError(findings)


def aligned(name: str, value: torch.Tensor) -> None:
    """Raise LaunchError unless a tensor starts at a multiple of 16 bytes, as torch allocates it.

    Kernels are compiled for 16-byte accesses; another start would compile them anew while serving.
    """
    if value.numel() and not value.is_meta and value.data_ptr() % 16:
        what = "does not start at a multiple of 16 bytes"
        raise LaunchError(Finding(name, what, f"pass {name}.clone()"))


def apart(name: str, value: torch.Tensor, other_name: str, other: torch.Tensor) -> None:
    """Raise LaunchError where two tensors share memory."""
    if not value.numel() or not other.numel() or value.is_meta:
        return
    start, end = value.data_ptr(), value.data_ptr() + value.numel() * value.element_size()
    other_end = other.data_ptr() + other.numel() * other.element_size()
    if start < other_end and other.data_ptr() < end:
        raise LaunchError(Finding(name, f"overlaps {other_name}", "pass memory of its own"))
