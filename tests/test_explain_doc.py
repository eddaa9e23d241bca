"""The commands of docs/explain.md print what the page shows.
`pytest tests/test_explain_doc.py --update-golden` rewrites it.
"""

from __future__ import annotations

import difflib
import re
import shlex
from pathlib import Path

import pytest

from generator.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "explain.md"
BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
PROMPT = "$ python -m generator "
COMMAND = "pytest tests/test_explain_doc.py --update-golden"


def commands(block: str) -> list[str]:
    return [line for line in block.splitlines() if line.startswith(PROMPT)]


def test_the_page_shows_what_its_commands_print(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(block: re.Match[str]) -> str:
        shown = []
        for command in commands(block.group()):
            capsys.readouterr()
            assert main(shlex.split(command.removeprefix(PROMPT))) == 0
            shown.append(f"{command}\n{capsys.readouterr().out}")
        return "".join(shown)

    page = PAGE.read_text(encoding="utf-8")
    expected = BLOCK.sub(printed, page)
    if request.config.getoption("--update-golden"):
        PAGE.write_text(expected, encoding="utf-8")
    elif page != expected:
        change = difflib.unified_diff(
            page.splitlines(), expected.splitlines(), PAGE.name, "printed", lineterm=""
        )
        pytest.fail("\n".join([*change, "", f"if this is meant: {COMMAND}"]), pytrace=False)


def test_the_page_explains_three_problems() -> None:
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    asked = [commands(block) for block in blocks]
    assert [len(each) for each in asked] == [1, 1, 1]
    assert all(each[0].startswith(f"{PROMPT}explain ") for each in asked)
    assert all(" --problem " in each[0] for each in asked)
