"""The values of the spec language: its words and numbers, and which of them a field may hold.

`model.py` puts them together to files.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

SCHEMA = 1  # version of the spec language

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]*$")]
Positive = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Axis = Annotated[tuple[Positive, ...], Field(min_length=1)]


def _group_k(value: object) -> object:
    if type(value) is int and value < 1:
        raise PydanticCustomError("group_low", "is no number of K elements")
    if value == "channel" or type(value) is int:
        return value
    raise PydanticCustomError("group_k", "is neither a whole number of K elements nor `channel`")


GroupK = Annotated[
    int | str,
    BeforeValidator(_group_k),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"const": "channel"}]}),
]
FloatFormat = Literal["bf16", "fp16", "fp32"]
ActivationDtype = Literal["bf16", "fp16"]
Rounding = Literal["half_even", "half_away"]
Exp = Literal["exact", "device"]
Dot = Literal["int8", "fp16_exact", "rank1"]  # how integers are multiplied exactly
Unpack = Literal["none", "value", "shift", "ptx"]  # how nibbles become int8
Operands = Literal["rows_first", "weights_first"]  # the operands of a dot, left to right
# Of warps: two groups that multiply have halves of every tile, or tiles by turns.
Roles = Literal["specialized", "pingpong"]
Gates = Literal["apart", "joined"]  # the tiles of gate and up rows: two, or one of both
Order = Literal["tiles", "columns", "blocks"]  # which programs of a GEMM follow one another
PlanName = Literal["separate", "folded", "dispatched"]
# How tokens choose experts where something is timed (generator/tune/routing.py).
Routing = Literal["uniform", "zipf", "one-hot", "half-empty"]


def _only(number: float) -> BeforeValidator:
    def check(value: object) -> object:
        if isinstance(value, float) and value == number:
            return value
        raise PydanticCustomError("constant", f"can only be {number}")

    return BeforeValidator(check)


def _schema_number(value: object) -> object:
    if type(value) is int:
        return value
    raise PydanticCustomError("int_type", "is no whole number")


SchemaNumber = Annotated[Literal[1], BeforeValidator(_schema_number)]
One = Annotated[float, _only(1.0), WithJsonSchema({"const": 1.0})]
Zero = Annotated[float, _only(0.0), WithJsonSchema({"const": 0.0})]


def _capability(value: object) -> object:
    numbers = tuple(value) if isinstance(value, (list, tuple)) else ()
    if len(numbers) == 2 and all(type(each) is int for each in numbers):
        return numbers
    if value == "none":
        return value
    raise PydanticCustomError("capability", "is neither [major, minor] nor `none`")


Capability = Annotated[
    tuple[int, int] | Literal["none"],
    BeforeValidator(_capability),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
                {"const": "none"},
            ]
        }
    ),
]
