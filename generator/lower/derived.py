"""Facts that follow from an object and are worked out once, at the first question."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

Value = TypeVar("Value")


class derived(Generic[Value]):
    """`functools.cached_property` without its lock: until Python 3.12 each first question takes
    one, and a build asks half a million.
    """

    def __init__(self, work_out: Callable[[Any], Value]) -> None:
        self.work_out = work_out
        self.__doc__ = work_out.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> derived[Value]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...

    def __get__(self, instance: object, owner: type) -> derived[Value] | Value:
        if instance is None:
            return self
        value = instance.__dict__[self.name] = self.work_out(instance)
        return value
