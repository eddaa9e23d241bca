"""Error classes of the whole project. A leaf: standard library only, importable by every part.

Every error says what is wrong, where, why it matters when that is not obvious, and the way out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect of one input: what is wrong, where it stands, and what to write instead."""

    where: str  # "file:line", "manifest.json", an argument's name, ...
    what: str  # the defect, with the offending value
    fix: str  # the nearest legal value, or the command that helps
    why: str = ""  # the reason behind the rule, where the defect alone does not show it

    def __str__(self) -> str:
        reason = f" ({self.why})" if self.why else ""
        return f"{self.where}: {self.what}{reason}; {self.fix}"


class GroupwiseError(Exception):
    """Base of all errors raised for a user's input.

    `code` names the class of failure in one stable word; `findings` holds every defect seen in one
    go.
    """

    code = "groupwise"

    def __init__(self, findings: Finding | Sequence[Finding]) -> None:
        self.findings: tuple[Finding, ...] = (
            (findings,) if isinstance(findings, Finding) else tuple(findings)
        )
        super().__init__("\n".join(f"[{self.code}] {finding}" for finding in self.findings))


class SpecError(GroupwiseError):
    """A YAML file under specs/ does not say something legal."""

    code = "spec"


class BuildError(GroupwiseError):
    """A legal spec cannot be turned into modules, or the modules on disk cannot be read or
    written.
    """

    code = "build"


class PackError(GroupwiseError):
    """Weights do not have the layout, type or shape that their contract states."""

    code = "pack"


class NoVariantError(GroupwiseError):
    """No emitted variant accepts the problem at hand; one finding for each variant that was
    asked.
    """

    code = "no-variant"


class LaunchError(GroupwiseError):
    """A tensor, device or workspace handed to a launch does not fit the operation."""

    code = "launch"
