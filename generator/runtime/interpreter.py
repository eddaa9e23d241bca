"""Triton's CPU interpreter: switched on where there is no GPU, and its arithmetic made exact.

Triton reads TRITON_INTERPRET when it is first imported, so `prepare` runs before anything imports
triton. The interpreter of Triton 3.6 to 3.8 rounds `tl.fma` twice, and all versions up to 3.9
truncate fp32 -> bf16 and flush bf16 subnormals; `install` replaces both by those of
`exact_float.py`. `probe` checks that they took. Only an active interpreter imports numpy.

It also spends time on what changes no result: it looks through all of triton.language for what it
has to replace whenever a kernel starts and whenever one calls a helper, makes the type of every
tensor anew, and works out whether integers overflow although it tells nobody. `install` ends that.
"""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from functools import cache
from inspect import getmembers
from typing import Any

import torch

from ..errors import Finding, LaunchError

FLAG = "TRITON_INTERPRET"


def active() -> bool:
    """Whether emitted kernels run under the interpreter, by the words that Triton takes for yes."""
    return os.environ.get(FLAG, "").lower() in ("1", "true", "yes", "on", "y")


def prepare() -> None:
    """Choose GPU or interpreter for this process. Raises LaunchError where triton was imported too
    early.
    """
    if FLAG not in os.environ and not torch.cuda.is_available():
        if "triton" in sys.modules:
            raise LaunchError(
                Finding(
                    str(__package__),
                    "there is no GPU, and triton was imported before its interpreter was chosen",
                    f"export {FLAG}=1, or import {__package__} first",
                )
            )
        os.environ[FLAG] = "1"
    if active():
        install()


def quiet() -> AbstractContextManager[object]:
    """NaN, Inf and overflow are values here, as on a GPU; numpy need not report them."""
    import numpy as np

    return np.errstate(all="ignore")


@cache
def install() -> None:
    """Replace the interpreter's inexact operations, once."""
    import numpy as np
    import triton.language as tl
    from triton.runtime import interpreter

    from .exact_float import bf16_to_fp32, fma_fp32, fp32_to_bf16

    builder = interpreter.InterpreterBuilder
    original_fma, original_convert = builder.create_fma, interpreter._convert_float

    def create_fma(self: Any, x: Any, y: Any, z: Any) -> Any:
        if z.data.dtype != np.float32:
            return original_fma(self, x, y, z)
        with quiet():
            return interpreter.TensorHandle(fma_fp32(x.data, y.data, z.data), z.dtype.scalar)

    def convert(value: np.ndarray, source: Any, target: Any, rounding: Any) -> Any:
        if source == tl.float32 and target == tl.bfloat16:
            return fp32_to_bf16(value.view(np.uint32))
        if source == tl.bfloat16 and target == tl.float32:
            return bf16_to_fp32(value.view(np.uint16))
        return original_convert(value, source, target, rounding)

    builder.create_fma = create_fma
    interpreter._convert_float = convert
    _look_once(interpreter)
    _type_once(tl.core)
    _check_where_told()


def _look_once(interpreter: Any) -> None:
    """Remember which attributes of a module or class are Triton's builtins, and the numpy type of
    each element type, of which a table was made at every question. What an attribute is at the time
    decides, as before, whether it is replaced.
    """
    is_builtin = interpreter.tl.core.is_builtin
    original_type = interpreter._get_np_dtype
    names: dict[Any, list[str]] = {}
    types: dict[str, Any] = {}

    def patch_builtin(package: Any, builder: Any, scope: Any) -> None:
        if package not in names:
            names[package] = [name for name, each in getmembers(package) if is_builtin(each)]
        for name in names[package]:
            member = getattr(package, name)
            if is_builtin(member):
                interpreter._patch_attr(package, name, member, builder, scope)

    def np_dtype(dtype: Any) -> Any:
        scalar = dtype.scalar
        if scalar.name not in types:
            types[scalar.name] = original_type(scalar)
        return types[scalar.name]

    interpreter._patch_builtin = patch_builtin
    interpreter._get_np_dtype = np_dtype


def _type_once(core: Any) -> None:
    """Remember what Triton works out for every tensor anew: of a block's type what follows from the
    names of its elements and its shape, and of a tensor what follows from the name of its type.
    """
    block, tensor = core.block_type, core.tensor
    original_block, original_tensor = block.__init__, tensor.__init__
    blocks: dict[Any, dict[str, Any]] = {}
    shapes: dict[str, tuple[Any, Any]] = {}

    def block_type(self: Any, element_ty: Any, shape: Any) -> None:
        sizes = [getattr(each, "value", each) for each in shape]
        usual = isinstance(element_ty, core.dtype) and isinstance(shape, (list, core.tuple))
        usual = usual and all(type(each) is int for each in sizes)
        key = (element_ty.name, *sizes) if usual else None
        if key in blocks:
            # Pointers into other address spaces have the same name.
            vars(self).update(blocks[key], element_ty=element_ty)
            return
        original_block(self, element_ty, shape)  # which may refuse them
        if key is not None:
            blocks[key] = dict(vars(self))

    def tensor_of(self: Any, handle: Any, type: Any) -> None:
        known = shapes.get(type.name)
        if known is None:
            original_tensor(self, handle, type)
            shapes[type.name] = self.shape, self.numel
        else:
            self.handle, self.type, self.dtype = handle, type, type.scalar
            self.shape, self.numel = known

    block.__init__, tensor.__init__ = block_type, tensor_of


def _check_where_told() -> None:
    """Work out whether integers overflow only where the builder's options say `debug`: elsewhere
    Triton drops what it found.
    """
    from triton.language.semantic import TritonSemantic

    original = TritonSemantic.binary_op_sanitize_overflow_impl

    def check(self: Any, lhs: Any, rhs: Any, binary_op: Any) -> None:
        if self.builder.options.debug:
            original(self, lhs, rhs, binary_op)

    TritonSemantic.binary_op_sanitize_overflow_impl = check
