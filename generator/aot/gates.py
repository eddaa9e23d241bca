"""What a compiled variant must keep, and which rule of lowering should have seen to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from generator.resources import Figures
from generator.runtime.entry import Entry
from generator.runtime.manifest import Target


@dataclass(frozen=True, slots=True)
class Broken:
    """A gate that a variant does not pass."""

    what: str
    rule: str  # of `python -m generator explain`, or what to look at


# What an older Triton makes of the dots that a newer one turns into the key: the first version
# that was seen to, and what came before. sm_100 has mma with 3.6 and tcgen05 with 3.9; between them
# either will do.
OLDER = {"tcgen05": ((3, 9), {"mma"})}
# How the operands of each dot are called in the names of matrix instructions.
OPERANDS = {"int8": re.compile(r"\bs8\b|i8"), "fp16_exact": re.compile(r"f16")}


def broken(entry: Entry, target: Target, figures: Figures, triton: str) -> Iterator[Broken]:
    """The gates that one entry does not pass, as a Triton compiled it for a target that has a
    compiler.
    """
    if figures.stack:
        what = f"{figures.stack} bytes of registers spill"
        yield Broken(what, "accumulator_registers foretells, spills knows of records")
    if figures.unset:
        what = f"{figures.unset} registers are read that nothing has set: the assembler erred"
        yield Broken(what, "miscompiled knows of records")
    taken = figures.registers + figures.accumulators
    if taken > target.registers:
        yield Broken(f"{taken} registers > {target.registers} a thread", "accumulator_registers")
    if figures.shared > target.shared_memory:
        what = f"{figures.shared} bytes of shared memory > {target.shared_memory} a program"
        yield Broken(what, "shared_memory")
    if entry.dot is None:
        return
    bytewise = figures.loads.get("1", 0) + figures.copies.get("1", 0)
    if bytewise:
        what = f"{bytewise} loads of a single byte"
        yield Broken(what, "none: the text hides a divisibility; pass counts and multiply")
    if entry.dot == "rank1":
        return
    promised, found = promise(entry, target, triton), sorted(figures.matrix)
    operands = OPERANDS[entry.dot]
    if not found or not all(
        name.split()[0] in promised and operands.search(name) for name in found
    ):
        there = ", ".join(found) or "none at all"
        what = f"{entry.dot} dots are to be {' or '.join(sorted(promised))}; there is {there}"
        yield Broken(what, "dot_minimum, or `matrix` of the target")


def promise(entry: Entry, target: Target, triton: str) -> set[str]:
    """The families of matrix instructions, of which an entry's dots must be."""
    rows = entry.first_operand_rows
    fitting = [(least, name) for name, least in target.matrix if least <= rows]
    best = {name for least, name in fitting if least == fitting[-1][0]}
    version = tuple(int(each) for each in triton.split(".")[:2])
    for family in tuple(best):
        since, older = OLDER.get(family, ((0, 0), set()))
        if version < since:
            best |= older
    return best
