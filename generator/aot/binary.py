"""What a compiled kernel takes of a device, read off its machine code."""

from __future__ import annotations

import re
import struct
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from generator.aot.disassembly import disassembled
from generator.aot.unset import unset
from generator.resources import Figures

# Bytes that one lane moves, by the word for it in the name of a load of AMD's.
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
AMD_MATRIX = re.compile(r"\bv_(mfma)_(\w+)")
PTX_WORD = re.compile(r"m\d+n\d+k\d+|[subf]\d+|bf16|kind::\w+")
PTX_LOAD = re.compile(r"\bld\.global\.(?:[\w:]+\.)*?(?:v(\d)\.)?[busf](\d+)\s")
PTX_COPY = re.compile(r"\bcp\.async\.c[ag]\.shared\.global\b[^;]*?\],\s*(0x[0-9a-f]+|\d+)")
DESCRIBED = ("wgmma", "tcgen05")  # they find operands by descriptors, in uniform registers
EXECUTABLE = 4  # SHF_EXECINSTR, a flag of a section
AMD_LOAD = re.compile(r"^\s+(?:global|buffer|flat)_load_(\w+)(.*)$", re.MULTILINE)


def figures(files: Mapping[str, Path], shared: int, tools: Path) -> Figures:
    """Of one compiled kernel. `files` are its stages by suffix (`cubin` and `ptx`, or `amdgcn`),
    `shared` is the shared memory that its launch asks for, `tools` the folder of cuobjdump and
    nvdisasm. To disassemble a kernel takes half as long as to compile it: it is done for those
    alone of which assemblers are known to err.
    """
    if "cubin" not in files:
        return amd(files["amdgcn"].read_text(encoding="utf-8"), shared)
    cubin = files["cubin"]
    command = [str(tools / "cuobjdump"), "-res-usage", str(cubin)]
    usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    code = code_bytes(cubin.read_bytes())
    found = nvidia(usage, code, files["ptx"].read_text(encoding="utf-8"), shared)
    if not any(name.startswith(DESCRIBED) for name in found.matrix):
        return found
    return replace(found, unset=len(unset(disassembled(cubin, tools))))


def nvidia(usage: str, code: int, ptx: str, shared: int) -> Figures:
    """From what cuobjdump says of a cubin's resources, its bytes of instructions, and the PTX that
    it was assembled from, whose accesses of memory are as wide as those of the machine code;
    disassembling it would take half as long again as compiling.
    """
    taken = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage)}
    loads = Counter(str(int(lanes or 1) * int(bits) // 8) for lanes, bits in PTX_LOAD.findall(ptx))
    copies = Counter(str(int(size, 0)) for size in PTX_COPY.findall(ptx))
    matrix = Counter(
        " ".join([family, *PTX_WORD.findall(words)]) for family, words in PTX_MATRIX.findall(ptx)
    )
    return Figures(
        registers=taken["REG"],
        accumulators=0,
        scalars=0,
        stack=taken["STACK"] + taken["LOCAL"],
        shared=shared,
        code=code,
        matrix=_sorted(matrix),
        loads=_sorted(loads),
        copies=_sorted(copies),
        unset=0,
    )


def code_bytes(cubin: bytes) -> int:
    """Bytes of the executable sections of a 64-bit ELF file (System V ABI, chapter 4). Raises
    ValueError for another file.
    """
    if cubin[:5] != b"\x7fELF\x02":
        raise ValueError("no 64-bit ELF file")
    [start] = struct.unpack_from("<Q", cubin, 40)  # e_shoff
    size, count = struct.unpack_from("<HH", cubin, 58)  # e_shentsize, e_shnum
    total = 0
    for header in range(start, start + size * count, size):
        [flags] = struct.unpack_from("<Q", cubin, header + 8)  # sh_flags
        [length] = struct.unpack_from("<Q", cubin, header + 32)  # sh_size
        total += length if flags & EXECUTABLE else 0
    return total


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
        unset=0,
    )


def _amd_width(word: str) -> int:
    """Bytes of a lane, by the word for it: `dwordx4`, or `b128` from gfx11 on."""
    bits = re.fullmatch(r"[bui](\d+)", word)
    return int(bits[1]) // 8 if bits else AMD_WIDTHS[word]


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda each: (len(each[0]), each[0])))
