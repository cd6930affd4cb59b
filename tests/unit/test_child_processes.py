"""Child processes that unpack and pack: beside other processes of the host program, and killed."""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import os
import resource
import signal
import sys
import tarfile
import threading
import zipfile
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import pytest

import cpstage
from cpstage.archive.blob import BytesBlob, ReadAhead
from cpstage.archive.options import ExtractOptions
from cpstage.archive.unpack import Unpacker
from cpstage.archive.workers import Processes
from cpstage.errors import ArtifactRejected, LocalIOError
from cpstage.filesystem.tree import Tree, fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has such children")

FILES = 1200


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with so many files that child processes pack and unpack them."""
    directory = tmp_path_factory.mktemp("source")
    for number in range(FILES):
        (directory / str(number)).write_text("x")
    return directory


@pytest.fixture
def held() -> Iterator[None]:
    """Let the host program fork, all the time, processes that live longer than the test."""
    end_reading, end_writing = os.pipe()
    ended = threading.Event()
    pids: list[int] = []

    def fork() -> None:
        while not ended.is_set() and len(pids) < 400:
            if not (pid := os.fork()):
                os.close(end_writing)
                os.read(end_reading, 1)
                os._exit(0)
            pids.append(pid)

    thread = threading.Thread(target=fork)
    thread.start()
    yield
    ended.set()
    thread.join()
    os.close(end_reading)
    os.close(end_writing)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_processes_that_the_host_forks_meanwhile_hold_nothing_up(
    held: None, source: Path, tmp_path: Path
) -> None:
    cpstage.pack(source, tmp_path / "a.zip")
    cpstage.unpack(tmp_path / "a.zip", tmp_path / "there")

    assert len(os.listdir(tmp_path / "there")) == FILES


def _sleep(seconds: float) -> None:
    threading.Event().wait(seconds)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_beside_multiprocessing(method: str, source: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        working = [pool.submit(_sleep, 0) for _ in range(2)]
        cpstage.pack(source, tmp_path / "a.zip")
        working += [pool.submit(_sleep, 0) for _ in range(2)]
        cpstage.unpack(tmp_path / "a.zip", tmp_path / "there")
        for one in working:
            one.result(timeout=30)

    assert len(os.listdir(tmp_path / "there")) == FILES


def test_in_threads_of_asyncio(source: Path, tmp_path: Path) -> None:
    async def work() -> None:
        archives = [tmp_path / f"{number}.zip" for number in range(3)]
        await asyncio.gather(*(asyncio.to_thread(cpstage.pack, source, one) for one in archives))
        child = await asyncio.create_subprocess_exec("sleep", "60")
        await asyncio.gather(
            *(asyncio.to_thread(cpstage.unpack, one, one.with_suffix("")) for one in archives)
        )
        child.kill()
        await child.wait()

    asyncio.run(work())

    assert [len(os.listdir(tmp_path / str(number))) for number in range(3)] == [FILES] * 3


@pytest.mark.parametrize("ignored", [False, True])
def test_a_child_that_is_killed_is_a_failure_of_the_machine(ignored: bool) -> None:
    def work(note: bytes, data: memoryview | bytes) -> bytes:
        if note == b"die":
            os.kill(os.getpid(), signal.SIGKILL)
        return bytes(data)

    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        with Processes(work, 2) as processes:
            assert bytes(processes.result(processes.send(b"", b"data"))) == b"data"
            with pytest.raises(LocalIOError, match="a child process of cpstage was killed"):
                processes.result(processes.send(b"die"))
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_child_that_is_in_the_middle_of_a_unit_is_killed() -> None:
    begins, begun = os.pipe()

    def work(note: bytes, data: memoryview | bytes) -> bytes:
        os.write(begun, str(os.getpid()).encode())
        threading.Event().wait(60)
        return b""

    class Interruption(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interruption

    pids: list[int] = []

    def wait_for_the_child() -> None:
        with Processes(work, 1) as processes:
            unit = processes.send(b"")
            pids.append(int(os.read(begins, 20)))
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            processes.result(unit)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(Interruption):
            wait_for_the_child()
    finally:
        signal.signal(signal.SIGALRM, before)
    (pid,) = pids
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    os.close(begins)
    os.close(begun)


def test_results_come_in_the_order_of_the_units_whatever_their_sizes() -> None:
    """Units and results are larger than a pipe, and smaller, and empty."""
    sizes = [0, 5 << 20, 1, 3 << 20, 0, 1 << 20, 7, 2 << 20] * 3

    def units() -> Iterator[tuple[bytes, bytes]]:
        for number, size in enumerate(sizes):
            yield str(number).encode(), bytes([number]) * size

    with Processes(lambda note, data: note * 2 + bytes(data), 2) as processes:
        results = [
            bytes(one) for one in processes.in_order(processes.send(*unit) for unit in units())
        ]

    expected = [str(n).encode() * 2 + bytes([n]) * size for n, size in enumerate(sizes)]
    assert results == expected


def test_the_first_unit_that_fails_is_the_one_that_is_told() -> None:
    """The processes may come to a later one sooner."""

    def work(note: bytes, _: memoryview | bytes) -> bytes:
        if note == b"":
            return b""
        raise ArtifactRejected(f"unit {note.decode()} is damaged")

    units = [(b"" if number < 4 else str(number).encode(), b"") for number in range(40)]
    with (
        Processes(work, 4) as processes,
        pytest.raises(ArtifactRejected, match="unit 4 is damaged"),
    ):
        list(processes.in_order(processes.send(*unit) for unit in units))


def test_units_are_taken_no_further_ahead_than_three_for_a_process() -> None:
    taken: list[int] = []

    def units() -> Iterator[tuple[bytes, bytes]]:
        for number in range(100):
            taken.append(number)
            yield b"", b""

    with Processes(lambda _note, _data: b"", 2) as processes:
        results = processes.in_order(processes.send(*unit) for unit in units())
        for number in range(95):
            next(results)
            assert len(taken) == number + 6


@pytest.mark.parametrize("files", [5, FILES])
def test_the_fingerprint_that_is_taken_while_unpacking_is_that_of_the_tree(
    files: int, tmp_path: Path
) -> None:
    """With modes that shut the owner out, links, and directories without an entry."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for number in range(files):
            name = zipfile.ZipInfo(f"d{number % 7}/é{number}", (2001, 2, 3, 4, 5, 6))
            name.external_attr = (0o100000 | (0o640 if number % 2 else 0o755)) << 16
            archive.writestr(name, "x" * number)
        for path, mode in (("d1/", 0o40500), ("d2/", 0o40700), ("shut/", 0o40400)):
            directory = zipfile.ZipInfo(path)
            directory.external_attr = mode << 16
            archive.writestr(directory, "")
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "d1")
    tree = tmp_path / "tree"
    tree.mkdir()

    with (
        Tree(tree) as written,
        ReadAhead(BytesBlob(body.getvalue())) as stream,
        Unpacker(written, ExtractOptions()) as unpacker,
    ):
        unpacker.add(stream, "zip", "App")
        taken = unpacker.finish_and_hash()

    assert taken == fingerprint(tree)
    (tree / "d2").chmod(0o755)
    assert taken != fingerprint(tree)


