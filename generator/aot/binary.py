"""What a compiled kernel takes of a device, read off its machine code."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from generator.resources import Figures

# Bytes that one lane moves, by the words of a load's name: NVIDIA SASS, then AMD.
NVIDIA_WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}
AMD_WIDTHS = {
    "ubyte": 1,
    "sbyte": 1,
    "ushort": 2,
    "sshort": 2,
    "short": 2,
    "dword": 4,
    "dwordx2": 8,
    "dwordx3": 12,
    "dwordx4": 16,
}
# The matrix instructions of PTX and of AMD: family, tile, operand types.
PTX_MATRIX = re.compile(r"\b(wgmma|mma|tcgen05)\.(?:mma_async\.|mma\.|sync\.)([\w.:]+)")
AMD_MATRIX = re.compile(r"\bv_(mfma|wmma)_(\w+)")
PTX_WORD = re.compile(r"m\d+n\d+k\d+|[subf]\d+|bf16|kind::\w+")
SASS = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?\w+ )?([A-Z][\w.]*)", re.MULTILINE)
SASS_BYTES = 16  # of one instruction, from compute capability 7.0 on
AMD_LOAD = re.compile(r"^\s+(?:global|buffer|flat)_load_(\w+)(.*)$", re.MULTILINE)


def figures(files: Mapping[str, Path], shared: int, tools: Path) -> Figures:
    """Of one compiled kernel. `files` are its stages by suffix (`cubin` and `ptx`, or `amdgcn`),
    `shared` is the shared memory that its launch asks for, `tools` the folder of cuobjdump.
    """
    if "cubin" not in files:
        return amd(files["amdgcn"].read_text(encoding="utf-8"), shared)
    command = [str(tools / "cuobjdump"), "-res-usage", "-sass", str(files["cubin"])]
    dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return nvidia(dump, files["ptx"].read_text(encoding="utf-8"), shared)


def nvidia(dump: str, ptx: str, shared: int) -> Figures:
    """From what cuobjdump says of a cubin, and the PTX that it was assembled from."""
    usage = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", dump)}
    code = SASS.findall(dump)
    loads: Counter[str] = Counter()
    copies: Counter[str] = Counter()
    for _, name in code:
        operation, *words = name.split(".")
        if operation in ("LDG", "LDGSTS"):
            width = next((NVIDIA_WIDTHS[word] for word in words if word in NVIDIA_WIDTHS), 4)
            (loads if operation == "LDG" else copies)[str(width)] += 1
    matrix = Counter(
        " ".join([family, *PTX_WORD.findall(words)]) for family, words in PTX_MATRIX.findall(ptx)
    )
    return Figures(
        registers=usage["REG"],
        accumulators=0,
        scalars=0,
        stack=usage["STACK"] + usage["LOCAL"],
        shared=shared,
        code=SASS_BYTES + max(int(address, 16) for address, _ in code),
        matrix=_sorted(matrix),
        loads=_sorted(loads),
        copies=_sorted(copies),
    )


def amd(assembly: str, shared: int) -> Figures:
    """From the assembly of an AMD kernel and the facts that the assembler writes below it."""
    facts = {
        name: int(value)
        for name, value in re.findall(
            r"^[;\s.]*(\w+)\s*[:=]\s*(\d+)\s*(?:bytes)?\s*$", assembly, re.MULTILINE
        )
    }
    loads: Counter[str] = Counter()
    copies: Counter[str] = Counter()
    for kind, rest in AMD_LOAD.findall(assembly):
        into_shared = kind.startswith("lds_") or re.search(r"\blds\b", rest) is not None
        width = str(_amd_width(kind.removeprefix("lds_").split("_")[0]))
        (copies if into_shared else loads)[width] += 1
    matrix = Counter(f"{family} {words}" for family, words in AMD_MATRIX.findall(assembly))
    return Figures(
        registers=facts["NumVgprs"],
        accumulators=facts.get("NumAgprs", 0),
        scalars=facts["sgpr_count"],
        stack=facts["private_segment_fixed_size"],
        shared=shared,
        code=facts["codeLenInByte"],
        matrix=_sorted(matrix),
        loads=_sorted(loads),
        copies=_sorted(copies),
    )


def _amd_width(word: str) -> int:
    """Bytes of a lane, by the word for it: `dwordx4`, or `b128` from gfx11 on."""
    bits = re.fullmatch(r"[bui](\d+)", word)
    return int(bits[1]) // 8 if bits else AMD_WIDTHS[word]


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda each: (len(each[0]), each[0])))
