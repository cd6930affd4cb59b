"""Zip archives as wholes: cut off anywhere, of other writers, odd but sound; and what a user sees.

Names, kinds, layout, ends, headers and data have files of their own beside this one.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from command_line import plain_environment
from cpstage.archive.members import Contents
from cpstage.errors import ArtifactRejected
from trees import awkward_tree, listing, needs
from unpacked_archives import unpack
from zip_bytes import (
    DEFLATED,
    FAT,
    OS_X,
    Archive,
    Entry,
    deflate,
    directory,
    file,
    link,
    zip_bytes,
)
from zip_checks import accepted, refused

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = b"content " * 9

WHOLES = {
    "of everything": zip_bytes(
        file("stored", DATA),
        directory("d/"),
        Entry("d/deflated", DATA, DEFLATED),
        link("d/link", b"../stored"),
        Entry("described", DATA, DEFLATED, descriptor="signed"),
        file("last"),
    ),
    "of zip64": zip_bytes(
        Entry("large", DATA, DEFLATED, zip64=("size", "packed", "offset")), zip64=True
    ),
    "with a comment": zip_bytes(file("one", DATA), comment=b"comment"),
    "with a stub": zip_bytes(file("one", DATA), prefix=b"#!/bin/sh\nexit\n", shift=15),
    "of nothing": zip_bytes(),
}


@pytest.mark.parametrize("whole", WHOLES.values(), ids=WHOLES)
def test_truncation_anywhere(tmp_path: Path, whole: Archive) -> None:
    for length in range(len(whole)):
        with pytest.raises(ArtifactRejected):
            unpack(whole[:length], tmp_path / str(length), name="app.zip")
        # Without its end no archive has a directory, so there is nothing to write either.
        assert not (tmp_path / str(length)).exists() or listing(tmp_path / str(length)) == {}


@pytest.mark.parametrize("whole", WHOLES.values(), ids=WHOLES)
def test_a_missing_start_anywhere(tmp_path: Path, whole: Archive) -> None:
    at_least = 16 if whole == WHOLES["with a stub"] else 1
    for length in range(at_least, len(whole)):
        with pytest.raises(ArtifactRejected):
            unpack(whole[length:], tmp_path / str(length), name="app.zip")


@pytest.mark.parametrize("whole", WHOLES.values(), ids=WHOLES)
def test_the_wholes_are_sound(tmp_path: Path, whole: Archive) -> None:
    accepted(whole, tmp_path, "unzip")


def test_what_came_out_is_counted(tmp_path: Path) -> None:
    contents = unpack(WHOLES["of everything"], tmp_path / "into", name="app.zip")

    assert contents == Contents(files=4, directories=1, links=1, size=3 * len(DATA) + 7)


def test_an_empty_archive(tmp_path: Path) -> None:
    assert accepted(zip_bytes(), tmp_path, "unzip", "bsdtar") == {}


@pytest.mark.parametrize("names", [[], ["a"]], ids=["empty", "a file"])
def test_an_archive_is_known_by_its_first_bytes(tmp_path: Path, names: list[str]) -> None:
    unpack(zip_bytes(*map(file, names)), tmp_path / "into", name="no suffix")

    assert list(listing(tmp_path / "into")) == names


def test_empty_files_and_directories(tmp_path: Path) -> None:
    body = zip_bytes(
        file("stored", b""),
        Entry("deflated", b"", DEFLATED, deflate(b"")),
        Entry("described", b"", DEFLATED, descriptor="signed"),
        directory("d/"),
        directory("e/f/g/"),
        Entry("h/", mode=stat.S_IFDIR | 0o755, descriptor="signed"),
    )

    found = accepted(body, tmp_path, "unzip", "bsdtar")

    assert found["deflated"] == ("file", False, b"")
    assert found["e/f/g"] == ("directory", False, b"")


@pytest.mark.parametrize(
    ("date", "time"),
    [(0, 0), (0x21, 0), (0xFFFF, 0xFFFF), (0x01FF, 0), (0x21, 0xBF7D), (0x5A3F, 0xC000)],
    ids=["zeros", "1980", "all bits", "month 15", "second 58", "November 31st, 24 o'clock"],
)
def test_times_that_there_are_none_of(tmp_path: Path, date: int, time: int) -> None:
    times = {"date": date, "time": time}
    body = zip_bytes(Entry("file", DATA, local=times, central=times))

    accepted(body, tmp_path, "unzip", "bsdtar")


@pytest.mark.parametrize("host", [FAT, 3, 6, 10, 11, 14, OS_X, 255])
def test_files_of_any_host(tmp_path: Path, host: int) -> None:
    body = zip_bytes(Entry("file", DATA, host=host, mode=0), Entry("d/", host=host, mode=0))

    found = accepted(body, tmp_path, "bsdtar")

    assert {name: kind for name, (kind, *_) in found.items()} == {"file": "file", "d": "directory"}


@pytest.mark.parametrize("version", [10, 45, 63, 255])
def test_versions_say_nothing(tmp_path: Path, version: int) -> None:
    needed = {"needed": version}
    body = zip_bytes(Entry("file", DATA, local=needed, central={**needed, "minor": version}))

    accepted(body, tmp_path, "bsdtar")


def test_comments_of_entries(tmp_path: Path) -> None:
    body = zip_bytes(
        Entry("file", DATA, central={"comment": b"\x1b[2J\0\xff"}),
        Entry("other", DATA, central={"comment": b"x" * 0xFFFF}),
    )

    accepted(body, tmp_path, "unzip", "bsdtar")


def _written_by_python(tree: Path) -> bytes:
    """Streamed: all entries have descriptors."""

    class OneWay(BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: int) -> int:
            raise OSError

        def tell(self) -> int:
            raise OSError

    out = OneWay()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(tree.rglob("*")):
            if not path.is_symlink():
                archive.write(path, path.relative_to(tree))
    return out.getvalue()


def _written_by(*command: str) -> Callable[[Path], bytes]:
    def write(tree: Path) -> bytes:
        needs(command[0])
        done = subprocess.run(
            command,
            cwd=tree,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
        )
        return done.stdout

    return write


def _written_by_zip(*options: str) -> Callable[[Path], bytes]:
    """Into a file: Info-ZIP does not always write links into a pipe, nor with descriptors."""

    def write(tree: Path) -> bytes:
        if "-fd" in options:
            for link in filter(Path.is_symlink, [*tree.rglob("*")]):
                link.unlink()
        _written_by("zip", "-qry", *options, "../written.zip", ".")(tree)
        return (tree.parent / "written.zip").read_bytes()

    return write


WRITERS = {
    "zip": _written_by_zip(),
    "zip -0": _written_by_zip("-0"),
    "zip -fd": _written_by_zip("-fd"),
    "zip -Z bzip2": _written_by_zip("-Z", "bzip2"),
    "bsdtar": _written_by("bsdtar", "-cf", "-", "--format", "zip", "."),
    "zipfile": _written_by_python,
}


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_archives_of_other_writers(tmp_path: Path, writer: Callable[[Path], bytes]) -> None:
    body = writer(awkward_tree(tmp_path / "tree"))

    found = accepted(body, tmp_path, "unzip")

    expected = listing(tmp_path / "tree")
    if writer is _written_by_python:
        expected = {name: what for name, what in expected.items() if what[0] != "link"}
    assert found == expected


def test_zip64_of_info_zip(tmp_path: Path) -> None:
    """In a file: what this option makes in a pipe is a damaged archive to Info-ZIP itself."""
    tree = awkward_tree(tmp_path / "tree")

    _written_by("zip", "-qry", "-fz", "../zip64.zip", ".")(tree)

    found = accepted((tmp_path / "zip64.zip").read_bytes(), tmp_path, "unzip")
    assert found == listing(tree)


HOSTILE = {
    "unsafe name": zip_bytes(file("good"), file("../evil")),
    "forged lines": zip_bytes(file("good"), file("../evil\n\x1b[2Junpacked\tinto\r")),
    "damage": zip_bytes(file("good"), Entry("evil", DATA, local={"crc": 1}, central={"crc": 1})),
    "cut off": zip_bytes(file("good"), file("evil"))[:-9],
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("there", [False, True], ids=["new", "empty directory"])
def test_what_the_command_says_of_it(tmp_path: Path, body: bytes, there: bool) -> None:
    (tmp_path / "app.zip").write_bytes(body)
    if there:
        (tmp_path / "into").mkdir()
    before = sorted(os.listdir(tmp_path))

    done = subprocess.run(
        [sys.executable, "-m", "cpstage", "unpack", "app.zip", "--into", "into"],
        cwd=tmp_path,
        env=plain_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 65, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr[:-1].isprintable()
    assert sorted(os.listdir(tmp_path)) == before
    assert not there or os.listdir(tmp_path / "into") == []
    assert list(tmp_path.parent.glob("evil*")) == []


def test_a_name_that_is_quoted_whole(tmp_path: Path) -> None:
    name = "../" + "é\x07\"'`$(evil)\\" * 3

    said = refused(zip_bytes(file(name)), tmp_path, "unsafe name", entry=name)

    assert said.count("é") == 3
