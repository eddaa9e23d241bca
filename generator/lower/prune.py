"""Pruning rules. Each is a named value: why it exists, and what exactly a variant violates.

A rule returns None to keep a variant, else the violated inequality with its numbers and the nearest
legal value.
"""

from __future__ import annotations

from generator.lower.design import Design
from generator.lower.measured import Measured
from generator.lower.resource_rules import (
    accumulator_registers,
    miscompiled,
    shared_memory,
    spills,
)
from generator.lower.rule import Rejection, Rule
from generator.lower.variant import INT32, Variant
from generator.lower.warps import (
    LINES,
    PART_ROWS,
    STRAIGHT_STAGES,
    WEIGHT_ROWS,
    is_pingpong,
    longest_line,
    run_bytes,
    stages_of_group,
)
from generator.packing import K_UNIT
from generator.spec.model import Target

# K of the least dot that compiles (Triton 3.6 to 3.9); outer products take one element.
LEAST_DOT_K = {"int8": 32, "fp16_exact": 16, "rank1": 1}
LEAST_WARP_SUMS = 16 * 8  # outputs of the smallest matrix instruction of one warp
# Of a row that is read twice. 32768 rows of 7168 elements took 292 us in steps of 1024 and 341 of
# 2048, 8192 of 4096 47 and 52, 128 of 7168 4.7 and 5.0, 8 of 2048 2.3 and 2.2, by four warps (one
# H100, 2026-11-26, medians of graph replays).
LONGEST_STEP = 1024


def _strategy_on_target(design: Design, target: Target) -> str | None:
    if design.dot is None or design.dot in target.dots:
        return None
    return f"dot `{design.dot}` is not right on {target.name}; it has {', '.join(target.dots)}"


def _slower_strategy(design: Design, target: Target) -> str | None:
    best, rates = target.fastest_dot, target.cost.dot_ops_per_us
    if design.dot not in target.dots or rates.of(design.dot) >= rates.of(best):
        return None
    return (
        f"dot `{design.dot}` does {rates.of(design.dot)} operations a microsecond"
        f" < {rates.of(best)}; use {best}"
    )


def _unpack_on_target(design: Design, target: Target) -> str | None:
    if design.unpack in (None, "none") or design.unpack in target.unpacks:
        return None
    legal = ", ".join(each for each in target.unpacks if each != "none")
    way = (
        f"it has {legal}" if legal else "add one of nibbles to its unpacks, for any back end shift"
    )
    return f"unpack `{design.unpack}` does not compile for {target.name}; {way}"


def _row_tile(design: Design, target: Target) -> str | None:
    tiles, block_m = target.row_tiles, design.block_m
    if design.dot is None or block_m is None or block_m in tiles:
        return None
    nearest = min(tiles, key=lambda tile: abs(tile - block_m))
    listed = ", ".join(str(tile) for tile in tiles)
    return f"block_m {block_m} is no row tile of {target.name} ({listed}); use {nearest}"


def _outer_products(design: Design, target: Target) -> str | None:
    if design.dot != "rank1" or not design.swapped:
        return None
    return "an outer product of weights and rows is that of rows and weights; use rows_first"


def _joined_gates(design: Design, target: Target) -> str | None:
    if design.gates != "joined" or design.swapped:
        return None
    return "gate and up rows are one operand where weights come first; use weights_first or apart"


def _short_steps(design: Design, target: Target) -> str | None:
    if design.row != "steps" or design.block_k is None or design.block_k <= LONGEST_STEP:
        return None
    return f"steps of {design.block_k} > {LONGEST_STEP}; use block_k {LONGEST_STEP}"


def _block_k_exceeds_group(variant: Variant) -> str | None:
    block_k = variant.design.block_k
    if variant.gemm is None or block_k is None:
        return None
    longest = variant.longest_tile
    if longest is None or block_k <= longest or variant.doubles:
        return None
    what = f"plane {longest} of a block" if variant.planes else f"group {longest}"
    return f"block_k {block_k} > {what}; at most {1 << (longest.bit_length() - 1)} fits"


