"""What warps issue beside the matrix instructions that they wait for, read off machine code.

    python -m generator prefill --target sm_90 --cache CACHE
    python -m benchmarks.instructions CACHE SYMBOL...

Of every named kernel that the cache holds, the loop that multiplies most in one turn: its matrix
instructions; the cycles that they take of a processor's tensor cores; what each warp issues beside
them, which takes one of its scheduler's cycles each at least, for the four warps of a group stand
on four schedulers; how many of these a tensor cycle; and of which kinds most are. Groups of warps
share tensor cores and schedulers alike, so the ratio is that of the processor. Nothing is launched,
nothing compiled. The table is Markdown, for benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from generator.aot.disassembly import disassembled, parsed, tools
from generator.errors import BuildError, Finding

# Products of int8 a cycle: 1979 TOPS, dense, of 132 processors at 1.83 GHz (NVIDIA's H100 SXM).
PRODUCTS = 4096
MATRIX = re.compile(r"IGMMA\.(\d+)x(\d+)x(\d+)\.")
KINDS = 4  # that are told
COLUMNS = (
    "kernel",
    "a turn's matrix instructions",
    "tensor cycles",
    "others",
    "a tensor cycle",
    "most of them",
)


@dataclass(frozen=True, slots=True)
class Loop:
    """One turn of a loop, by instructions as they stand there."""

    names: tuple[str, ...]

    @property
    def matrix(self) -> Counter[str]:
        return Counter(found[0].rstrip(".") for each in self.names if (found := MATRIX.match(each)))

    @property
    def cycles(self) -> float:
        """Of the tensor cores."""
        tiles = (MATRIX.match(each) for each in self.names)
        return sum(prod(map(int, each.groups())) / PRODUCTS for each in tiles if each)

    @property
    def others(self) -> Counter[str]:
        """By kind, which is the name's first word."""
        return Counter(each.partition(".")[0] for each in self.names if not MATRIX.match(each))


def loops(disassembly: str) -> Iterator[Loop]:
    """Those that multiply and hold none that does; `disassembly` is what `nvdisasm -c` writes."""
    code = parsed(disassembly)
    names = [name for name, _ in code.instructions]
    spans = {(first, last + 1) for first, last in code.loops}
    own = {span for span in spans if any(MATRIX.match(each) for each in names[slice(*span)])}
    for first, end in sorted(own):
        if not any(first <= other[0] and other[1] <= end for other in own if other != (first, end)):
            yield Loop(tuple(names[first:end]))


def line(symbol: str, disassembly: str) -> str:
    """Raises BuildError for a kernel without such a loop."""
    found = list(loops(disassembly))
    if not found:
        what = "has no loop with an integer matrix instruction of sm_90"
        raise BuildError(Finding(symbol, what, "name a kernel that multiplies"))
    most = max(found, key=lambda each: each.cycles)
    count = most.others.total()
    cells = (
        symbol,
        ", ".join(f"{number} {name}" for name, number in most.matrix.items()),
        f"{most.cycles:.0f}",
        f"{count}",
        f"{count / most.cycles:.2f}",
        ", ".join(f"{number} {kind}" for kind, number in most.others.most_common(KINDS)),
    )
    return f"| {' | '.join(cells)} |"


def cubin(cache: Path, symbol: str) -> Path:
    """Raises BuildError where the cache holds no such kernel, or several."""
    found = sorted(cache.glob(f"*/{symbol}.cubin"))
    if len(found) != 1:
        what = f"holds {len(found)} kernels of the name {symbol}"
        fix = "fill an empty one by `python -m generator prefill --target sm_90 --cache CACHE`"
        raise BuildError(Finding(str(cache), what, fix))
    return found[0]


def lines(cache: Path, symbols: Sequence[str]) -> Iterator[str]:
    """Markdown."""
    yield f"| {' | '.join(COLUMNS)} |"
    yield "| --- | --- | ---: | ---: | ---: | --- |"
    for symbol in symbols:
        yield line(symbol, disassembled(cubin(cache, symbol), tools()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cache", type=Path, metavar="CACHE", help="a Triton cache")
    parser.add_argument("symbols", nargs="+", metavar="SYMBOL", help="of GEMM kernels")
    options = parser.parse_args()
    try:
        for each in list(lines(options.cache, options.symbols)):
            print(each)
    except BuildError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
