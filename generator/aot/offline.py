"""A Triton driver for a device that is not there: kernels are specialized and compiled as for a
real launch, and the launch itself does nothing.

Runs in worker processes only, for a process has one active driver.
"""

from __future__ import annotations

from collections.abc import Callable

from triton.backends.compiler import GPUTarget
from triton.runtime import driver

UNLIMITED = 1 << 30  # of any resource: what a device may refuse is judged by gates.py


class _Utils:
    """What Triton asks the driver's library once a kernel is compiled."""

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": UNLIMITED}

    def load_binary(self, *_: object) -> tuple[None, None, int, int, int]:
        """Module, function, registers, spills and the most threads: nothing is loaded."""
        return None, None, 0, 0, UNLIMITED


class OfflineDriver:
    """As much of a Triton driver as a launch asks for. Its devices are the targets that were made
    current, in order of first use: Triton remembers compiled kernels by device.
    """

    def __init__(self) -> None:
        self.utils = _Utils()
        self.targets: list[GPUTarget] = []
        self.device = 0

    def use(self, target: GPUTarget) -> None:
        """Make a target the current device."""
        if target not in self.targets:
            self.targets.append(target)
        self.device = self.targets.index(target)

    def launcher_cls(self, source: object, metadata: object) -> Callable[..., None]:
        return lambda *_: None

    def get_current_target(self) -> GPUTarget:
        return self.targets[self.device]

    def get_current_device(self) -> int:
        return self.device

    def get_current_stream(self, device: int) -> int:
        return 0


def activate() -> OfflineDriver:
    """Let every launch of this process go nowhere."""
    offline = OfflineDriver()
    driver.set_active(offline)
    return offline
