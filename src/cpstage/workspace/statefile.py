"""Small JSON files of our own: readable by their owner only, believed only where they are whole.

This module knows nothing of what is in them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpstage._posix import NOT_OFFERED
from cpstage.filesystem import local_failures


def read_json(path: Path) -> dict[str, Any]:
    """Read a file; one that is missing or damaged says nothing."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a file; what was there is replaced.

    Raises:
        WorkspaceUnavailable, LocalIOError: It cannot be written.
    """
    with local_failures(path):
        path.unlink(missing_ok=True)
        _write_new(path, document, durable=False)


def write_json_durably(path: Path, document: Mapping[str, Any]) -> None:
    """Write a file that is there whole, also after a loss of power, when this returns.

    Raises:
        WorkspaceUnavailable, LocalIOError: It cannot be written.
    """
    new = unfinished(path)
    with local_failures(path):
        new.unlink(missing_ok=True)
        _write_new(new, document, durable=True)
        new.rename(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _sync(directory)
        finally:
            os.close(directory)


def unfinished(path: Path) -> Path:
    """Return where a file is until it is whole."""
    return path.with_name(f"{path.name}.new")


def _write_new(path: Path, document: Mapping[str, Any], *, durable: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        json.dump(document, file, indent=2)
        file.write("\n")
        if durable:
            file.flush()
            _sync(descriptor)


def _sync(descriptor: int) -> None:
    """Wait for the disk, where the file system knows how."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_OFFERED:
            raise
