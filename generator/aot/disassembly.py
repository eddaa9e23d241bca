"""NVIDIA's machine code as nvdisasm writes it: instructions, and the jumps back among them."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

# An instruction: address, guard, name, operands.
INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)\s*([^;]*);")
LABEL = re.compile(r"^\s*(\.L_\w+):")
JUMP = re.compile(r"`\((\.L_\w+)\)")


@dataclass(frozen=True, slots=True)
class Code:
    """The instructions of one kernel, as they stand there."""

    instructions: tuple[tuple[str, str], ...]  # name and operands
    loops: tuple[tuple[int, int], ...]  # first and last instruction; the last jumps to the first


def tools() -> Path:
    """The folder of cuobjdump and nvdisasm, which come with Triton; imports nothing."""
    found = find_spec("triton")
    assert found is not None and found.origin is not None  # a core package
    return Path(found.origin).parent / "backends" / "nvidia" / "bin"


def disassembled(cubin: Path, folder: Path) -> str:
    """What nvdisasm writes of a cubin; `folder` holds it."""
    command = [str(folder / "nvdisasm"), "-c", str(cubin)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def parsed(disassembly: str) -> Code:
    """Of a cubin of one kernel."""
    instructions: list[tuple[str, str]] = []
    labels: dict[str, int] = {}
    loops: list[tuple[int, int]] = []
    for line in disassembly.splitlines():
        if label := LABEL.match(line):
            labels[label[1]] = len(instructions)
        elif found := INSTRUCTION.search(line):
            jump = JUMP.search(found[2])
            if jump and jump[1] in labels:  # a label that stands above
                loops.append((labels[jump[1]], len(instructions)))
            instructions.append((found[1], found[2]))
    return Code(tuple(instructions), tuple(loops))
