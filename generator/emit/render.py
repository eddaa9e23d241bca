"""Render one module. The only user of jinja2."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from generator.emit.context import context, template
from generator.lower.variant import Variant


def _inset(text: object, width: int) -> str:
    """Indent all lines but the first, which the caller has placed, and drop outer blank lines."""
    lines = str(text).strip("\n").split("\n")
    return "\n".join([lines[0], *(" " * width + line if line else "" for line in lines[1:])])


class Renderer:
    """Templates of one folder."""

    def __init__(self, templates: Path) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(templates),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=False,
        )
        self._environment.filters["inset"] = _inset

    def module(self, variant: Variant) -> str:
        """The text of one emitted module, as the formatter leaves it."""
        values = context(variant)
        return self._environment.get_template(template(variant)).render(values)
