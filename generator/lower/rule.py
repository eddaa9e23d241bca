"""What a pruning rule is, and what it says of a variant that breaks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from generator.lower.design import Design
from generator.lower.measured import UNMEASURED, Measured
from generator.lower.variant import Variant
from generator.spec.model import Target

# What a rule holds against a variant, said at once or when it is asked for: of some 100,000
# rejections of a build a few are read, and the way out takes longer to find than the way in.
Reason = str | Callable[[], str]


@dataclass(frozen=True)
class Rule:
    """A named reason to reject a variant; `of_design` where its contract does not matter,
    `of_record` where it was compiled and the compiler's word counts.
    """

    name: str
    why: str
    of_variant: Callable[[Variant], Reason | None] | None = None
    of_design: Callable[[Design, Target], str | None] | None = None
    of_record: Callable[[Variant, Measured], str | None] | None = None

    def violation(self, variant: Variant, measured: Measured = UNMEASURED) -> str | None:
        """What the variant violates, in numbers; None where it keeps the rule."""
        if self.of_design is not None:
            return self.of_design(variant.design, variant.target)
        if self.of_record is not None:
            return self.of_record(variant, measured)
        assert self.of_variant is not None
        reason = self.of_variant(variant)
        return None if reason is None else _told(reason)


@dataclass(frozen=True, slots=True)
class Rejection:
    """One design and the rule it breaks."""

    design: Design
    rule: Rule
    reason: Reason = field(compare=False)  # follows from the others

    @property
    def what(self) -> str:
        """The violated inequality and the way out."""
        return _told(self.reason)


def _told(reason: Reason) -> str:
    return reason if isinstance(reason, str) else reason()
