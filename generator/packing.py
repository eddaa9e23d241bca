"""How the elements of a weight row are laid out in bytes. A leaf: standard library only.

Packing, walks and the oracle call the same statement of the rule. int8 rows are stored as they
are. int4 rows stand two to a byte, in planes: byte j of a block of B elements holds element j in
its low nibble and element B / 2 + j in its high one, so either plane is one contiguous run, inside
one group, and nothing is interleaved. The byte offset of element k's block is always k / 2.
"""

from __future__ import annotations

from dataclasses import dataclass

# Slots that are counted at once before they are sorted: sorting compares all pairs of a chunk, and
# every program adds up the counts of all chunks.
CHUNK = 256
K_UNIT = 64  # rows of weights, codes and smooth scales are padded to a multiple of it, with zeros
LONG_BLOCK = 256  # K elements of a block that lies within one group: two runs of a cache line


@dataclass(frozen=True, slots=True)
class Block:
    """A run of K elements whose first half are low nibbles and whose second half are high ones."""

    start: int
    length: int

    @property
    def half(self) -> int:
        return self.length // 2


def padded(k: int) -> int:
    """K elements that a row of k takes in memory."""
    return -(-k // K_UNIT) * K_UNIT


def groups_of(k: int, group_k: int | None) -> int:
    """Scales along a row; the last group may be short."""
    return 1 if group_k is None else -(-k // group_k)


def packs(group_k: int | None) -> bool:
    """Whether int4 planes exist for a group size: 32, a multiple of 64, or the whole row."""
    return group_k is None or group_k == 32 or (group_k > 0 and group_k % K_UNIT == 0)


def block_length(group_k: int | None) -> int:
    """Elements of a whole block: two short groups, a part of a long one, or one group."""
    if group_k is None or group_k % LONG_BLOCK == 0:
        return LONG_BLOCK
    return 2 * group_k if group_k < LONG_BLOCK else group_k


def blocks(k: int, group_k: int | None) -> tuple[Block, ...]:
    """The blocks of a padded row: whole ones, then what is left, cut where a group ends."""
    length, end = block_length(group_k), padded(k)
    whole = end // length
    cut = [Block(index * length, length) for index in range(whole)]
    start = whole * length
    while start < end:
        stop = end if group_k is None else min(end, (start // group_k + 1) * group_k)
        cut.append(Block(start, stop - start))
        start = stop
    return tuple(cut)
