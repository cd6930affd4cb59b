"""Trees that are packed without a pipeline, and what other programs unpack."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Literal

from cpstage import Globs
from cpstage._deflate import DEFAULT_LEVEL
from cpstage.archive.options import PackOptions
from cpstage.archive.pack import Packer, list_entries
from cpstage.archive.packing_list import UNIT_SIZE
from cpstage.filesystem.walk import Entry, read_file
from trees import needs

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from cpstage.archive.formats import Format

FORMATS: tuple[Format, ...] = ("zip", "tar", "tar.gz")
UTF8 = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
EDGES = (
    1,
    0xFFFF,
    0x10000,
    UNIT_SIZE - 1,
    UNIT_SIZE,
    UNIT_SIZE + 1,
    2 * UNIT_SIZE - 1,
    2 * UNIT_SIZE,
    2 * UNIT_SIZE + 1,
)
"""Sizes at which something begins: stored blocks of DEFLATE, blocks of a large file."""


def entries_of(root: Path, *exclude: str) -> list[Entry]:
    return [*list_entries(root, Globs(exclude=exclude), "keep")]


def pack(
    entries: Iterable[Entry],
    kind: Format,
    level: int = DEFAULT_LEVEL,
    consumed: Callable[[int], object] = lambda _: None,
    threads: int | None = None,
) -> Generator[bytes, None, None]:
    with Packer(PackOptions(level=level), threads) as packer:
        yield from packer.pack(entries, kind, consumed)


def packed(
    root: Path, kind: Format, level: int = DEFAULT_LEVEL, threads: int | None = None
) -> bytes:
    return b"".join(pack(entries_of(root), kind, level, threads=threads))


def stream(
    entries: Sequence[Entry],
    kind: Format | Literal["raw"],
    consumed: Callable[[int], object] = lambda _: None,
) -> Iterator[bytes]:
    """The bytes that go up: an archive, or the one file unchanged."""
    if kind == "raw":
        return read_file(entries[0], consumed)
    return pack(entries, kind, consumed=consumed)


def text(size: int) -> bytes:
    return b"".join(b"line %d of a text\n" % number for number in range(size // 16 + 1))[:size]


def tree_of_sizes(root: Path, *sizes: int) -> Path:
    """Files of each size, of text and of noise."""
    root.mkdir(parents=True)
    for size in sizes:
        (root / f"text-{size}").write_bytes(text(size))
        (root / f"noise-{size}").write_bytes(os.urandom(size))
    return root


def hole(path: Path, size: int) -> Path:
    """A file of zeros that takes up no room."""
    path.touch()
    os.truncate(path, size)
    return path


def unpacked_by(command: list[str], archive: bytes, into: Path) -> Path:
    """What a program unpacks from a file, which it finds as ARCHIVE in its arguments."""
    needs(command[0])
    into.mkdir()
    file = into.with_suffix(".archive")
    file.write_bytes(archive)
    arguments = [str(file) if argument == "ARCHIVE" else argument for argument in command]
    subprocess.run(arguments, cwd=into, env=UTF8, check=True, capture_output=True)
    return into
