"""A named number of an emitted module."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Constant:
    """`NAME = value  # why`."""

    name: str
    value: object
    why: str
