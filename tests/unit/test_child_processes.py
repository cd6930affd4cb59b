"""Child processes that unpack and pack: beside other processes of the host program, and killed."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import pytest

import cpstage
from cpstage.archive.workers import forked
from cpstage.errors import LocalIOError

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
        with forked(work, 2) as do:
            assert bytes(do(b"", b"data")) == b"data"
            with pytest.raises(LocalIOError, match="a child process of cpstage was killed"):
                do(b"die", b"")
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

    def wait_for_the_child() -> None:
        with forked(work, 1) as do:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            do(b"", b"")

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(Interruption):
            wait_for_the_child()
    finally:
        signal.signal(signal.SIGALRM, before)
    pid = int(os.read(begins, 20))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    os.close(begins)
    os.close(begun)
