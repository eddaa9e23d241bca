"""One entry of a manifest, and the emitted module behind it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from ..conditions import Condition
from ..errors import BuildError, Finding


@dataclass(frozen=True, slots=True)
class Count:
    """A run-time argument: a dimension in units that the module multiplies back."""

    argument: str
    of: str
    unit: int


@dataclass(frozen=True)
class Entry:
    """One emitted module."""

    contract: str
    target: str
    design: str
    symbol: str
    path: Path
    block_m: int | None
    block_n: int | None
    block_k: int | None
    warps: int
    stages: int
    dot: str | None  # dot strategy of a GEMM
    unpack: str | None  # how a GEMM takes nibbles apart
    operands: str | None  # of a GEMM's dots, left to right: rows_first | weights_first
    gates: str | None  # of an up GEMM's weight tiles: apart | joined
    order: str | None  # of a GEMM's programs: tiles | columns | blocks
    roles: str | None  # of a GEMM's warps: specialized | pingpong; None: they are alike
    programs: int | None  # that share all tiles of a launch; None: a program has one tile
    requires: tuple[Condition, ...]
    counts: tuple[Count, ...]
    proof: str | None

    @property
    def name(self) -> str:
        return f"{self.target}/{self.design}"

    @property
    def needs_gpu(self) -> bool:
        """Whether the CPU interpreter cannot run the module: it has inline PTX or is Gluon."""
        return self.unpack == "ptx" or self.roles is not None

    @property
    def rows_per_program(self) -> int:
        """Of GEMMs and row-wise operations. Raises BuildError where the manifest lacks it."""
        return self._block("m", self.block_m)

    @property
    def first_operand_rows(self) -> int:
        """Of a GEMM's dots: what decides on the matrix instruction."""
        if self.operands != "weights_first":
            return self.rows_per_program
        return self.columns_per_program * (2 if self.gates == "joined" else 1)

    @property
    def columns_per_program(self) -> int:
        """Of GEMMs and the combine. Raises BuildError where the manifest lacks it."""
        return self._block("n", self.block_n)

    def _block(self, letter: str, size: int | None) -> int:
        if size is None or size < 1:
            manifest = self.path.parents[3] / "manifest.json"
            raise BuildError(damaged(manifest, f"{self.symbol} has no block_{letter}"))
        return size

    @cached_property
    def module(self) -> ModuleType:
        """The emitted module, imported on first use."""
        spec = importlib.util.spec_from_file_location(f"groupwise_kernels.{self.symbol}", self.path)
        if spec is None or spec.loader is None or not self.path.is_file():
            raise BuildError(
                Finding(str(self.path), "the module is missing", "run `python -m generator build`")
            )
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except SyntaxError as error:
            raise BuildError(damaged(self.path, str(error))) from error
        if not hasattr(module, self.symbol) or not hasattr(module, "OPTIONS"):
            raise BuildError(damaged(self.path, f"it has no {self.symbol} or no OPTIONS"))
        return module

    @cached_property
    def kernel(self) -> Any:
        """The Triton kernel of the module."""
        return getattr(self.module, self.symbol)

    @cached_property
    def options(self) -> Mapping[str, object]:
        """Launch options: warps, stages, fp fusion."""
        options: Mapping[str, object] = self.module.OPTIONS
        return options


def damaged(path: Path, what: str) -> Finding:
    """What is wrong with a file that a build wrote."""
    return Finding(str(path), f"is damaged: {what}", "run `python -m generator build`")
