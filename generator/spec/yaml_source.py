"""Parse one YAML file into plain data plus the line of every key and value.

pyyaml keeps no positions in what it returns, so the node tree is walked here; that is also where
duplicate keys show, which pyyaml accepts in silence.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

from generator.errors import Finding, SpecError

YamlPath = tuple[str | int, ...]

# YAML 1.1 also reads dates, 0o17 as 17, 010 as 8 and 1:30 as 90. A spec has none of these, so any
# number that is not written plainly stays a string, which the strict models refuse.
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(0|[1-9][0-9]*)\.[0-9]*([eE][-+]?[0-9]+)?")


@dataclass(frozen=True)
class Source:
    """A parsed file."""

    path: Path
    data: object
    lines: dict[YamlPath, int]  # 1-based line of the value at each path
    findings: tuple[Finding, ...]  # duplicate keys; the first of each is in `data`

    def where(self, path: YamlPath) -> str:
        """`file:line` of a path, or of its nearest ancestor that stands in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.path}:{self.lines.get(path, 1)}"


def read(path: Path) -> Source:
    """Parse one file. Raises SpecError with the parser's complaint."""
    try:
        node = _compose(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpecError(
            Finding(f"{path}:{line}", f"no valid YAML: {_complaint(error)}", "mend the syntax")
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecError(
            Finding(
                f"{path}:1", f"cannot be read: {' '.join(str(error).split())}", "check the file"
            )
        ) from error
    if node is None:
        raise SpecError(Finding(f"{path}:1", "the file is empty", "start with `schema: 1`"))
    lines: dict[YamlPath, int] = {}
    duplicates: list[Finding] = []
    open_nodes: list[yaml.Node] = []

    def walk(node: yaml.Node, at: YamlPath) -> object:
        if node in open_nodes:
            where = f"{path}:{node.start_mark.line + 1}"
            raise SpecError(Finding(where, "an alias that contains itself", "write the values out"))
        open_nodes.append(node)
        value = visit(node, at)
        open_nodes.pop()
        return value

    def visit(node: yaml.Node, at: YamlPath) -> object:
        lines[at] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            mapping: dict[str, object] = {}
            for key_node, value_node in node.value:
                key = str(key_node.value)
                line = key_node.start_mark.line + 1
                if key in mapping:
                    duplicates.append(
                        Finding(
                            f"{path}:{line}",
                            f"duplicate key `{key}`",
                            f"keep one; the first stands at line {lines[(*at, key)]}",
                        )
                    )
                    continue
                mapping[key] = walk(value_node, (*at, key))
                lines[(*at, key)] = line
            return mapping
        if isinstance(node, yaml.SequenceNode):
            return [walk(child, (*at, index)) for index, child in enumerate(node.value)]
        return _scalar(node)

    return Source(path, walk(node, ()), lines, tuple(duplicates))


def _compose(text: str) -> yaml.Node | None:
    """The node tree, from libyaml where pyyaml was built with it, in a tenth of the time. What it
    refuses is left to the other parser, so that complaints have the same words everywhere; so are
    tabs, which it takes where that one does not.
    """
    if yaml.__with_libyaml__ and "\t" not in text:
        with suppress(yaml.YAMLError):
            return yaml.compose(text, Loader=yaml.CSafeLoader)
    return yaml.compose(text, Loader=yaml.SafeLoader)


def _complaint(error: yaml.MarkedYAMLError) -> str:
    """The parser's words on one line."""
    words = ", ".join(each for each in (error.context, error.problem) if each)
    return _one_line(words)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _scalar(node: yaml.Node) -> object:
    """A number, truth value or nothing where it is written plainly, else the text."""
    text = str(node.value)
    if getattr(node, "style", None):
        return text
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text) and len(text) < 20:
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
