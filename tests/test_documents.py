"""Every path and command in the documents is real, and CI runs what the README says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from generator.arguments import parser

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    "docs/calibration.md",
    "docs/explain.md",
    "docs/intermediate.md",
)
FILE = re.compile(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|yaml|toml|json|md))`")
LINK = re.compile(r"\]\(([^)#]+)\)")
MADE = {"bench.json"}  # by a command, in a folder of the reader's
COMMAND = re.compile(r"python -m generator ([^`\n&]+)")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_paths_exist(name: str) -> None:
    paths, links = FILE.findall(text(name)), LINK.findall(text(name))
    assert paths + links
    by_name = {path.name for path in (ROOT / "generator").rglob("*.py")}
    known = by_name | MADE
    missing = [path for path in paths if not (ROOT / path).exists() and path not in known]
    # A link is seen from the document that it stands in.
    missing += [path for path in links if not ((ROOT / name).parent / path).exists()]
    assert not missing


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_parse(name: str) -> None:
    joined = re.sub(r"\n\s*", " ", text(name))
    for command in COMMAND.findall(joined):
        words = shlex.split(re.split(r"[`|;,]| (?:shows|emits|compares|writes|asks)\b", command)[0])
        parser("").parse_args(words[: _end(words)])


def test_the_table_of_memory_is_what_the_program_prints() -> None:
    from benchmarks.memory import lines

    shown = re.search(
        r"<!-- memory table: begin -->\n(.*?)\n<!--", text("benchmarks/README.md"), re.S
    )
    assert shown and shown[1].splitlines() == list(lines()), "`python -m benchmarks.memory`"


def _end(words: list[str]) -> int:
    """Where prose goes on after a command that stands in an indented block of its own."""
    return next(
        (i for i, word in enumerate(words) if word in ("python", "pip", "Run", "bash")), len(words)
    )


def test_ci_runs_the_test_command_of_the_readme() -> None:
    command = next(line.strip() for line in text("README.md").splitlines() if "pytest" in line)
    assert command.replace("pip install -e '.[test]'", "pip install -e '.[test]' -q") in text(
        ".ci/run"
    )


def test_the_readme_is_one_screen() -> None:
    assert len(text("README.md").splitlines()) <= 80


def test_the_readme_example_uses_names_that_exist() -> None:
    from generator.runtime.manifest import load

    for layer in re.findall(r'"(layer_\w+)"', text("README.md")):
        assert layer in load().layers
