"""Compile emitted modules without a GPU, in a process of its own that does not interpret."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
POINTERS = {"int8": "*i8", "int32": "*i32", "bf16": "*bf16", "fp16": "*fp16", "fp32": "*fp32"}


@dataclass(frozen=True)
class Request:
    """One module and what to compile it for."""

    path: str
    symbol: str
    backend: str  # cuda | hip
    arch: int | str
    warp_size: int
    enable_fp_fusion: bool = False


def compiled(requests: Sequence[Request]) -> list[dict[str, Any]]:
    """What the compiler made of each module: its assembly (`ptx` and `sass`, or `amdgcn`)."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-m", "tests.emit.compiling"],
            input=json.dumps([asdict(each) for each in requests]),
            cwd=ROOT,
            env=environment | {"TRITON_CACHE_DIR": cache},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results


def _compile(request: Request) -> dict[str, Any]:
    """Types come from the parameters' comments."""
    import importlib.util

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    spec = importlib.util.spec_from_file_location(request.symbol, request.path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kernel = getattr(module, request.symbol)
    text = Path(request.path).read_text(encoding="utf-8")
    comments = dict(re.findall(r"^ +(\w+),  # (\w+)", text, re.MULTILINE))
    pointers = [name for name in kernel.arg_names if name.endswith("_ptr")]
    types = {name: POINTERS[comments[name]] for name in pointers}
    source = ASTSource(
        fn=kernel,
        signature={name: types.get(name, "i32") for name in kernel.arg_names},
        constexprs={},
        attrs={(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in pointers},
    )
    target = GPUTarget(request.backend, request.arch, request.warp_size)
    options = {**module.OPTIONS, "enable_fp_fusion": request.enable_fp_fusion}
    kernel = triton.compile(source, target=target, options=options)
    if request.backend == "hip":
        return {"amdgcn": kernel.asm["amdgcn"]}
    return {"ptx": kernel.asm["ptx"], "sass": _sass(kernel.asm["cubin"])}


def _sass(cubin: bytes) -> str:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "-sass", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    print(json.dumps([_compile(Request(**each)) for each in json.load(sys.stdin)]))
