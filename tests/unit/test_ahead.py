"""An iterator in a separate thread: bounded, and over as soon as its consumer is."""

from __future__ import annotations

import io
import os
import signal
import threading
from typing import IO, TYPE_CHECKING

import pytest

from cpstage import Limits
from cpstage.archive.options import Budget
from cpstage.archive.tar_reader import tar_members
from cpstage.archive.workers import ahead
from cpstage.errors import ArtifactRejected, LocalIOError, Stopped
from tar_bytes import gzip, member, tar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_SECONDS = 30.0
"""After which a test has failed, whatever it waits for."""


class Source:
    """Numbers; after some of them it waits, as a read from the network would."""

    def __init__(self, waits_at: int) -> None:
        self._waits_at = waits_at
        self.taken = 0
        self.is_waiting = threading.Event()
        self.may_go_on = threading.Event()
        self.thread: threading.Thread | None = None

    def __iter__(self) -> Iterator[int]:
        self.thread = threading.current_thread()
        for number in range(1000):
            if number == self._waits_at:
                self.is_waiting.set()
                assert self.may_go_on.wait(_SECONDS)
            self.taken += 1
            yield number

    def has_ended(self) -> bool:
        assert self.thread is not None
        self.thread.join(_SECONDS)
        return not self.thread.is_alive()


def test_all_items_come_in_order() -> None:
    with ahead(iter(range(1000)), 3) as items:
        assert list(items) == list(range(1000))


def test_it_stays_within_bounds() -> None:
    """What it has room for, one in its hands and one in the consumer's."""
    for most in (1, 4):
        source = Source(waits_at=1000)
        with ahead(iter(source), most) as items:
            for number in items:
                assert source.taken <= number + 1 + most + 1
        assert source.has_ended()


def test_an_error_comes_after_the_items_before_it() -> None:
    def failing() -> Iterator[int]:
        yield 1
        yield 2
        raise LocalIOError("the disk failed")

    with ahead(failing(), 4) as items:
        assert [next(items), next(items)] == [1, 2]
        with pytest.raises(LocalIOError, match="the disk failed"):
            next(items)


def test_nobody_waits_for_a_thread_that_waits() -> None:
    source = Source(waits_at=3)

    with ahead(iter(source), 8) as items:
        assert [next(items), next(items)] == [0, 1]
        assert source.is_waiting.wait(_SECONDS)
    source.may_go_on.set()

    assert source.has_ended()
    assert source.taken == 4


def test_a_consumer_that_fails_ends_the_thread() -> None:
    """The thread has no room for the last that it has taken by then."""
    source = Source(waits_at=3)
    source.may_go_on.set()

    def fail() -> None:
        with ahead(iter(source), 2) as items:
            first = next(items)
            assert source.is_waiting.wait(_SECONDS)
            raise LocalIOError(f"the disk was full at {first}")

    with pytest.raises(LocalIOError, match="full at 0"):
        fail()

    assert source.has_ended()
    assert source.taken == 4


def test_a_signal_ends_the_consumer_that_waits() -> None:
    """A handler raises in the main thread, which waits for an item that does not come."""

    def stop(number: int, _: FrameType | None) -> None:
        raise Stopped(number, "SIGUSR1")

    source = Source(waits_at=2)
    was_stopped = threading.Event()

    def interrupt() -> None:
        """Send it until it is noticed: what comes just before a thread waits, does not wake it."""
        assert source.is_waiting.wait(_SECONDS)
        while not was_stopped.wait(0.05):
            os.kill(os.getpid(), signal.SIGUSR1)

    def consume() -> None:
        with ahead(iter(source), 2) as items:
            assert list(items) == []

    before = signal.signal(signal.SIGUSR1, stop)
    sender = threading.Thread(target=interrupt)
    sender.start()
    try:
        with pytest.raises(Stopped):
            consume()
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        was_stopped.set()
        sender.join(_SECONDS)
        signal.signal(signal.SIGUSR1, before)
    source.may_go_on.set()

    assert source.has_ended()


class Pipe(io.RawIOBase):
    """The bytes of an archive, and then what a broken connection does."""

    def __init__(self, data: bytes, error: Exception) -> None:
        self._data = io.BytesIO(data)
        self._error = error

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        count = self._data.readinto(buffer)
        if not count:
            raise self._error
        return count


def contents(file: IO[bytes], compressed: bool) -> list[bytes]:
    with tar_members(file, compressed=compressed, budget=Budget(Limits(), 0)) as members:
        return [b"".join(one.chunks()) for one in members]


@pytest.mark.parametrize("compressed", [False, True])
def test_an_error_of_the_source_stays_what_it_is(compressed: bool) -> None:
    """It is no damage of the archive."""
    body = tar(member("file", "x" * 5000))
    cut = gzip(body)[:-20] if compressed else body[:-2000]
    file = io.BufferedReader(Pipe(cut, LocalIOError("the connection broke")))  # type: ignore[type-var]

    with pytest.raises(LocalIOError, match="the connection broke"):
        contents(file, compressed)


@pytest.mark.parametrize("compressed", [False, True])
def test_members_may_be_left_where_one_likes(compressed: bool) -> None:
    body = tar(*(member(f"file-{index}", "x" * 9000) for index in range(2000)))
    file = io.BufferedReader(io.BytesIO(gzip(body) if compressed else body))

    budget = Budget(Limits(), len(body))
    with tar_members(file, compressed=compressed, budget=budget) as members:
        assert next(members).name == "file-0"
        assert b"".join(next(members).chunks()) == b"x" * 9000
        assert next(iter(next(members).chunks()))
        assert next(members).name == "file-3"


def test_data_that_nobody_reads_counts_as_passed_over() -> None:
    body = tar(member("one", "x" * 5000), member("two"))
    budget = Budget(Limits(), len(body))

    with tar_members(io.BytesIO(body), compressed=False, budget=budget) as members:
        assert [one.name for one in members] == ["one", "two"]

    assert budget.size == 5000 + 512


@pytest.mark.parametrize("length", [4000, 600, 12])
def test_damage_ends_the_thread(length: int) -> None:
    body = gzip(tar(member("file", os.urandom(5000))))[:length]

    with pytest.raises(ArtifactRejected, match="cut off"):
        contents(io.BytesIO(body), True)

    threads = [one for one in threading.enumerate() if one.name == "cpstage-ahead"]
    for thread in threads:
        thread.join(_SECONDS)
        assert not thread.is_alive()
