"""The files in ``.cpstage/`` that tell the state of a workspace, as JSON.

A build may have put anything in the place of a file. So each is opened without following a symlink
and without waiting for the other end of a FIFO, has to be a regular file with one name, and is read
up to a bound. What is damaged counts as missing.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpstage._posix import DIRECTORY, NOT_OFFERED, O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK
from cpstage.errors import local_failure, local_failures

_MOST_JSON = 16 << 20
"""Bytes of a JSON file: some thousand times as much as a job needs."""


class NotOurs(ValueError):
    """A file of ours was replaced by something else, or is too long."""


def read_own(path: Path, most: int) -> bytes:
    """Read a file that a build may have replaced.

    Raises:
        NotOurs: It is a symlink, a FIFO or another special file, has a second name (hard link), or
            has more than ``most`` bytes.
        OSError: It is missing, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise NotOurs("it is a symlink") from error
        if error.errno == errno.ENXIO:  # a socket
            raise NotOurs("it is not a regular file") from error
        raise
    try:  # os.fdopen refuses a directory, and leaves its descriptor open
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotOurs("it is not a regular file")
        if status.st_nlink > 1:
            raise NotOurs("it is a hard link to another file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(most + 1)
    finally:
        os.close(descriptor)
    if len(data) > most:
        raise NotOurs(f"it has more than {most:,} bytes")
    return data


def read_json(path: Path, *, refuse_denied: bool = False) -> dict[str, Any]:
    """Read a file; return an empty document if it is missing or damaged.

    With ``refuse_denied``, raise WorkspaceUnavailable if this user may not read it: a workspace of
    another user is not an empty one.
    """
    try:
        text = read_own(path, _MOST_JSON)
        document = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except PermissionError as error:
        if refuse_denied:
            raise local_failure(error, path, "read") from error
        return {}
    except (OSError, RecursionError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _finite(text: str) -> float:
    """Read a fraction, or what JavaScript writes for one; no count is infinite or not a number."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a file in the place of what was there; raise WorkspaceUnavailable or LocalIOError."""
    with local_failures(path):
        path.unlink(missing_ok=True)
        _write_new(path, document, durable=False)


def write_json_durably(path: Path, document: Mapping[str, Any]) -> None:
    """Write a file as :func:`write_json` does, which is whole even after a loss of power."""
    new = unfinished(path)
    with local_failures(path):
        new.unlink(missing_ok=True)
        _write_new(new, document, durable=True)
        new.rename(path)
        directory = os.open(path.parent, DIRECTORY)
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
