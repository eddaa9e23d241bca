"""The PTX of emitted modules for sm_90, in a process of its own that does not interpret: also of
modules that no manifest holds, with fusion on or off.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
POINTERS = {"int8": "*i8", "int32": "*i32", "bf16": "*bf16", "fp16": "*fp16", "fp32": "*fp32"}


def ptx(path: Path, symbol: str, *, enable_fp_fusion: bool = False) -> str:
    """What Triton makes of one kernel."""
    [text] = ptx_of(path, symbol, [enable_fp_fusion])
    return text


def ptx_of(path: Path, symbol: str, fusions: Sequence[bool]) -> list[str]:
    """What it makes of one kernel with fusion on or off, each in turn."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    requests = [{"path": str(path), "symbol": symbol, "enable_fp_fusion": each} for each in fusions]
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-m", "tests.emit.compiling"],
            input=json.dumps(requests),
            cwd=ROOT,
            env=environment | {"TRITON_CACHE_DIR": cache},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    texts: list[str] = json.loads(done.stdout)
    return texts


def compiled(path: str, symbol: str, enable_fp_fusion: bool = False) -> str:
    """The PTX of one kernel, compiled in this process. Types come from the parameters' comments."""
    import importlib.util

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.experimental.gluon._runtime import GluonASTSource, GluonJITFunction

    spec = importlib.util.spec_from_file_location(symbol, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kernel = getattr(module, symbol)
    text = Path(path).read_text(encoding="utf-8")
    comments = dict(re.findall(r"^ +(\w+),  # (\w+)", text, re.MULTILINE))
    pointers = [name for name in kernel.arg_names if name.endswith("_ptr")]
    types = {name: POINTERS[comments[name]] for name in pointers}
    kind = GluonASTSource if isinstance(kernel, GluonJITFunction) else ASTSource
    source = kind(
        fn=kernel,
        signature={name: types.get(name, "i32") for name in kernel.arg_names},
        constexprs={},
        attrs={(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in pointers},
    )
    options = {**module.OPTIONS, "enable_fp_fusion": enable_fp_fusion}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    return compiled.asm["ptx"]


if __name__ == "__main__":
    print(json.dumps([compiled(**each) for each in json.load(sys.stdin)]))
