"""Element formats: bits, value ranges and the name each has in Triton and torch. A leaf: standard
library only.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ElementFormat:
    """How one element is stored."""

    name: str  # the word that specs and contract names use
    dtype: str  # the attribute of both `torch` and `triton.language`; of int4 the byte of two
    bits: int  # stored bits of one element
    lowest: int | None  # least integer value; None for a float format
    highest: int | None  # greatest integer value; None for a float format

    def bytes_of(self, elements: int) -> int:
        """Stored bytes of a run of elements; int4 stands two to a byte."""
        return elements * self.bits // 8

    @property
    def magnitude(self) -> int:
        """Greatest absolute value of an integer format (128 for int8: GEMMs accept -128)."""
        if self.lowest is None or self.highest is None:
            raise ValueError(f"{self.name} is no integer format")
        return max(-self.lowest, self.highest)


FORMATS = {
    each.name: each
    for each in (
        ElementFormat("int8", "int8", 8, -128, 127),
        ElementFormat("int4", "int8", 4, -8, 7),
        ElementFormat("bf16", "bfloat16", 16, None, None),
        ElementFormat("fp16", "float16", 16, None, None),
        ElementFormat("fp32", "float32", 32, None, None),
    )
}
