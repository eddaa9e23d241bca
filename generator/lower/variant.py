"""Design and variant: how a contract is computed, and what follows from that choice.

Every derived fact (requirements, shared memory, registers, launch counts) is stated here once;
rules, ranking, emission and the manifest read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from generator.conditions import AtMost, Condition, Multiple, ProductBelow
from generator.formats import FORMATS
from generator.lower.contract import Contract, GemmContract
from generator.lower.exactness import Proof, prove
from generator.lower.walk import Walk, looped, unrolled
from generator.spec.model import Limits, Target

# Row-wise kernels mask the end of a row; rows that are multiples of this keep their accesses 16
# bytes wide.
ROW_UNIT = 32
# Registers of one thread that each further tile of an unrolled group keeps alive. Without them a
# group of 320 in three tiles spilled 56 bytes at 128 registers of sums (sm_90, Triton 3.9,
# 2026-11-22).
TILE_REGISTERS = 24
UNROLLED_TILES = 4  # a group of more tiles is walked in a loop
INT32 = 2**31  # offsets and counts are int32 in emitted kernels


@dataclass(frozen=True, slots=True)
class Design:
    """Tile sizes, warps and stages. A dimension that an operation does not have is None."""

    warps: int
    stages: int
    block_m: int | None = None
    block_n: int | None = None
    block_k: int | None = None
    dot: str | None = None

    @property
    def name(self) -> str:
        blocks = (("m", self.block_m), ("n", self.block_n), ("k", self.block_k))
        tile = "".join(f"{letter}{size}" for letter, size in blocks if size is not None)
        return f"{tile}_w{self.warps}s{self.stages}"


@dataclass(frozen=True, slots=True)
class Count:
    """A run-time argument: a dimension in units that the module multiplies back, so that
    divisibility shows.
    """

    argument: str
    of: str
    unit: int


@dataclass(frozen=True)
class Variant:
    """contract x design x target: one emitted module."""

    contract: Contract
    design: Design
    target: Target
    limits: Limits

    @property
    def symbol(self) -> str:
        """What a profiler shows."""
        return f"{self.contract.name}_{self.target.name}_{self.design.name}"

    @property
    def path(self) -> str:
        """Below generated/, with forward slashes."""
        contract = self.contract
        return f"{contract.operation}/{contract.name}/{self.target.name}/{self.design.name}.py"

    @property
    def threads(self) -> int:
        """Threads of one program."""
        return self.design.warps * self.target.warp_size

    @property
    def gemm(self) -> GemmContract | None:
        return self.contract if isinstance(self.contract, GemmContract) else None

    @cached_property
    def proof(self) -> Proof | None:
        return prove(self.contract, self.limits)

    @cached_property
    def walk(self) -> Walk:
        """The tiles of one group (of one step, where the scale covers all K)."""
        assert self.gemm is not None and self.design.block_k is not None
        if self.gemm.group_k is None:
            return unrolled(self.design.block_k, self.design.block_k)
        whole = unrolled(self.gemm.group_k, self.design.block_k)
        fits = self._staged_bytes(whole) <= self.target.shared_memory
        if len(whole.tiles) == 1 or (fits and len(whole.tiles) <= UNROLLED_TILES):
            return whole
        return looped(self.gemm.group_k, self.design.block_k)

    @property
    def unit_k(self) -> int:
        """K elements of one iteration of the outer loop."""
        assert self.gemm is not None and self.design.block_k is not None
        return self.gemm.group_k or self.design.block_k

    def _bytes_per_k(self) -> int:
        gemm, design = self.gemm, self.design
        assert gemm is not None and design.block_m is not None and design.block_n is not None
        rows = design.block_m * FORMATS[gemm.codes].bytes
        return rows + gemm.weight_tiles * design.block_n * FORMATS[gemm.weights].bytes

    def _staged_bytes(self, walk: Walk) -> int:
        """Tiles of the pipelined loop are held `stages` times; a remainder after an inner loop
        once.
        """
        rest = sum(tile.size for tile in walk.tiles)
        if walk.repeat:
            return self._bytes_per_k() * (self.design.stages * walk.step + rest)
        return self._bytes_per_k() * self.design.stages * rest

    @cached_property
    def shared_bytes(self) -> int:
        """Shared memory of one program: operand tiles of every stage in flight."""
        return self._staged_bytes(self.walk) if self.gemm else 0

    @cached_property
    def sum_registers(self) -> int:
        """Registers of one thread that hold sums: int32, and fp32 beside it where groups are scaled
        apart.
        """
        gemm = self.gemm
        if gemm is None:
            return 0
        return self.result_registers * (1 if gemm.group_k is None else 2)

    @cached_property
    def result_registers(self) -> int:
        """Registers of one thread that hold the results of a GEMM before the epilogue, one fp32
        each.
        """
        gemm, design = self.gemm, self.design
        if gemm is None:
            return 0
        assert design.block_m is not None and design.block_n is not None
        return gemm.weight_tiles * design.block_m * design.block_n // self.threads

    @property
    def operand_registers(self) -> int:
        """Registers of one thread beside the sums: operand fragments, pointers, scales."""
        direct, block_m = self.target.shared_operands, self.design.block_m
        tiles = len(self.walk.tiles) if self.gemm else 0
        more = TILE_REGISTERS * max(0, tiles - 1)
        if direct != "none" and block_m is not None and block_m >= direct.block_m:
            return direct.operand_registers + more
        return self.target.operand_registers + more

    @cached_property
    def requires(self) -> tuple[Condition, ...]:
        """All that a call must satisfy: the design's own conditions, then the limits of proofs."""
        return self._design_requires() + self.bounds

    def _design_requires(self) -> tuple[Condition, ...]:
        design, operation = self.design, self.contract.operation
        if operation == "route":
            return (ProductBelow(("rows", "experts"), INT32),)
        if operation in ("quantize", "requantize"):
            products = (ProductBelow(("rows", "K"), INT32), ProductBelow(("experts", "K"), INT32))
            return (Multiple("K", ROW_UNIT), *products)
        assert design.block_n is not None
        columns = (Multiple("N", design.block_n), ProductBelow(("rows", "N"), INT32))
        if operation == "combine":
            return columns
        return (Multiple("K", self.unit_k), ProductBelow(("rows", "K"), INT32), *columns)

    @cached_property
    def bounds(self) -> tuple[AtMost, ...]:
        """The limits up to which sums are exact and offsets fit, for an operation's dimensions."""
        limits, operation = self.limits, self.contract.operation
        rows, experts = AtMost("rows", limits.rows), AtMost("experts", limits.experts)
        if operation == "route":
            bins = min(limits.experts, self.design.block_n or limits.experts)
            return (rows, AtMost("experts", bins))
        columns = AtMost("N", limits.n // 2 if operation == "up" else limits.n)
        if operation == "combine":
            return (rows, columns)
        if self.gemm is None:
            return (rows, AtMost("K", limits.k), experts)
        return (rows, AtMost("K", limits.k), columns, experts)

    @cached_property
    def counts(self) -> tuple[Count, ...]:
        """Run-time integers of the kernel, in argument order."""
        design, operation = self.design, self.contract.operation
        if operation == "route":
            return ()
        if operation in ("quantize", "requantize"):
            return (Count("k_units", "K", ROW_UNIT),)
        assert design.block_n is not None
        columns = Count("n_tiles", "N", design.block_n)
        if operation == "combine":
            return (columns,)
        steps = "groups" if self.gemm and self.gemm.group_k else "k_tiles"
        return (columns, Count(steps, "K", self.unit_k))