def _specialized_walk(variant: Variant) -> str | None:
    gemm = variant.gemm
    if gemm is None or not variant.design.specialized:
        return None
    if gemm.requantizes:
        return "rows come by TMA, and are not quantized on their way; use warps that are alike"
    if is_pingpong(variant) and (variant.planes or gemm.group_k is not None):
        others = "nibbles" if variant.planes else "sums of a group"
        return (
            f"sums of {WEIGHT_ROWS} weight rows by {variant.design.block_m} rows leave four warps"
            f" no room for {others}; use roles specialized"
        )
    if variant.planes and (variant.design.block_m or 0) > 2 * PART_ROWS:
        most = 2 * PART_ROWS
        return f"{variant.design.block_m} rows that meet nibbles > {most}; use block_m {most}"
    line = longest_line(variant)
    pairs = variant.planes and variant.walk.groups == 2
    if line is None or (pairs and line != run_bytes(variant)):
        return (
            f"stages of {', '.join(map(str, LINES))} bytes of a row do not make up groups of"
            f" {gemm.group_k} K; use warps that are alike"
        )
    if variant.design.block_k != line:
        return (
            f"stages of {variant.design.block_k} bytes of a row; the longest that divide runs of"
            f" {run_bytes(variant)} are of {line}; use block_k {line}"
        )
    stages = stages_of_group(variant)
    if stages > STRAIGHT_STAGES:
        return (
            f"groups of {stages} stages > {STRAIGHT_STAGES}, which are straight code;"
            " use warps that are alike"
        )
    if variant.design.tail == "any" and stages == 1:
        return "groups of 1 stage < 2 have none that is shorter; use tail none"
    return None


def _dot_minimum(variant: Variant) -> str | None:
    gemm, block_k, dot = variant.gemm, variant.design.block_k, variant.design.dot
    if gemm is None or block_k is None or dot is None:
        return None
    least = LEAST_DOT_K[dot]
    if dot == "rank1":
        return None if block_k == 1 else f"outer products of {block_k} K > 1; use block_k 1"
    smallest = block_k if block_k < least else variant.walk.smallest
    if smallest >= least:
        return None
    return f"a dot of K = {smallest} < {least}; use block_k {least} or more"


def _accumulator_exact(variant: Variant) -> str | None:
    proof = variant.proof
    if proof is None:
        return None
    if not proof.holds:
        longest = min(bound.longest for bound in proof.bounds if not bound.holds)
        return f"{proof}; up to {longest} K are exact"
    if variant.chunk_turns == 0:
        step = variant.walk.turn_k or variant.walk.unit_k
        return f"a step of {step} K > {proof.chunk}, what fp32 sums exactly; use a shorter block_k"
    return None


def _tail_cannot_occur(variant: Variant) -> str | None:
    if variant.gemm is None or variant.design.tail != "any" or variant.possible_tail:
        return None
    unit = variant.walk.unit_k
    return f"turns of {unit} K divide every K, a multiple of {K_UNIT}; use tail none"


def _two_tiles_a_turn(variant: Variant) -> str | None:
    gemm, design = variant.gemm, variant.design
    if gemm is None or not variant.doubles or design.dot == "rank1":
        return None
    longest = variant.longest_tile
    turns, fix = f"turns of 2 tiles of {longest}", f"use block_k {longest}"
    if design.specialized or gemm.requantizes or design.dot != "int8":
        return f"{turns} are for warps that are alike and int8 dots of codes; {fix}"
    if design.tail == "any":
        return f"{turns} may leave a whole one behind; use tail none, or block_k {longest}"
    tiles = len(variant.walk.tiles) // 2
    return None if tiles == 1 else f"{turns}, of which a group has {tiles} anyway; {fix}"


def _warp_work(variant: Variant) -> str | None:
    design = variant.design
    if variant.gemm is None or design.block_m is None or design.block_n is None:
        return None
    outputs = design.block_m * variant.weight_rows  # of one dot
    sums = outputs // design.warps
    if sums >= LEAST_WARP_SUMS:
        return None
    most = outputs // LEAST_WARP_SUMS
    nearest = f"use at most {most} warps" if most else f"use tiles of {LEAST_WARP_SUMS} or more"
    return f"{sums} outputs a warp < {LEAST_WARP_SUMS}; {nearest}"


