"""Options of the whole suite; importing the runtime first chooses GPU or interpreter."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # there is one for each core: no threads beside them
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from generator.runtime import interpreter

# Lowering and the trees of emitted modules make many objects that live on: a sixth of their tests'
# time went into looking for garbage.
gc.set_threshold(20_000, 20, 50)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Callable[..., object]) -> Any:
    """With `-n`, give each worker tests that lie side by side, and take from the busiest at the
    end: fixtures and what lowering remembers are made once for most of a folder. The usual way
    deals tests out by turns, and makes all of it in every worker.
    """
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getvalue("dist") == "load" else None


def pytest_report_header() -> str:
    return "kernels run " + ("under the interpreter" if interpreter.active() else "on the GPU")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden")
    parser.addoption("--generated", default=None, help="the manifest's folder for `-m gpu`")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`-m gpu`, alone or `and` something, collects the GPU suite alone: GPU machines need no
    pydantic, jinja2 or yaml.
    """
    here = Path(__file__).parent
    if not asks_for_gpu(config.option.markexpr) or here not in collection_path.parents:
        return None
    return True if collection_path.relative_to(here).parts[0] != "gpu" else None


def asks_for_gpu(markers: str) -> bool:
    """Whether a marker expression of plain words joined by `and` selects GPU tests only."""
    return "gpu" in re.split(r"\s+and\s+", markers.strip())
