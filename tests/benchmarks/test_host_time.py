"""What a call costs the host, where launches do nothing: every way in, and the launches alone."""

from __future__ import annotations

import subprocess
import sys


def test_every_way_in_is_told() -> None:
    options = ["--model", "seed-small", "--tokens", "1", "--calls", "2", "--repeat", "2"]
    command = [sys.executable, "-m", "benchmarks.host_time", *options]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines()[4:]]
    assert [name for name, _ in rows] == [
        "run_tokens",
        "run_tokens, the caller's memory",
        "run_tokens, its launches alone",
        "run_tokens, by the JIT",
        "run_rows",
        "run_rows, the caller's memory",
        "QuantExperts.forward_tokens",
        "QuantExperts",
        "QuantMoE",
    ]
