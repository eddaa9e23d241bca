"""Uniform registers that NVIDIA's machine code reads though nothing can have set them: a mistake of
the assembler that no other figure shows.

ptxas of CUDA 12.8, Triton 3.6's, makes it: of a descriptor of `wgmma` that it computes before a
loop, it loses the copy that the next one is counted from, and the kernel multiplies what lies
elsewhere in shared memory, or where there is none. 12.9 keeps it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from generator.aot.disassembly import parsed

UNIFORM = re.compile(r"\bUR(\d+)\b")
PREDICATE = re.compile(r"!?U?P(?:T|\d+)")
WIDE = re.compile(r"\.64\b|\.WIDE\b")  # of instructions whose result takes two registers
WIDEST = re.compile(r"\.128\b")  # four
WGMMA = re.compile(r"[A-Z]GMMA\b")


@dataclass(frozen=True, slots=True)
class Instruction:
    """What one instruction does with uniform registers."""

    sets: range  # of uniform registers
    reads: frozenset[int]  # those that are named; a name may stand for several


def unset(disassembly: str) -> list[int]:
    """The uniform registers that an instruction names as operands where no way through the code
    sets them, ascending. `disassembly` is what `nvdisasm -c` makes of a cubin of one kernel.
    """
    code = parsed(disassembly)
    instructions = [_instruction(name, operands) for name, operands in code.instructions]
    sets: dict[int, list[int]] = {}
    for place, each in enumerate(instructions):
        for register in each.sets:
            sets.setdefault(register, []).append(place)
    return sorted(
        {
            register
            for place, each in enumerate(instructions)
            for register in each.reads
            if not _may_be_set(sets.get(register, []), place, code.loops)
        }
    )


def _may_be_set(sets: list[int], place: int, loops: Sequence[tuple[int, int]]) -> bool:
    """Whether one of the instructions `sets` may come before that at `place`: it stands above, or
    between there and a jump back to somewhere above. What ways there really are does not matter.
    """
    return any(
        own < place or any(top <= place and own <= jump for top, jump in loops) for own in sets
    )


def _instruction(name: str, operands: str) -> Instruction:
    rest = [each.strip() for each in operands.split(",")]
    while rest and PREDICATE.fullmatch(rest[0]):
        rest.pop(0)
    sets = range(0)
    if rest and (result := UNIFORM.fullmatch(rest[0])) and "SETP" not in name:
        first = int(result[1])
        count = 4 if WIDEST.search(name) else 2 if WIDE.search(name) else 1
        sets = range(first, first + count)
        rest.pop(0)
    return Instruction(sets, frozenset(_read(name, rest)))


def _read(name: str, operands: list[str]) -> Iterator[int]:
    """wgmma names the first of four registers that hold both descriptors; where its first operand
    stands in registers, two of them mean nothing. tcgen05 names the first of each descriptor's two.
    """
    for index, each in enumerate(operands):
        named = [int(register) for register in UNIFORM.findall(each)]
        if not (named and each.startswith("gdesc")):
            yield from named
        elif WGMMA.match(name):
            in_memory = index == 1
            yield from range(named[0] + (0 if in_memory else 2), named[0] + 4)
        else:
            yield from range(named[0], named[0] + 2)
