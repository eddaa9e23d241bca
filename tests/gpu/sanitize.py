"""Run every module of a manifest under compute-sanitizer: a program, not a test.

    python -m tests.gpu.sanitize [--generated DIR] [--tool memcheck racecheck initcheck] [--jobs N]

Each tool watches N child processes, which share every layer contract at small shapes, by every plan
and from both starts, and again every variant that accepts them. No tensor shares an allocation with
another, so that a step past the end of one is seen. First, memcheck and racecheck must report a
known mistake each.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from generator.errors import GroupwiseError
from generator.packing import K_UNIT
from generator.runtime.device import here
from generator.runtime.manifest import Layer, Manifest, load
from generator.verify.cases import Shape, least_shape
from generator.verify.stages import Checked, check_stages, check_variants, poisoned
from tests.gpu.cases import calls, plan_names
from tests.gpu.mistakes import MISTAKES

ROOT = Path(__file__).parents[2]
PROGRAM = "compute-sanitizer"
TOOLS = ("memcheck", "racecheck", "initcheck")
TOKENS = 40  # small, yet more rows for an expert than the smallest row tile has
SUMMARY = re.compile(r"(?:ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard)")
PART = re.compile(r"(\d+)/(\d+)")
DONE = re.compile(r"^sanitized (\d+) variants, (\d+) bits different$", re.MULTILINE)


@dataclass(frozen=True)
class Verdict:
    """What one tool said; None where a process ended before it said it."""

    tool: str
    variants: int | None
    different: int | None
    errors: int | None
    exit_code: int

    @property
    def clean(self) -> bool:
        return (
            self.exit_code == 0 and self.errors == 0 and not self.different and bool(self.variants)
        )

    def __str__(self) -> str:
        def told(count: int | None) -> str:
            return "no" if count is None else str(count)

        return (
            f"{self.tool:9} {told(self.variants)} variants, {told(self.different)} bits different,"
            f" {told(self.errors)} errors, exit {self.exit_code}:"
            f" {'ok' if self.clean else 'FAILED'}"
        )


@dataclass(frozen=True)
class Part:
    """Every `of`th pair of a layer and a shape, from number `index` on: one child's share."""

    index: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Part:
        read = PART.fullmatch(text)
        if read is None or int(read[1]) >= int(read[2]):
            raise argparse.ArgumentTypeError(f"{text!r} is no INDEX/OF with INDEX below OF")
        return cls(int(read[1]), int(read[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"


def only_ours(tool: str, manifest: Manifest) -> list[str]:
    """Options that leave torch's kernels alone, which takes most of the time. A symbol begins with
    its contract's name. initcheck has to see torch's writes.
    """
    if tool == "initcheck":
        return []
    versions = sorted({contract["version"] for contract in manifest.contracts.values()})
    return [word for each in versions for word in ("--kernel-name", f"kns=_v{each}_")]


def command(tool: str, manifest: Manifest, *does: str) -> list[str]:
    """The child under its tool; no shell."""
    child = [sys.executable, "-m", "tests.gpu.sanitize", "--tool", tool, *does]
    child += ["--generated", str(manifest.directory)]
    options = only_ours(tool, manifest)
    return [PROGRAM, "--tool", tool, "--error-exitcode", "1", *options, *child]


def environment() -> dict[str, str]:
    """Every tensor is an allocation of its own."""
    return os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "PYTHONUNBUFFERED": "1"}


def verdict(tool: str, output: str, exit_code: int) -> Verdict:
    summary, done = SUMMARY.findall(output), DONE.search(output)
    return Verdict(
        tool,
        int(done[1]) if done else None,
        int(done[2]) if done else None,
        sum(int(errors or hazards) for errors, hazards in summary) if summary else None,
        exit_code,
    )


def total(verdicts: Sequence[Verdict]) -> Verdict:
    """Of one tool's children; what one of them did not say, the sum does not know either."""

    def added(counts: list[int | None]) -> int | None:
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    return Verdict(
        verdicts[0].tool,
        added([each.variants for each in verdicts]),
        added([each.different for each in verdicts]),
        added([each.errors for each in verdicts]),
        max((each.exit_code for each in verdicts), key=abs),
    )


def unseen(tool: str, manifest: Manifest) -> list[str]:
    """The known mistakes that a tool does not report: then its silence means nothing."""
    names = []
    for name, mistake in MISTAKES.items():
        if mistake.tool == tool:
            done = subprocess.run(
                command(tool, manifest, "--mistake", name),
                env=environment(),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            told = verdict(tool, done.stdout, done.returncode)
            if not told.errors or told.exit_code == 0 or mistake.report not in done.stdout:
                print(done.stdout, end="")
                names.append(name)
    return names


def watch(tool: str, manifest: Manifest, part: Part) -> Verdict:
    """Start the child under a tool, pass on what it says, and read the summary off it."""
    lines = []
    with subprocess.Popen(
        command(tool, manifest, "--part", str(part)),
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            print(f"{tool} {part}: {line}", end="", flush=True)
    return verdict(tool, "".join(lines), process.returncode)


def shapes(name: str, manifest: Manifest) -> list[Shape]:
    """The least shape that every variant accepts, and a tail in the K of either GEMM, whose N
    stays as it is: all but the variants without tail accept them.
    """
    least = replace(least_shape(manifest.layers[name], manifest), tokens=TOKENS)
    up_tail = replace(least, hidden=least.hidden + K_UNIT)
    down_tail = replace(least, intermediate=least.intermediate + K_UNIT)
    return [least, up_tail, down_tail]


def apart(checked: Checked) -> Checked:
    """The same call with every intermediate in an allocation of its own, as long as it is."""
    run = replace(checked.run)
    # Where the cached property would put them: a frozen dataclass takes no assignment.
    vars(run)["buffers"] = {name: each.clone() for name, each in run.buffers.items()}
    return replace(checked, run=run)


def sanitized(
    layer: Layer, shape: Shape, manifest: Manifest, device: torch.device, *, poisons: bool
) -> Iterator[tuple[int, str]]:
    """Different bits of every stage and variant. `poisons` false leaves buffers unwritten, so that
    initcheck sees who reads them; then intermediates stay in the workspace, where a copy would
    count as a write.
    """
    fresh: Callable[[torch.Tensor], torch.Tensor] = poisoned if poisons else torch.empty_like
    for checked in calls(layer, shape, manifest, device, plans=plan_names(layer)):
        for each in check_stages(checked):
            yield each.different, f"{each.stage} {each.variant}"
        watched = apart(checked) if poisons else checked
        for each in check_variants(watched, manifest, fresh):
            yield each.different, f"{each.stage} {each.variant}"


def run(tool: str, manifest: Manifest, part: Part, say: Callable[[str], None]) -> int:
    """The child. Exit code 1 where a bit differs."""
    device, variants, different = here(), 0, 0
    cases = [(name, shape) for name in manifest.layers for shape in shapes(name, manifest)]
    for name, shape in cases[part.index :: part.of]:
        say(f"{name}  {shape}")
        layer = manifest.layers[name]
        for bits, what in sanitized(layer, shape, manifest, device, poisons=tool != "initcheck"):
            variants, different = variants + 1, different + bits
            if bits:
                say(f"  {what}: {bits} bits differ")
    say(f"sanitized {variants} variants, {different} bits different")
    return 1 if different else 0


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.sanitize", description=__doc__)
    parser.add_argument("--generated", metavar="DIR", help="the manifest's folder")
    parser.add_argument("--tool", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="children of each tool")
    parser.add_argument("--part", type=Part.parse, help=argparse.SUPPRESS)
    parser.add_argument("--mistake", choices=MISTAKES, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.jobs < 1:
        parser.error("--jobs: use 1 or more")
    return options


def main(argv: list[str] | None = None) -> int:
    """0 where every tool found nothing, 1 where one found something or does not see what it must,
    2 where none can start.
    """
    options = arguments(argv)
    try:
        manifest = load(Path(options.generated) if options.generated else None)
        if options.part:
            return run(options.tool[0], manifest, options.part, print)
        if options.mistake:
            MISTAKES[options.mistake].run(manifest, here())
            return 0
    except GroupwiseError as error:
        print(error, file=sys.stderr)
        return 2
    if shutil.which(PROGRAM) is None:
        fix = "install the CUDA toolkit, or add its bin folder (/usr/local/cuda/bin) to PATH"
        print(f"{PROGRAM} is not on the PATH; {fix}", file=sys.stderr)
        return 2
    blind = [
        f"{tool} does not report `{name}`"
        for tool in options.tool
        for name in unseen(tool, manifest)
    ]
    if blind:
        print("\n".join(blind))
        return 1
    parts = [Part(index, options.jobs) for index in range(options.jobs)]
    with ThreadPoolExecutor(len(options.tool) * options.jobs) as pool:
        watched = {
            tool: [pool.submit(watch, tool, manifest, part) for part in parts]
            for tool in options.tool
        }
    verdicts = [total([each.result() for each in children]) for children in watched.values()]
    for each in verdicts:
        print(each)
    return 0 if all(each.clean for each in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