def _tar(path: Path, files: list[tuple[str, bytes | str]]) -> None:
    """Write a tar.gz with many small files, and then others; text is the name of a hard link."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in [*((f"d/{one}", b"%d" % one) for one in range(FILES)), *files]:
            member = tarfile.TarInfo(name)
            member.mtime, member.mode = 1_000_000_000, 0o640
            if isinstance(content, str):
                member.type, member.linkname = tarfile.LNKTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def test_the_members_of_a_tar_have_effect_in_their_order(tmp_path: Path) -> None:
    last, large = f"d/{FILES - 1}", bytes(range(256)) * 1024
    later: list[tuple[str, bytes | str]] = [
        *(("hard", last), (last, b"later"), ("d/7", large), ("large", large)),
        *(("large", b"small"), ("d/8", b"once"), ("d/8", b"twice"), ("empty", b"")),
    ]
    _tar(tmp_path / "a.tar.gz", later)

    unpacked = cpstage.unpack(tmp_path / "a.tar.gz", tmp_path / "there")

    expected = {f"d/{number}": b"%d" % number for number in range(FILES)}
    expected |= {name: content for name, content in later if isinstance(content, bytes)}
    expected["hard"] = b"%d" % (FILES - 1)
    files = [one for one in (tmp_path / "there").rglob("*") if one.is_file()]
    found = {str(one.relative_to(tmp_path / "there")): one.read_bytes() for one in files}
    assert found == expected
    assert {(int(one.stat().st_mtime), one.stat().st_mode & 0o777) for one in files} == {
        (1_000_000_000, 0o640)
    }
    assert unpacked.contents
    assert unpacked.contents.files == len(expected)
    assert unpacked.contents.size == sum(map(len, expected.values()))


@pytest.fixture
def short_files() -> Iterator[None]:
    """Let no file become longer than 1,000 bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_of_a_tar_that_a_child_cannot_write_is_named(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    _tar(tmp_path / "a.tar.gz", [("too-long", bytes(1001))])
    request.getfixturevalue("short_files")

    with pytest.raises(LocalIOError, match=r"cannot write .*/too-long: File too large"):
        cpstage.unpack(tmp_path / "a.tar.gz", tmp_path / "there")

    assert not (tmp_path / "there").exists()
