"""Registers that one thread of a GEMM needs, foretold from its design.

need = what it holds of sums or results + half of the fragments of a dot's operands + a few for each
further dot of a turn + a reserve. The reserves are fitted to compiled designs, those of
`specs/resources/calibration/`; `tests/lower/test_calibration.py` compares what is foretold with
what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from generator.lower.contract import GemmContract
from generator.lower.warps import THREAD_REGISTERS, held_registers, operand_registers

if TYPE_CHECKING:
    from generator.lower.variant import Variant

DOT_REGISTERS = 8  # that each further dot of an unrolled turn keeps alive
REGISTER_BYTES = 4
# Rows that are quantized on their way are divided, and the slow path of a division is a call, which
# leaves so many registers.
CALL_REGISTERS = 168


# Where warps have roles: what compiles without spilling beside 192 sums, and beside 160 and 32 of
# nibbles (Triton 3.6 and 3.9).
SPECIALIZED_RESERVE = 48

# Registers beside sums and operands: addresses, scales, the epilogue, nibbles taken apart. By the
# family of matrix instructions; by what the kernel does beside its sums: `plain` scales and stores
# them, `gated` computes silu, `requantizing` quantizes the rows that it loads; and by how it takes
# nibbles apart. mma and mfma read operands from registers, wgmma reads them from shared memory, but
# for weights that are unpacked.
_MMA = {
    "plain": {"none": 148, "value": 68, "shift": 108, "ptx": 100},
    "gated": {"none": 148, "value": 208, "shift": 208, "ptx": 160},
    "requantizing": {"none": 148, "value": 140, "shift": 140, "ptx": 140},
}
RESERVES: Mapping[str, Mapping[str, Mapping[str, int]]] = {
    "mma": _MMA,
    # Sums stand in tensor memory, but older compilers make mma of the same dots.
    "tcgen05": {
        "plain": _MMA["plain"],
        "gated": {"none": 124, "value": 148, "shift": 92, "ptx": 160},
        "requantizing": _MMA["requantizing"],
    },
    "wgmma": {
        "plain": {"none": 92, "value": 60, "shift": 60, "ptx": 60},
        "gated": {"none": 128, "value": 92, "shift": 92, "ptx": 112},
        "requantizing": {"none": 148, "value": 140, "shift": 140, "ptx": 140},
    },
    "mfma": {
        "plain": {"none": 224, "value": 240, "shift": 128},
        "gated": {"none": 236, "value": 240, "shift": 214},
        "requantizing": {"none": 148, "value": 140, "shift": 140},
    },
}


@dataclass(frozen=True, slots=True)
class Registers:
    """Of one thread."""

    held: int  # sums of a turn, or the results after the last one
    operands: int  # fragments and the dots of a turn
    reserve: int
    limit: int  # that one thread may take

    @property
    def needed(self) -> int:
        return self.held + self.beside

    @property
    def beside(self) -> int:
        """All but the sums."""
        return self.operands + self.reserve


def registers(variant: Variant) -> Registers:
    """Of one thread of a GEMM."""
    gemm, design, target = variant.gemm, variant.design, variant.target
    assert gemm is not None and design.block_m is not None and design.block_n is not None
    if design.specialized:
        return Registers(
            held=held_registers(variant),
            operands=operand_registers(variant),
            reserve=SPECIALIZED_RESERVE,
            limit=THREAD_REGISTERS,
        )
    limit = min(target.registers, target.cost.register_file // variant.threads)
    if gemm.requantizes:
        limit = min(limit, CALL_REGISTERS)
    elements = (design.block_m + gemm.weight_tiles * design.block_n) * variant.walk.widest
    planes = 2 if variant.planes else 1
    fragments = elements * planes * variant.dot_bytes // (REGISTER_BYTES * variant.threads)
    return Registers(
        held=max(variant.sum_registers, variant.result_registers),
        operands=fragments // 2 + DOT_REGISTERS * (variant.walk.dots - 1),
        reserve=_reserve(variant.matrix, kind(gemm), design.unpack or "none"),
        limit=limit,
    )


@cache
def _reserve(families: tuple[str, ...], kind: str, unpack: str) -> int:
    """The largest of those that a target stands for."""
    return max(RESERVES[family][kind][unpack] for family in families)


def kind(gemm: GemmContract) -> str:
    """What a kernel does beside its sums."""
    if gemm.requantizes:
        return "requantizing"
    return "gated" if gemm.gate else "plain"
