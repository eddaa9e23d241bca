"""Nothing on the way of a forward reads a value back or builds a tensor from Python lists."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import generator.runtime

FORWARD = (
    *("launch", "layer", "sequence", "prepared", "direct", "select", "workspace", "check"),
    *("device", "ops", "module"),
)
BANNED = {
    *("item", "tolist", "cpu", "numpy", "nonzero", "bincount", "unique", "repeat_interleave"),
    *("synchronize", "argsort", "sort", "masked_select", "equal", "all", "any"),
}


@pytest.mark.parametrize("name", FORWARD)
def test_no_call_that_waits_for_the_device(name: str) -> None:
    path = Path(generator.runtime.__file__).parent / f"{name}.py"
    calls = [
        node.func.attr
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    assert calls and not BANNED & set(calls)
    assert "tensor" not in [call for call in calls if name != "layer"]
