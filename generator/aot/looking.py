"""Look a kernel up in Triton's cache without compiling it where it is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from triton import knobs
from triton.runtime.cache import FileCacheManager


class NotCached(Exception):
    """A launch would compile; says the folder of the cache that it looked for."""


class _Looking(FileCacheManager):  # type: ignore[misc]
    """Triton's own file cache, except that a missing kernel is the end of it."""

    def get_group(self, filename: str) -> dict[str, str] | None:
        group: dict[str, str] | None = super().get_group(filename)
        if group is None or filename not in group:
            with suppress(OSError):  # Triton makes a key's folder before it looks into it
                os.rmdir(self.cache_dir)
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
