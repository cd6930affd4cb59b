"""The parts of a fetch, each alone: reading the object, inflating its members, creating the files.

The parts are measured on the same machine and in the same run as the tools. Each is done once
without being timed (the first use of memory costs several times as much as the next one), then once
per round. The round that took least counts: other load on the machine only adds to it.

The floor is an estimate of the wall seconds that a fetch needs at least on this machine. It is the
largest of:

- the processor seconds of the three parts, those of SeaweedFS included, divided by the number of
  cores, as if all cores had work all the time;
- the wall seconds of reading the object, with one or with four requests, whichever is less;
- the wall seconds of inflating the largest member with ISA-L in one thread.

Process start-up is not included. A tool that inflates or writes in a cheaper way than the parts do
can be faster than the floor. Then there is no floor: :meth:`Limits.compared` drops it.
"""

from __future__ import annotations

import mmap
import os
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks import ranged_get

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_fast: Any = zlib
try:
    from isal import isal_zlib

    _fast = isal_zlib
except ImportError:  # no wheel for this machine
    pass

_RAW = -zlib.MAX_WBITS
_WHOLE = 4 << 20
_PIECE = 1 << 20
_LOCAL_HEADER = 30
_RANGES = (1, 4)
Cost = tuple[float, float]
"""Wall seconds and processor seconds."""


@dataclass(frozen=True)
class Limits:
    """The parts of a fetch, in seconds; the least of all rounds.

    Attributes:
        read: Reading the object with one request or with four, whichever is faster.
        read_cpu: The processor seconds of reading the object, those of SeaweedFS included.
        inflate: Inflating all members in one thread.
        inflate_two: Inflating all members in two threads.
        longest: Inflating the largest member in one thread.
        create: Making the directories, and writing files of the same sizes.
        floor: The estimate of what a fetch takes at least; None if a tool was faster.
    """

    read: float
    read_cpu: float
    inflate: float
    inflate_two: float
    longest: float
    create: float
    floor: float | None

    def compared(self, fastest: float) -> Limits:
        """Drop the floor if the fastest run of all tools took fewer wall seconds."""
        contradicted = self.floor is not None and fastest < self.floor
        return replace(self, floor=None) if contradicted else self


def measure(
    archive: Path,
    url: str,
    directory: Callable[[], AbstractContextManager[Path]],
    rounds: int,
    server_cpu: Callable[[], float],
) -> Limits:
    """Measure the parts of fetching a zip.

    Args:
        archive: The zip.
        url: The presigned URL of the zip in the object store.
        directory: Makes a new directory, and removes it afterwards.
        rounds: How often each part is timed.
        server_cpu: Returns the processor seconds that SeaweedFS has used so far.
    """
    size = archive.stat().st_size

    def read_in(ranges: int) -> Cost:
        return _cost(lambda: ranged_get.read(url, size, ranges), server_cpu)

    read, read_cpu = min(_least(rounds, partial(read_in, ranges)) for ranges in _RANGES)
    with archive.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with closing(data):
            members = _members(archive, data)
            halves = _halves(members)
            inflate, inflate_cpu = _least(
                rounds, lambda: _cost(lambda: _inflate_all(data, members))
            )
            inflate_two, _ = _least(rounds, lambda: _cost(lambda: _inflate_at_once(data, halves)))
            longest, _ = _least(rounds, lambda: _cost(lambda: _inflate(data, members[0])))
    with zipfile.ZipFile(archive) as opened:
        entries = opened.infolist()

    def create_all() -> Cost:
        with directory() as place:
            return _cost(lambda: _create(entries, place))

    create, create_cpu = _least(rounds, create_all)
    work = read_cpu + inflate_cpu + create_cpu
    floor = max(work / (os.cpu_count() or 1), read, longest)
    return Limits(read, read_cpu, inflate, inflate_two, longest, create, floor)


def _cost(work: Callable[[], object], server_cpu: Callable[[], float] = lambda: 0.0) -> Cost:
    """Do the work once, and return its wall seconds and its processor seconds."""
    cpu = time.process_time() + server_cpu()
    began = time.perf_counter()
    work()
    wall = time.perf_counter() - began
    return wall, time.process_time() + server_cpu() - cpu


def _least(rounds: int, once: Callable[[], Cost]) -> Cost:
    """Return the least wall seconds and the least processor seconds, after one untimed run."""
    once()
    walls, cpus = zip(*(once() for _ in range(rounds)), strict=True)
    return min(walls), min(cpus)


@dataclass(frozen=True)
class _Member:
    """A deflated member: where its data lie, and how many bytes come out of them."""

    start: int
    end: int
    size: int


def _members(archive: Path, data: mmap.mmap) -> list[_Member]:
    """Find the deflated members, the largest first."""
    found = []
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            if info.compress_type != zipfile.ZIP_DEFLATED:
                continue
            # APPNOTE 4.3.7: a local header ends with the lengths of name and extra field.
            header = data[info.header_offset : info.header_offset + _LOCAL_HEADER]
            name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
            start = info.header_offset + _LOCAL_HEADER + name + extra
            found.append(_Member(start, start + info.compress_size, info.file_size))
    return sorted(found, key=lambda member: member.size, reverse=True)


def _halves(members: Sequence[_Member]) -> list[list[_Member]]:
    """Divide members between two threads; the largest first, each to whom has less."""
    halves: list[list[_Member]] = [[], []]
    load = [0, 0]
    for member in members:
        less = load.index(min(load))
        halves[less].append(member)
        load[less] += member.size
    return halves


def _inflate_all(data: mmap.mmap, members: Sequence[_Member]) -> None:
    for member in members:
        _inflate(data, member)


def _inflate_at_once(data: mmap.mmap, shares: Sequence[Sequence[_Member]]) -> None:
    with ThreadPoolExecutor(len(shares)) as pool:
        list(pool.map(lambda share: _inflate_all(data, share), shares))


def _inflate(data: mmap.mmap, member: _Member) -> None:
    if member.size <= _WHOLE:
        _fast.decompress(data[member.start : member.end], _RAW, member.size or 1)
        return
    stream = _fast.decompressobj(_RAW)
    for start in range(member.start, member.end, _PIECE):
        stream.decompress(data[start : min(start + _PIECE, member.end)])


def _create(entries: Sequence[zipfile.ZipInfo], directory: Path) -> None:
    """Make the directories, and write files of the same sizes, all of zeros."""
    block = memoryview(bytes(_WHOLE))
    for entry in entries:
        path = os.path.join(directory, entry.filename)
        if entry.is_dir():
            # `zip -r` writes a directory before what is in it.
            os.mkdir(path)
            continue
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        for offset in range(0, entry.file_size, _WHOLE):
            os.write(file, block[: entry.file_size - offset])
        os.close(file)
