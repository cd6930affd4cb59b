"""Progress for people, on stderr: bars on a terminal, lines in a log, or silence.

Transfers report phases and amounts to a :class:`Progress`, which shows names and numbers only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import islice
from typing import Any, Literal, Protocol, TextIO, TypeVar

from cpstage.errors import printable

Mode = Literal["auto", "bar", "log", "none"]
Unit = Literal["B", "entries"]
Advance = Callable[[int], object]

Item = TypeVar("Item")

_LOG_SECONDS = 5.0

_MANY = 50_000
"""Entries from which on work on each of them takes a time that is noticed."""

_STEP = 1000


class Progress(Protocol):
    """Shows phases of work."""

    def phase(
        self, label: str, total: int | None, unit: Unit = "B"
    ) -> AbstractContextManager[Advance]:
        """Begin a phase; the context's value is called with each amount that is done.

        Args:
            label: What is done to what.
            total: How much work the phase has, or None where that is not known.
            unit: Bytes, or entries of a directory.
        """


class Silence:
    """Progress that shows nothing."""

    @contextmanager
    def phase(self, label: str, total: int | None, unit: Unit = "B") -> Iterator[Advance]:  # noqa: ARG002 (the protocol's)
        """Show nothing."""
        yield lambda _: None


@contextmanager
def phase_of_many(
    progress: Progress, label: str, total: int, *, among: int | None = None
) -> Iterator[Advance | None]:
    """Begin a phase for work on entries, if they are many; else the context's value is None.

    ``total`` entries are counted; ``among`` is the number that decides, if that is another one.
    """
    if not total or (total if among is None else among) < _MANY:
        yield None
        return
    with progress.phase(label, total, "entries") as advance:
        yield advance


def counted(items: Iterable[Item], advance: Advance | None) -> Iterable[Item]:
    """Return items, and tell a phase their number as they are consumed."""
    return items if advance is None else _in_steps(iter(items), advance)


def _in_steps(items: Iterator[Item], advance: Advance) -> Iterator[Item]:
    while step := list(islice(items, _STEP)):
        yield from step
        advance(len(step))


class Bars:
    """A tqdm bar for each phase, on a terminal."""

    def __init__(self, stream: TextIO | _Forgiving) -> None:
        self._stream = stream

    @contextmanager
    def phase(self, label: str, total: int | None, unit: Unit = "B") -> Iterator[Advance]:
        """Show a bar with amount, rate and remaining time."""
        from tqdm import tqdm

        with tqdm(
            desc=printable(label),
            total=total,
            unit="B" if unit == "B" else " entries",
            unit_scale=unit == "B",
            unit_divisor=1024,
            leave=None,  # of concurrent bars only the first stays: others leave scraps
            file=self._stream,
            **self._size(),
        ) as bar:
            yield bar.update

    def _size(self) -> dict[str, Any]:
        """Return the size of the bar: a terminal that a container made may have none itself."""
        try:
            has_size = all(os.get_terminal_size(self._stream.fileno()))
        except OSError:
            has_size = False
        return {"dynamic_ncols": True} if has_size else {"ncols": 80, "nrows": 24}


class LogLines:
    """A line every few seconds and one at the end of each long phase, for the log of a build."""

    def __init__(
        self, stream: TextIO | _Forgiving, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._clock = clock

    @contextmanager
    def phase(self, label: str, total: int | None, unit: Unit = "B") -> Iterator[Advance]:
        """Write lines such as ``AppSource: fetching: 12.0 MiB of 40.0 MiB, 8.1 MiB/s``."""
        label = printable(label)
        started = shown = self._clock()
        done = 0

        def line(now: float) -> str:
            rate = amount(int(done / max(now - started, 1e-3)), unit)
            of = f" of {amount(total, unit)}" if total else ""
            return f"{label}: {amount(done, unit)}{of}, {rate}/s"

        def advance(more: int) -> None:
            nonlocal done, shown
            done += more
            now = self._clock()
            if now - shown >= _LOG_SECONDS:
                shown = now
                print(line(now), file=self._stream, flush=True)

        yield advance
        now = self._clock()
        if now - started >= _LOG_SECONDS:
            print(f"{line(now)}: done", file=self._stream, flush=True)


def progress_to(stream: TextIO | None, mode: Mode) -> Progress:
    """Choose how to show progress.

    Args:
        stream: Where to; None, Python's value for a closed stderr, shows nothing.
        mode: ``auto`` shows bars where the stream is a terminal, else lines.
    """
    if stream is None or stream.closed or mode == "none":
        return Silence()
    moves_cursor = stream.isatty() and os.environ.get("TERM") != "dumb"
    if mode == "bar" or (mode == "auto" and moves_cursor):
        return Bars(_Forgiving(stream))
    return LogLines(_Forgiving(stream))


class _Forgiving:
    """A stream whose failures are ignored: work goes on without its reader or with a full disk."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = stream.encoding

    def write(self, text: str) -> object:
        with suppress(OSError, ValueError):
            return self._stream.write(text)
        return None

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()


def amount(count: int, unit: Unit = "B") -> str:
    """Write a number of bytes or entries, such as ``12.0 MiB`` or ``1 entry``."""
    if unit == "entries":
        return f"{count:,} {'entry' if count == 1 else 'entries'}"
    value = float(count)
    for prefix in ("", "Ki", "Mi"):
        if value < 1024:
            return f"{value:.1f} {prefix}B" if prefix else f"{count} B"
        value /= 1024
    return f"{value:.1f} GiB"
