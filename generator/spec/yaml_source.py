"""Parse one YAML file into plain data plus the line of every key and value.

pyyaml keeps no positions in what it returns, so the node tree is walked here; that is also where
duplicate keys show, which pyyaml accepts in silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from generator.errors import Finding, SpecError

YamlPath = tuple[str | int, ...]

# YAML 1.1 reads dates and base-60 numbers; a spec has neither, so such scalars stay strings.
_PLAIN_TAGS = {"int", "float", "bool", "null", "str"}


@dataclass(frozen=True)
class Source:
    """A parsed file."""

    path: Path
    data: object
    lines: dict[YamlPath, int]  # 1-based line of the value at each path

    def where(self, path: YamlPath) -> str:
        """`file:line` of a path, or of its nearest ancestor that stands in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.path}:{self.lines.get(path, 1)}"


def read(path: Path) -> Source:
    """Parse one file. Raises SpecError with every duplicate key, or with the parser's complaint."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpecError(
            Finding(f"{path}:{line}", f"no valid YAML: {error.problem}", "mend the syntax")
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecError(
            Finding(f"{path}:1", f"cannot be read: {error}", "check the file")
        ) from error
    if node is None:
        raise SpecError(Finding(f"{path}:1", "the file is empty", "start with `schema: 1`"))
    lines: dict[YamlPath, int] = {}
    duplicates: list[Finding] = []
    constructor = yaml.SafeLoader("")

    def walk(node: yaml.Node, at: YamlPath) -> object:
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
        if node.tag.rsplit(":", 1)[-1] not in _PLAIN_TAGS:
            return str(node.value)
        return constructor.construct_object(node)

    data = walk(node, ())
    if duplicates:
        raise SpecError(duplicates)
    return Source(path, data, lines)
