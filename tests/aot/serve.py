"""A process that serves one stored layer: `serve.py PACKAGE... FOLDER` runs it with the runtime of
each package and stores what comes out. Stands alone, as a server does.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

*packages, place = sys.argv[1:]
for package in packages:
    module = import_module(f"{package}.runtime.module")  # before torch: it chooses the interpreter
    import torch

    stored = torch.load(Path(place) / "layer.pt")
    moe = module.QuantMoE(stored["layer"], **stored["sizes"])
    moe.load_state_dict(stored["state"])
    torch.save(moe(stored["hidden"]), Path(place) / f"{package}.pt")
