"""Digests of input files."""

from __future__ import annotations

import hashlib
from pathlib import Path


def file_digests(directory: Path, pattern: str) -> dict[str, str]:
    """Twelve hex digits of each file's text below `directory`, by path with forward slashes."""
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(
            path.read_text(encoding="utf-8").encode()
        ).hexdigest()[:12]
        for path in sorted(directory.rglob(pattern))
    }
