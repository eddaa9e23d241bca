"""The GPU that `--device` names is current while a verb runs, or is refused."""

from __future__ import annotations

import pytest
import torch

from generator.errors import LaunchError
from generator.runtime import device, interpreter


def test_none_leaves_the_current_device() -> None:
    with device.on(None):
        pass


@pytest.mark.parametrize(
    ("count", "index", "message"),
    [
        (0, 0, "--device 0: this process sees 0 GPUs; leave it out, or run where one is"),
        (2, 2, "--device 2: this process sees 2 GPUs; name one of 0 .. 1"),
        (2, -1, "--device -1: this process sees 2 GPUs; name one of 0 .. 1"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, count: int, index: int, message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(LaunchError) as raised:
        device.on(index)
    assert message in str(raised.value)


def test_the_interpreter_is_not_taken_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(interpreter, "active", lambda: True)
    with pytest.raises(LaunchError, match="--device 0: kernels run on the CPU interpreter"):
        device.on(0)


def test_the_named_gpu_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(interpreter, "active", lambda: False)
    named: list[int] = []
    monkeypatch.setattr(torch.cuda, "device", named.append)
    device.on(1)
    assert named == [1]
