"""What `tune` refuses before it compiles and times for hours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from generator import cli
from generator.errors import LaunchError
from generator.runtime.manifest import load
from generator.tune import tune_command
from tests.tune.small import CPU


def test_all_that_cannot_be_done_is_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing" / "file"
    where = ("--generated", "nowhere", "--trials", str(tmp_path), "--out", str(missing))
    assert cli.main(["tune", *where]) == 2
    assert capsys.readouterr().err == (
        "[launch] tune: there is no GPU, and the CPU interpreter's times say nothing of one;"
        " run it on the device that is to serve\n"
        f"[launch] --trials {tmp_path}: is a folder; name a file\n"
        f"[launch] --out {missing}: there is no folder {missing.parent};"
        " make it, or name another file\n"
    )


def test_a_device_without_target_is_not_tuned_as_another(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = load()
    monkeypatch.setattr(tune_command, "targets_for", lambda device, manifest: ("portable",))
    with pytest.raises(LaunchError, match="no target of its manifest describes this device"):
        tune_command._target(CPU, manifest)
    monkeypatch.setattr(tune_command, "targets_for", lambda device, manifest: ("sm_90", "portable"))
    assert tune_command._target(CPU, replace(manifest)).name == "sm_90"
