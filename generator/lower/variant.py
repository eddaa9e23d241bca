"""Variant: a contract computed by a design on a target, and what follows from that choice.

Every derived fact (requirements, shared memory, registers, launch counts) is stated here once;
rules, ranking, emission and the manifest read it.
"""

from __future__ import annotations

from dataclasses import dataclass

from generator.conditions import AtMost, Condition, Multiple, ProductBelow
from generator.formats import FORMATS
from generator.lower.contract import Contract, GemmContract
from generator.lower.derived import derived
from generator.lower.design import Design
from generator.lower.exactness import Proof, prove
from generator.lower.registers import Registers, registers
from generator.lower.walk import Tail, Walk, doubled, planes_walk, rows_walk, tail
from generator.lower.warps import LOADING, ring_bytes, stage_k
from generator.packing import K_UNIT, block_length
from generator.spec.model import Limits, Target

# Row-wise kernels mask the end of a row; rows that are multiples of this keep their accesses 16
# bytes wide.
ROW_UNIT = 32
# Families of matrix instructions that read their operands from shared memory.
SHARED_OPERANDS = {"wgmma", "tcgen05"}
BARRIERS = 1024  # bytes of shared memory beside the tiles, at most
UNROLLED_DOTS = 4  # a group of more dots is walked in a loop
INT32 = 2**31  # offsets and counts are int32 in emitted kernels, unless a design says int64


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
        """Threads of one program, those of loading warps included."""
        loading = LOADING if self.design.specialized else 0
        return (self.design.warps + loading) * self.target.warp_size

    @derived
    def gemm(self) -> GemmContract | None:
        return self.contract if isinstance(self.contract, GemmContract) else None

    @derived
    def proof(self) -> Proof | None:
        return prove(self.contract, self.limits, dot=self.design.dot, unpack=self.design.unpack)

    @property
    def planes(self) -> bool:
        """Whether weights are nibbles in planes."""
        return self.gemm is not None and self.gemm.packing == "planes"

    @property
    def longest_tile(self) -> int | None:
        """Stored elements that one dot may take: of a plane, or a group; None where one scale has
        all of an unpacked row.
        """
        assert self.gemm is not None
        group_k = self.gemm.group_k
        return block_length(group_k) // 2 if self.planes else group_k

    @property
    def doubles(self) -> bool:
        """Whether a GEMM's tile is twice as long as a dot may be, and a turn does two in a row."""
        if self.gemm is None or self.longest_tile is None:
            return False
        return self.design.block_k == 2 * self.longest_tile

    @derived
    def walk(self) -> Walk:
        """One turn of the loop over K."""
        gemm, block_k = self.gemm, self.design.block_k
        assert gemm is not None and block_k is not None
        if self.design.dot == "rank1":
            return self._walk(loop=gemm.group_k is not None or self.planes)
        if self.doubles:
            return doubled(self._walk(loop=False), grouped=gemm.group_k is not None)
        whole = self._walk(loop=False)
        if whole.dots <= len(whole.tiles[0].planes):  # one tile
            return whole
        looped = self._walk(loop=True)
        if looped.repeat < 2:
            return whole
        cut = self.proof is not None and self.proof.chunk is not None and gemm.group_k is not None
        if cut or gemm.requantizes or whole.dots > UNROLLED_DOTS:
            return looped
        return whole if self._loop_bytes(whole) <= self.target.shared_memory else looped

    def _walk(self, *, loop: bool) -> Walk:
        gemm, block_k = self.gemm, self.design.block_k
        assert gemm is not None and block_k is not None
        tile = block_k // 2 if self.doubles else block_k
        if self.planes:
            return planes_walk(gemm.group_k, tile, loop=loop, tight=gemm.requantizes)
        return rows_walk(gemm.group_k or tile, tile, loop=loop)

    @derived
    def tail(self) -> Tail | None:
        """What a walk leaves of padded rows; None where it leaves nothing or does not walk it."""
        return self.possible_tail if self.design.tail == "any" else None

    @derived
    def possible_tail(self) -> Tail | None:
        assert self.gemm is not None
        single = self.design.dot == "rank1"
        return tail(self.gemm.group_k, self.walk.unit_k, planes=self.planes, single=single)

    @property
    def _k_unit(self) -> int:
        """What K is a multiple of: turns; with a tail K_UNIT, or a stage where a ring takes it."""
        if self.tail is None:
            return self.walk.unit_k
        return max(K_UNIT, stage_k(self)) if self.design.specialized else K_UNIT

    @property
    def chunk_turns(self) -> int | None:
        """Turns of the loop, inner where there is one, whose sum fp32 holds; None: all of them."""
        if self.gemm is None or self.proof is None or self.proof.chunk is None:
            return None
        if self.gemm.group_k is None:
            return self.proof.chunk // self.walk.unit_k
        most = self.proof.chunk // self.walk.turn_k if self.walk.repeat else 0
        turns = [each for each in range(1, most + 1) if self.walk.repeat % each == 0]
        return turns[-1] if turns else 0

    @property
    def weight_rows(self) -> int:
        """Rows of weights that one dot takes."""
        assert self.design.block_n is not None
        return self.design.block_n * (2 if self.design.gates == "joined" else 1)

    @derived
    def matrix(self) -> tuple[str, ...]:
        """The family of matrix instructions that its first operand is tall enough for, the best of
        them; several where a target stands for devices of several.
        """
        rows = self.weight_rows if self.design.swapped else self.design.block_m
        assert rows is not None
        fitting = [unit for unit in self.target.matrix if unit.block_m <= rows]
        return tuple(unit.name for unit in fitting if unit.block_m == fitting[-1].block_m)

    @derived
    def reads_shared(self) -> bool:
        """Whether the matrix instruction reads operands from shared memory, not from registers."""
        return not SHARED_OPERANDS.isdisjoint(self.matrix)

    @property
    def unpacks_to_registers(self) -> bool:
        """Whether nibbles go from registers into the matrix instruction: those of a first operand
        do, a second one is read from shared memory where the instruction reads any.
        """
        return self.planes and (self.design.swapped or not self.reads_shared)

    @property
    def dot_bytes(self) -> int:
        """Bytes of an operand's element as the dot takes it."""
        return 2 if self.design.dot == "fp16_exact" else 1

    def _row_bytes(self) -> int:
        """Bytes of one K element of a tile of rows, in shared memory for the dot and as loaded."""
        gemm, design = self.gemm, self.design
        assert gemm is not None and design.block_m is not None
        return design.block_m * max(FORMATS[gemm.input].bits // 8, self.dot_bytes)

    @property
    def _k_bytes(self) -> int:
        """Shared memory of one K element of the tiles of rows and weights, as they are stored."""
        gemm, design = self.gemm, self.design
        assert gemm is not None and design.block_n is not None
        planes = 2 if self.planes else 1
        return gemm.weight_tiles * design.block_n + planes * self._row_bytes()

    @property
    def _copies(self) -> int:
        """Copies of a loop's tiles in flight; what is multiplied from registers needs one less."""
        stages = self.design.stages
        return stages if self.reads_shared else max(1, stages - 1)

    def _loop_bytes(self, walk: Walk) -> int:
        """Of the pipelined loop: its tiles, and once the remainder after an inner loop. Weights
        that the dot takes in another form stand there once more where it reads shared memory.
        """
        gemm, design = self.gemm, self.design
        assert gemm is not None and design.block_n is not None
        body, rest = walk.staged
        staged = self._k_bytes * (self._copies * body + rest)
        if self.reads_shared and self.unpacks_to_registers and design.stages > 1:
            staged -= gemm.weight_tiles * design.block_n * body
        if self.dot_bytes == 1 and (self.unpacks_to_registers or not self.planes):
            return staged
        planes = 2 if self.planes else 1
        return staged + gemm.weight_tiles * design.block_n * planes * self.dot_bytes * body

    @derived
    def shared_bytes(self) -> int:
        """Shared memory of one program: the pipelined loops over K and over an int8 tail, scales in
        flight, and the tile of results while its layout changes.
        """
        gemm, design = self.gemm, self.design
        if gemm is None or design.dot == "rank1":
            return 0
        assert design.block_m is not None and design.block_n is not None
        if design.specialized:
            return ring_bytes(self) + BARRIERS
        needed = self._loop_bytes(self.walk)
        if self.tail is not None and not self.planes:
            needed += self._k_bytes * self._copies * self.tail.tile
        if gemm.group_k is not None:
            scales = gemm.weight_tiles * design.block_n * self.walk.groups
            needed += self._copies * scales * FORMATS[gemm.scale].bits // 8
        results = design.block_m * self.weight_rows * FORMATS[gemm.output].bits // 8
        return needed + results + BARRIERS

    @derived
    def sum_registers(self) -> int:
        """Registers of one thread that hold sums: one for each group of a turn, and fp32 beside
        them where groups are scaled apart or chunks are added up.
        """
        if self.gemm is None:
            return 0
        apart = self.gemm.group_k is not None or self.chunk_turns is not None
        return self.result_registers * (self.walk.groups + (1 if apart else 0))

    @derived
    def result_registers(self) -> int:
        """Registers of one thread that hold the results of a GEMM before the epilogue, one fp32
        each.
        """
        gemm, design = self.gemm, self.design
        if gemm is None:
            return 0
        assert design.block_m is not None and design.block_n is not None
        threads = design.warps * self.target.warp_size
        return gemm.weight_tiles * design.block_m * design.block_n // threads

    @derived
    def registers(self) -> Registers | None:
        """What one thread of a GEMM needs; None of other operations."""
        return registers(self) if self.gemm is not None else None

    @derived
    def resident_programs(self) -> int:
        """Programs that one processor holds at once."""
        figures, need = self.target.cost, self.registers
        by_threads = figures.resident_threads // self.threads
        registers = min(need.needed, need.limit) * self.threads if need else 1
        by_registers = figures.register_file // registers
        by_shared = figures.shared_per_processor // max(self.shared_bytes, 1)
        return max(1, min(by_threads, by_registers, by_shared))

    @derived
    def requires(self) -> tuple[Condition, ...]:
        """All that a call must satisfy: the design's own conditions, then the limits of proofs."""
        return self._design_requires() + self.bounds

    def _design_requires(self) -> tuple[Condition, ...]:
        design, operation = self.design, self.contract.operation
        if operation in ("count", "route"):
            return (ProductBelow(("rows", "experts"), INT32),)
        if operation == "dispatch":
            return (Multiple("K", ROW_UNIT), ProductBelow(("rows", "experts"), INT32))
        if operation in ("quantize", "requantize"):
            return (Multiple("K", ROW_UNIT),)
        assert design.block_n is not None
        if operation == "combine":
            return (Multiple("N", ROW_UNIT),)
        columns = (Multiple("N", design.block_n),)
        whole = Multiple("K", self._k_unit)
        if design.offsets == "int64":
            return (whole, *columns)
        return (
            whole,
            ProductBelow(("rows", "K"), INT32),
            *columns,
            ProductBelow(("rows", "N"), INT32),
        )

    @derived
    def bounds(self) -> tuple[AtMost, ...]:
        """The limits up to which sums are exact and offsets fit, for an operation's dimensions."""
        limits, operation = self.limits, self.contract.operation
        rows, experts = AtMost("rows", limits.rows), AtMost("experts", limits.experts)
        bins = AtMost("experts", min(limits.experts, self.design.block_n or limits.experts))
        if operation in ("count", "route"):
            return (rows, bins)
        if operation == "dispatch":
            return (rows, AtMost("K", self.longest_row), bins)
        columns = AtMost("N", limits.n // 2 if operation == "up" else limits.n)
        if operation == "combine":
            return (rows, columns)
        if self.gemm is None:
            return (rows, AtMost("K", self.longest_row), experts)
        return (rows, AtMost("K", limits.k), columns, experts)

    @property
    def longest_row(self) -> int:
        """The longest K that a row-wise kernel takes."""
        steps = self.design.row == "steps" or self.design.block_k is None
        return self.limits.k if steps else min(self.limits.k, self.design.block_k or 0)

    @derived
    def counts(self) -> tuple[Count, ...]:
        """Run-time integers of the kernel, in argument order."""
        design, operation = self.design, self.contract.operation
        if operation in ("count", "route"):
            return ()
        if operation in ("dispatch", "quantize", "requantize"):
            return (Count("k_units", "K", ROW_UNIT),)
        assert design.block_n is not None
        if operation == "combine":
            return (Count("n_units", "N", ROW_UNIT),)
        columns = Count("n_tiles", "N", design.block_n)
        if self.tail:
            turns = Count("k_units", "K", K_UNIT)
        else:
            turns = Count(self.turns, "K", self.walk.unit_k)
        if design.specialized:  # copies by TMA are told the whole of either operand
            return (Count("rows", "rows", 1), Count("experts", "experts", 1), columns, turns)
        return (columns, turns)

    @property
    def turns(self) -> str:
        """What the loop over K counts, as the kernel calls it."""
        assert self.gemm is not None
        if self.gemm.group_k is None:
            return "k_blocks" if self.planes else "k_tiles"
        return {1: "groups", 2: "group_pairs", 4: "group_fours"}[self.walk.groups]
