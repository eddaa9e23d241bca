"""Rules of what a variant takes of a device, foretold or on record, in the terms of rule.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from generator.lower.measured import Measured
from generator.lower.rule import Reason
from generator.lower.variant import Variant

PROGRAM_THREADS = 1024  # of one program at most, on every target in sight


def shared_memory(variant: Variant) -> Reason | None:
    """More than a program of the target may have."""
    limit = variant.target.shared_memory
    if variant.shared_bytes <= limit:
        return None
    return lambda: (
        f"{variant.shared_bytes} bytes of shared memory > {limit}; {_stages_for(variant)}"
    )


def _stages_for(variant: Variant) -> str:
    for stages in range(variant.design.stages - 1, 0, -1):
        if _redesigned(variant, stages=stages).shared_bytes <= variant.target.shared_memory:
            return f"at most {stages} stages fit"
    one = _redesigned(variant, stages=1).shared_bytes
    return f"one stage takes {one}: use smaller tiles"


def _redesigned(variant: Variant, **changes: Any) -> Variant:
    return replace(variant, design=replace(variant.design, **changes))


def accumulator_registers(variant: Variant) -> Reason | None:
    """More than a thread has: sums, and what is foretold beside them."""
    need = variant.registers
    if need is None or need.needed <= need.limit:
        return None
    return lambda: (
        f"{need.held} registers of sums + {need.beside} > {need.limit} a thread;"
        f" {_room_for(variant)}"
    )


def _room_for(variant: Variant) -> str:
    """More warps share the sums; fewer leave more registers to each thread."""
    own, most = variant.design.warps, PROGRAM_THREADS // variant.target.warp_size
    powers = [1 << power for power in range(most.bit_length())]
    more = [warps for warps in powers if warps > own]
    fewer = [warps for warps in reversed(powers) if warps < own]
    for warps in more + fewer:
        need = _redesigned(variant, warps=warps).registers
        if need is not None and need.needed <= need.limit:
            return f"{warps} warps hold them"
    return "use smaller tiles"


def spills(variant: Variant, measured: Measured) -> str | None:
    """A stack on record."""
    return measured.spills(variant)


def miscompiled(variant: Variant, measured: Measured) -> str | None:
    """Registers on record that are read and that nothing sets."""
    return measured.miscompiled(variant)