def _one_stage_of_two_lengths(variant: Variant) -> str | None:
    """Both such designs of int8 in groups of 320 that were run multiplied by descriptors of shared
    memory that was not theirs (ptxas 12.8); no other design is known to.
    """
    design = variant.design
    if variant.gemm is None or variant.planes or not design.swapped or design.stages != 1:
        return None
    if "wgmma" not in variant.matrix:
        return None
    lengths = sorted(set(variant.walk.sizes), reverse=True)
    if len(lengths) == 1:
        return None
    tiles = " and ".join(str(each) for each in lengths)
    return f"one stage of tiles of {tiles} K; use 2 stages, or block_k {lengths[-1]}"


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
    if promise == "none" or variant.contract.operation in ("count", "route", "dispatch", "combine"):
        return None
    if design.block_n and promise.n % design.block_n:
        most = promise.n & -promise.n  # the largest power of two that divides it
        return f"block_n {design.block_n} does not divide {promise.n}; use at most {most}"
    if variant.gemm is None:
        return None
    if not variant.tail and promise.k % variant.walk.unit_k:
        return f"turns of {variant.walk.unit_k} K do not divide {promise.k}; use tail any"
    limits = variant.limits
    most = limits.rows * max(limits.k, limits.n)
    if design.offsets == "int32" and most >= INT32:
        return f"limits rows * n or k = {most} >= 2**31, the int32 offset of a row; use int64"
    return None


RULES = (
    Rule(
        "strategy_on_target",
        "some back ends compile a dot wrongly or not at all",
        of_design=_strategy_on_target,
    ),
    Rule(
        "slower_strategy", "strategies differ in speed, never in bits", of_design=_slower_strategy
    ),
    Rule(
        "unpack_on_target", "a target names the ways that it compiles", of_design=_unpack_on_target
    ),
    Rule(
        "row_tile", "a target keeps designs of a few row tiles, one band each", of_design=_row_tile
    ),
    Rule("outer_products", "an outer product has no first operand", of_design=_outer_products),
    Rule("short_steps", "longer steps leave room for fewer programs", of_design=_short_steps),
    Rule("joined_gates", "sums of gate and up are parted by rows", of_design=_joined_gates),
    Rule("specialized_walk", "a stage is what one copy by TMA brings", _specialized_walk),
    Rule("dot_minimum", "matrix instructions have a least K", _dot_minimum),
    Rule(
        "block_k_exceeds_group",
        "a tile that crosses a group would mix two scales, or waste masked lanes",
        _block_k_exceeds_group,
    ),
    Rule("accumulator_exact", "a group's sum must be the exact integer", _accumulator_exact),
    Rule("tail_cannot_occur", "text that never runs is not emitted", _tail_cannot_occur),
    Rule(
        "two_tiles_a_turn",
        "a turn of two tiles is whole turns of one, each of a single dot",
        _two_tiles_a_turn,
    ),
    Rule(
        "one_stage_of_two_lengths",
        "an assembler loses what descriptors of the shorter tile are counted from",
        _one_stage_of_two_lengths,
    ),
    Rule("offsets_fit", "an offset that wraps reads another expert's weights", _offsets_fit),
    Rule("accept_multiples", "a target may promise to run any layer", _accept_multiples),
    Rule("warp_work", "a warp without a whole matrix instruction repeats another's", _warp_work),
    Rule("accumulator_registers", "sums that do not fit in registers spill", accumulator_registers),
    Rule("shared_memory", "a program over the limit does not start", shared_memory),
    Rule(
        "spills",
        "compilers trade registers for programs that run side by side, as nothing foretells",
        of_record=spills,
    ),
    Rule(
        "miscompiled",
        "an assembler may err in one kernel of thousands, as only its code shows",
        of_record=miscompiled,
    ),
)


DESIGN_RULES = tuple(rule for rule in RULES if rule.of_design)
VARIANT_RULES = tuple(rule for rule in RULES if rule.of_variant)
RECORD_RULES = tuple(rule for rule in RULES if rule.of_record)


def reject_design(design: Design, target: Target) -> Rejection | None:
    """The first rule that a design breaks on a target, whatever its contract."""
    for rule in DESIGN_RULES:
        what = rule.of_design(design, target) if rule.of_design else None
        if what is not None:
            return Rejection(design, rule, what)
    return None


def reject(variant: Variant) -> Rejection | None:
    """The first rule that a variant breaks: those of designs first, each in the order of RULES."""
    early = reject_design(variant.design, variant.target)
    return early or reject_variant(variant)


def reject_variant(variant: Variant) -> Rejection | None:
    """The first rule that a variant of a sound design breaks."""
    for rule in VARIANT_RULES:
        what = rule.of_variant(variant) if rule.of_variant else None
        if what is not None:
            return Rejection(variant.design, rule, what)
    return None


def reject_recorded(variant: Variant, measured: Measured) -> Rejection | None:
    """What the record of a variant holds against it."""
    for rule in RECORD_RULES:
        what = rule.violation(variant, measured)
        if what is not None:
            return Rejection(variant.design, rule, what)
    return None
