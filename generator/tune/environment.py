"""What a measurement was taken on: device, driver, versions, day."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version

import torch

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Environment:
    """Facts that a number is worth nothing without."""

    device: str
    driver: str
    cuda: str
    torch: str
    triton: str
    python: str
    date: str  # UTC
    command: str
    generated: str


def environment(device: torch.device, command: str, generated: str) -> Environment:
    gpu = device.type == "cuda"
    return Environment(
        device=torch.cuda.get_device_name(device) if gpu else "Triton's CPU interpreter",
        driver=_driver() if gpu else UNKNOWN,
        cuda=str(torch.version.cuda or torch.version.hip or UNKNOWN),
        torch=str(torch.__version__),
        triton=version("triton"),
        python=platform.python_version(),
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M"),
        command=command,
        generated=generated,
    )


def _driver() -> str:
    """What nvidia-smi says: torch knows the CUDA version that a driver supports, not its own."""
    query = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return UNKNOWN
    lines = done.stdout.split()
    return lines[0] if done.returncode == 0 and lines else UNKNOWN
