"""The interpreter is chosen before triton is imported, and its arithmetic is exact."""

from __future__ import annotations

import os
import subprocess
import sys
from inspect import getmembers
from types import FunctionType

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter as tritons

from generator.runtime import exact_float, interpreter, reference


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key != interpreter.FLAG}
    clean["CUDA_VISIBLE_DEVICES"] = ""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_the_runtime_sets_the_flag() -> None:
    code = "import generator.runtime, os; print(os.environ['TRITON_INTERPRET'])"
    assert run(code).stdout == "1\n"


def test_the_users_choice_is_kept() -> None:
    code = "import generator.runtime, os; print(os.environ['TRITON_INTERPRET'])"
    assert run(code, TRITON_INTERPRET="0").stdout == "0\n"


@pytest.mark.parametrize("yes", ["1", "true", "ON", "yes"])
def test_every_word_that_triton_takes_for_yes_gives_exact_arithmetic(yes: str) -> None:
    code = (
        "import generator.runtime, triton.knobs as k;"
        "from triton.runtime import interpreter as i;"
        "print(k.runtime.interpret, i.InterpreterBuilder.create_fma.__module__)"
    )
    assert run(code, TRITON_INTERPRET=yes).stdout == "True generator.runtime.interpreter\n"


def test_a_gpu_server_needs_no_numpy() -> None:
    code = "import sys; sys.modules['numpy'] = None; import generator.runtime.module"
    result = run(code, TRITON_INTERPRET="0")
    assert result.returncode == 0, result.stderr


def test_no_gpu_and_no_interpreter_is_a_clear_error() -> None:
    code = "from generator import cli; raise SystemExit(cli.main(['probe']))"
    result = run(code, TRITON_INTERPRET="0")
    assert result.returncode == 2
    assert "unset TRITON_INTERPRET, or set it to 1" in result.stderr


def test_triton_imported_too_early_is_a_clear_error() -> None:
    result = run("import triton, generator.runtime")
    assert result.returncode == 1
    assert "export TRITON_INTERPRET=1, or import generator.runtime first" in result.stderr


def test_every_builtin_is_replaced_in_a_kernel_and_restored_after_it() -> None:
    """Although it is looked for only once."""
    holders = (tl, tl.tensor, tl.math, tl.core.tensor_descriptor_base)

    def builtins() -> list[tuple[object, str, object]]:
        return [
            (holder, name, each)
            for holder in holders
            for name, each in getmembers(holder)
            if tl.core.is_builtin(each)
        ]

    kernel = FunctionType(compile("0", "kernel", "eval"), {"tl": tl})
    for _ in range(2):
        before = builtins()
        assert len(before) > 100
        scope = tritons._patch_lang(kernel)
        assert builtins() == []
        tritons._patch_lang(kernel)  # as a helper does, which restores nothing
        scope.restore()
        assert builtins() == before


def test_types_are_what_triton_makes_of_them_elsewhere() -> None:
    """What shows of them and what is refused, in a process with Triton's own interpreter."""
    code = """
{first}
import triton.language as tl
elements = (tl.int32, tl.bfloat16, tl.pointer_type(tl.int8), tl.pointer_type(tl.int8, 2))
shapes = ([16], [tl.constexpr(8), 16], tl.tuple([1, 64]), [16, 8], [16])
def told(value):
    return type(value).__name__, str(value), [(type(v).__name__, str(v)) for v in value]
for element in elements:
    made = [tl.block_type(element, shape) for shape in shapes]
    for each in (*made, element):
        x = tl.tensor(None, each)
        print(x.type is each, x.dtype, told(x.shape), repr(x.numel), str(each), each.is_block())
        if each.is_block():
            print(told(each.shape), each.numel, each.scalar is element, each.mangle(), vars(each))
    print([[a == b for b in made] for a in made])
for shape in ((16,), [16.0], [True], tl.constexpr([16]), [], [3], ["a"]):
    try:
        print(tl.block_type(tl.int32, shape))
    except (AssertionError, AttributeError, TypeError, ValueError) as error:
        print(type(error).__name__)
print(vars(tl.block_type(tl.constexpr(tl.int32), [16])))
"""
    ours, tritons_own = (
        run(code.format(first=first), TRITON_INTERPRET="1")
        for first in ("import generator.runtime", "")
    )
    assert ours.stdout.count("\n") > 30 and ours.stderr == ""
    assert ours.stdout == tritons_own.stdout


def test_overflow_is_told_where_the_options_say_debug() -> None:
    code = """
import generator.runtime, torch, triton, triton.language as tl
from dataclasses import replace
from triton.runtime import interpreter as tritons
@triton.jit
def kernel(x_ptr):
    tl.store(x_ptr, tl.load(x_ptr) + tl.load(x_ptr))
x = torch.tensor([2**30], dtype=torch.int32)
kernel[(1,)](x)
print(x.item(), flush=True)
builder = tritons.interpreter_builder
builder.options = replace(builder.options, debug=True)
kernel[(1,)](x)
"""
    done = run(code, TRITON_INTERPRET="1")
    assert done.stdout == f"{-(2**31)}\n"
    assert "int32 overflow detected" in done.stderr


def test_element_types_are_numpys() -> None:
    for dtype, name in ((tl.int1, "bool"), (tl.bfloat16, "uint16"), (tl.float32, "float32")):
        assert tritons._get_np_dtype(dtype) == np.dtype(name)
        assert tritons._get_np_dtype(tl.block_type(dtype, [4])) == np.dtype(name)
        assert tritons._get_np_dtype(tl.pointer_type(dtype)) == np.dtype("uint64")
        pointers = tl.block_type(tl.pointer_type(dtype), [4])
        assert tritons._get_np_dtype(pointers) == np.dtype("uint64")


@pytest.fixture
def patterns() -> np.ndarray:
    """2**20 random fp32 bit patterns, and those of all bf16 values."""
    random = np.random.default_rng(0)
    bits = random.integers(0, 2**32, 2**20, dtype=np.uint32)
    return np.concatenate([bits, np.arange(2**16, dtype=np.uint32) << 16])


def test_fp32_to_bf16_is_torchs(patterns: np.ndarray) -> None:
    values = torch.from_numpy(patterns.view(np.int32)).view(torch.float32)
    want = values.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    got = exact_float.fp32_to_bf16(patterns)
    nan = torch.isnan(values).numpy()
    assert (got[~nan] == want[~nan]).all()
    assert (got[nan] == 0x7FC0).all()


def test_bf16_to_fp32_is_exact() -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    assert (exact_float.bf16_to_fp32(bits) >> 16 == bits).all()


def test_fma_is_the_oracles(patterns: np.ndarray) -> None:
    a, b, c = (np.roll(patterns, shift).view(np.float32) for shift in (0, 7, 91))
    with interpreter.quiet():
        got = exact_float.fma_fp32(a, b, c)
    want = reference.fma(*(torch.from_numpy(each.copy()) for each in (a, b, c))).numpy()
    same = got.view(np.uint32) == want.view(np.uint32)
    assert (same | (np.isnan(got) & np.isnan(want))).all()
