"""A file that is replaced: the old one or the new one, and nothing beside it."""

from __future__ import annotations

import os
import sys
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from cpstage.errors import LocalIOError
from cpstage.filesystem import files
from cpstage.filesystem.files import replaced_file


def _write(path: Path, text: bytes, stop_at: int) -> bool:
    """Write a file; a signal comes before a line of the function. Return whether one came."""
    lines = count(1)

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != files.__file__:
            return None
        if event == "line" and next(lines) == stop_at:
            raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        with replaced_file(path, 0o640) as file:
            file.write(text)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False


def test_a_signal_at_any_line_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    for step in count(1):
        stopped = _write(path, b"new", step)

        assert os.listdir(tmp_path) == ["out"], step
        if not stopped:
            break
        assert path.read_bytes() in {b"old", b"new"}

    assert step > 10
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640


def test_an_error_of_the_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")

    with pytest.raises(LocalIOError, match=r"cannot write .*: No space left"), replaced_file(path):
        raise OSError(28, "full")

    assert os.listdir(tmp_path) == ["out"]
    assert path.read_bytes() == b"old"


def test_a_file_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    with replaced_file(tmp_path / "one") as one:
        with replaced_file(tmp_path / "other") as other:
            other.write(b"other")
        one.write(b"one")

    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == {
        "one": b"one",
        "other": b"other",
    }


def test_a_file_may_have_the_longest_name(tmp_path: Path) -> None:
    path = tmp_path / ("\u4e2d" * 85)  # 255 bytes

    with replaced_file(path) as file:
        file.write(b"new")

    assert path.read_bytes() == b"new"
