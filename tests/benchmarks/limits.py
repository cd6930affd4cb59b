"""What no tool can beat: reading the object, inflating its members, creating the files.

Each is measured alone on the same machine, and in the same run as the tools. From their processor
time follows how long a fetch takes at least, on all cores at once.
"""

from __future__ import annotations

import mmap
import os
import shutil
import statistics
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Sample, Step

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
_RANGED_GET = str(Path(__file__).with_name("ranged_get.py"))


@dataclass(frozen=True)
class Limits:
    """The parts of a fetch, in seconds; medians.

    Attributes:
        read: Reading the object: by curl or in four ranges, whichever is faster.
        read_cpu: The processor time of that, SeaweedFS's included.
        inflate: Inflating all members in one thread.
        inflate_two: The same in two threads.
        longest: Inflating the largest member, which nobody can divide.
        create: Making the directories, and writing files of the same sizes.
        floor: What a fetch takes at least, if all cores have work all the time.
    """

    read: float
    read_cpu: float
    inflate: float
    inflate_two: float
    longest: float
    create: float
    floor: float


def measure(
    archive: Path, url: str, scratch: Path, rounds: int, run: Callable[[Step], Sample]
) -> Limits:
    """Measure the limits of fetching a zip.

    Args:
        archive: The zip.
        url: Where it can be read without credentials.
        scratch: A directory for files that are created; it must be missing.
        rounds: How often.
        run: Runs a step as the steps of the tools are run.
    """
    read, read_cpu = min(
        _median_read(run, step, rounds) for step in _reads(url, archive.stat().st_size)
    )
    with archive.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with closing(data):
            members = _members(archive, data)
            halves = _halves(members)
            inflate, inflate_cpu = _median(rounds, lambda: _inflate_all(data, members))
            inflate_two, _ = _median(rounds, lambda: _inflate_at_once(data, halves))
            longest, _ = _median(rounds, lambda: _inflate(data, members[0]))
    with zipfile.ZipFile(archive) as opened:
        entries = opened.infolist()
    create, create_cpu = _median(
        rounds, lambda: _create(entries, scratch), lambda: shutil.rmtree(scratch)
    )
    work = read_cpu + inflate_cpu + create_cpu
    floor = max(work / (os.cpu_count() or 1), read, longest)
    return Limits(read, read_cpu, inflate, inflate_two, longest, create, floor)


def _median(
    rounds: int, work: Callable[[], object], clean: Callable[[], object] = lambda: None
) -> tuple[float, float]:
    """Return the median seconds by the clock, and of all processors."""
    walls, cpus = [], []
    for _ in range(rounds):
        began = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - began[0])
        cpus.append(time.process_time() - began[1])
        clean()
    return statistics.median(walls), statistics.median(cpus)


def _reads(url: str, size: int) -> list[Step]:
    ways = [[sys.executable, "-I", _RANGED_GET, url, str(size)]]
    if shutil.which("curl"):
        ways.append(["curl", "--silent", "--fail", "--output", os.devnull, url])
    return [Step("read", [command], Path.cwd()) for command in ways]


def _median_read(run: Callable[[Step], Sample], step: Step, rounds: int) -> tuple[float, float]:
    """Return the median seconds by the clock, and of all processors."""
    samples = [run(step) for _ in range(rounds)]
    walls = [sample.wall for sample in samples]
    cpus = [sample.cpu + sample.server_cpu for sample in samples]
    return statistics.median(walls), statistics.median(cpus)


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


def _create(entries: Sequence[zipfile.ZipInfo], scratch: Path) -> None:
    """Make directories, and files of the right sizes; what is in them does not matter."""
    scratch.mkdir()
    block = memoryview(bytes(_WHOLE))
    for entry in entries:
        path = os.path.join(scratch, entry.filename)
        if entry.is_dir():
            # `zip -r` writes a directory before what is in it.
            os.mkdir(path)
            continue
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        for offset in range(0, entry.file_size, _WHOLE):
            os.write(file, block[: entry.file_size - offset])
        os.close(file)
