"""Pruning rules. Each is a named value: why it exists, and what exactly a variant violates.

A rule returns None to keep a variant, else the violated inequality with its numbers and the nearest
legal value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from generator.lower.variant import INT32, Variant

# Registers of the gated epilogue beside the two fp32 tiles. Triton 3.9 spills at 128 registers of
# tiles for sm_90 and not at 64 (2026-11-22).
GATE_REGISTERS = 130
LEAST_DOT_K = 32  # an int8 dot of K = 16 does not compile (Triton 3.6 to 3.9)
LEAST_WARP_SUMS = 16 * 8  # outputs of the smallest matrix instruction of one warp


@dataclass(frozen=True)
class Rule:
    """A named reason to reject a variant."""

    name: str
    why: str
    violation: Callable[[Variant], str | None]


@dataclass(frozen=True)
class Rejection:
    """One variant and the rule it breaks."""

    variant: Variant
    rule: Rule
    what: str


def _block_k_exceeds_group(variant: Variant) -> str | None:
    gemm, block_k = variant.gemm, variant.design.block_k
    if gemm is None or gemm.group_k is None or block_k is None or block_k <= gemm.group_k:
        return None
    nearest = 1 << (gemm.group_k.bit_length() - 1)
    return f"block_k {block_k} > group {gemm.group_k}; at most {nearest} fits"


def _dot_minimum(variant: Variant) -> str | None:
    gemm, block_k = variant.gemm, variant.design.block_k
    if gemm is None or block_k is None:
        return None
    smallest = variant.walk.smallest
    if smallest >= LEAST_DOT_K:
        return None
    return f"a dot of K = {smallest} < {LEAST_DOT_K}; use block_k {LEAST_DOT_K} or more"


def _accumulator_exact(variant: Variant) -> str | None:
    proof = variant.proof
    if proof is None or proof.holds:
        return None
    longest = proof.capacity // (proof.code * proof.weight)
    return f"{proof}; groups of up to {longest} are exact"


def _shared_memory(variant: Variant) -> str | None:
    limit = variant.target.shared_memory
    if variant.shared_bytes <= limit:
        return None
    stage = variant.shared_bytes // variant.design.stages
    most = limit // stage
    nearest = (
        f"at most {most} stages fit" if most else f"one stage takes {stage}: use smaller tiles"
    )
    return f"{variant.shared_bytes} bytes of shared memory > {limit}; {nearest}"


def _accumulator_registers(variant: Variant) -> str | None:
    if variant.gemm is None:
        return None
    limit, results = variant.target.registers, variant.result_registers
    gated = GATE_REGISTERS if variant.gemm.gate else 0
    for what, held, beside in (
        ("sums", variant.sum_registers, variant.operand_registers),
        ("results", results, gated),
    ):
        if held + beside > limit:
            room = max(limit - beside, 1)
            warps = 1 << (-(-held * variant.design.warps // room) - 1).bit_length()
            return (
                f"{held} registers of {what} + {beside} > {limit} a thread; {warps} warps hold them"
            )
    return None


def _warp_work(variant: Variant) -> str | None:
    design = variant.design
    if variant.gemm is None or design.block_m is None or design.block_n is None:
        return None
    sums = design.block_m * design.block_n // design.warps
    if sums >= LEAST_WARP_SUMS:
        return None
    most = design.block_m * design.block_n // LEAST_WARP_SUMS
    nearest = f"use at most {most} warps" if most else f"use tiles of {LEAST_WARP_SUMS} or more"
    return f"{sums} outputs a warp < {LEAST_WARP_SUMS}; {nearest}"


def _strategy_on_target(variant: Variant) -> str | None:
    dot, target = variant.design.dot, variant.target
    if dot is None or dot in target.dots:
        return None
    return f"dot `{dot}` is not right on {target.name}; it has {', '.join(target.dots)}"


def _offsets_fit(variant: Variant) -> str | None:
    limits = variant.limits
    if variant.gemm is None or limits.n * limits.k < INT32:
        return None
    return (
        f"limits n * k = {limits.n * limits.k} >= 2**31, the int32 offset within one expert;"
        f" lower limits.n to {(INT32 - 1) // limits.k}"
    )


def _accept_multiples(variant: Variant) -> str | None:
    promise, design = variant.target.accept_multiples, variant.design
    if promise == "none":
        return None
    if design.block_n and variant.contract.operation != "route" and promise.n % design.block_n:
        most = promise.n & -promise.n  # the largest power of two that divides it
        return f"block_n {design.block_n} does not divide {promise.n}; use at most {most}"
    channel = variant.gemm is not None and variant.gemm.group_k is None
    if design.block_k and channel and promise.k % design.block_k:
        most = promise.k & -promise.k
        return f"block_k {design.block_k} does not divide {promise.k}; use at most {most}"
    return None


def _row_tile(variant: Variant) -> str | None:
    fixed, block_m = variant.target.row_tile, variant.design.block_m
    if variant.gemm is None or fixed == "any" or block_m == fixed:
        return None
    return f"block_m {block_m} is not the row tile {fixed} of {variant.target.name}; use {fixed}"


RULES = (
    Rule(
        "block_k_exceeds_group",
        "a tile that crosses a group would mix two scales, or waste masked lanes",
        _block_k_exceeds_group,
    ),
    Rule("dot_minimum", "matrix instructions have a least K", _dot_minimum),
    Rule("accumulator_exact", "a group's sum must be the exact integer", _accumulator_exact),
    Rule(
        "strategy_on_target",
        "some back ends compile a dot wrongly or not at all",
        _strategy_on_target,
    ),
    Rule("offsets_fit", "an offset that wraps reads another expert's weights", _offsets_fit),
    Rule("accept_multiples", "a target may promise to run any layer", _accept_multiples),
    Rule("row_tile", "the up and the down kernel of a layer share one tile map", _row_tile),
    Rule("warp_work", "a warp without a whole matrix instruction repeats another's", _warp_work),
    Rule(
        "accumulator_registers", "sums that do not fit in registers spill", _accumulator_registers
    ),
    Rule("shared_memory", "a program over the limit does not start", _shared_memory),
)


def reject(variant: Variant) -> Rejection | None:
    """The first rule that a variant breaks, in the order of RULES."""
    for rule in RULES:
        what = rule.violation(variant)
        if what is not None:
            return Rejection(variant, rule, what)
    return None
