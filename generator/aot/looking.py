"""Look a kernel up in Triton's cache without compiling it where it is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from triton import knobs
from triton.runtime.cache import FileCacheManager


class NotCached(Exception):
    """A launch would compile; says the folder of the cache that it looked for."""


class _Looking:
    """Stands for Triton's file cache, of which a compile asks first whether it has the kernel's
    group; a missing one is the end of it.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        if not (Path(knobs.cache.dir) / key).is_dir():  # which Triton's own would make
            raise NotCached(key)
        self.files = FileCacheManager(key)

    def get_group(self, filename: str) -> dict[str, str]:
        group: dict[str, str] | None = self.files.get_group(filename)
        if group is None or filename not in group:
            raise NotCached(self.key)
        return group


@contextmanager
def look_only(on: bool) -> Iterator[None]:
    """While `on`, a launch whose kernel is not in the cache raises NotCached."""
    if not on:
        yield
        return
    knobs.cache.manager_class = _Looking
    try:
        yield
    finally:
        knobs.cache.manager_class = None
