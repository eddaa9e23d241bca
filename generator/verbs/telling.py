"""`list`, `explain` and `schema`: what lowering decided, and the language that it reads."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from generator.data import folder
from generator.errors import BuildError, Finding
from generator.verbs.chosen import chosen_program

if TYPE_CHECKING:
    from generator.lower.facts import Report
    from generator.lower.listing import Listing


def list_(options: argparse.Namespace) -> int:
    from generator.lower.listing import listed_lines, listing

    listed = listing(
        chosen_program(options), operations=options.operation, kind=options.kind, sort=options.sort
    )
    return _say(options, listed, listed_lines(listed, options.sort))


def explain(options: argparse.Namespace) -> int:
    from generator.lower import report
    from generator.lower.choice import problem
    from generator.lower.report_text import lines
    from generator.spec.load import load

    asked = problem(options.problem) if options.problem is not None else None
    loaded = load(options.specs or folder("specs"))
    explained = report.explain(loaded, options.name, asked, options.target)
    return _say(options, explained, lines(explained))


def _say(options: argparse.Namespace, facts: Listing | Report, text: Iterable[str]) -> int:
    print(json.dumps(asdict(facts), indent=2) if options.json else "\n".join(text))
    return 0


def schema(options: argparse.Namespace) -> int:
    from generator.spec.canonical import json_schema

    if options.print:
        print(json_schema(), end="")
        return 0
    path = (options.specs or folder("specs")) / "schema.json"
    try:
        path.write_text(json_schema(), encoding="utf-8")
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        raise BuildError(Finding(str(path), what, "pass --specs DIR, or --print")) from error
    print(f"wrote {path}")
    return 0
