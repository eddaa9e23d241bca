"""What a compiled variant must keep, and which rule of lowering should have seen to it."""

from __future__ import annotations

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


def broken(entry: Entry, target: Target, figures: Figures) -> Iterator[Broken]:
    """The gates that one entry does not pass, as compiled for a target that has a compiler."""
    if figures.stack:
        what = f"{figures.stack} bytes of registers spill"
        yield Broken(what, "accumulator_registers foretells, spills knows of records")
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
    promised = promise(entry, target)
    families = {name.split()[0] for name in figures.matrix}
    if promised is not None and not families & promised:
        found = ", ".join(sorted(families)) or "none at all"
        what = f"no {' or '.join(sorted(promised))} instruction; there is {found}"
        yield Broken(what, "dot_minimum, or `matrix` of the target")


def promise(entry: Entry, target: Target) -> set[str] | None:
    """The matrix instructions, one of which an entry's dots must become; None where they multiply
    without any.
    """
    if entry.dot == "rank1":
        return None
    rows = entry.rows_per_program
    fitting = [(least, name) for name, least in target.matrix if least <= rows]
    best = {name for least, name in fitting if least == fitting[-1][0]}
    return best.union(*(OLDER.get(name, set()) for name in best))


# What an older Triton makes of the dots that a newer one turns into the key (3.6: sm_100).
OLDER = {"tcgen05": {"mma"}}
