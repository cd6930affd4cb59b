"""What a command prints, passed on as it comes, and its last lines kept.

Each of the two streams has a pipe of its own and goes to where it would have gone without; what is
read first is written first. Where both go to the same place, they share one pipe, which keeps their
order. This module knows bytes, and nothing of the command.
"""

from __future__ import annotations

import os
import select
import selectors
import threading
from collections import deque
from contextlib import suppress

_MOST_KEPT = 20_000
"""Bytes: more than a failure's message can hold."""

_MOST_IN_PIPES = 2 << 20
"""Bytes: fs.pipe-max-size of Linux, twice. Later bytes are from other processes."""


class Tee:
    """Two pipes, and a thread that reads them; a context in which it runs.

    Args:
        lines: How many lines to keep.
        stdout: The descriptor that the first stream goes to.
        stderr: The descriptor that the second stream goes to.
    """

    def __init__(self, lines: int, stdout: int, stderr: int) -> None:
        self._lines: deque[bytes] = deque(maxlen=lines)
        self._pending: dict[int, bytes] = {}
        self._targets: dict[int, int] = {}
        if _is_same(stdout, stderr):  # one pipe, which keeps the order of the two streams
            self._writers: tuple[int, ...] = (self._pipe(stdout),) * 2
        else:
            self._writers = tuple(self._pipe(target) for target in (stdout, stderr))
        self._ended, self._end = os.pipe()
        self._thread = threading.Thread(target=self._pass_on, daemon=True)

    @property
    def stdout(self) -> int:
        """The descriptor for the command's stdout."""
        return self._writers[0]

    @property
    def stderr(self) -> int:
        """The descriptor for the command's stderr."""
        return self._writers[1]

    def __enter__(self) -> Tee:
        return self

    def begin(self) -> None:
        """Read; the command has its ends of the pipes by now, and they are closed here."""
        self._close_writers()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        """Pass on what is still in the pipes; do not wait for other processes that hold them."""
        self._close_writers()
        os.close(self._end)
        if self._thread.ident is not None:
            self._thread.join()
        for reader in (*self._targets, self._ended):
            with suppress(OSError):
                os.close(reader)

    def tail(self) -> str:
        """Return the last lines, of both streams in the order in which they came."""
        kept = b"\n".join([*self._lines, *filter(None, self._pending.values())][-self._most() :])
        return kept[-_MOST_KEPT:].decode("utf-8", "replace")

    def _most(self) -> int:
        return self._lines.maxlen or 0

    def _pipe(self, target: int) -> int:
        reader, writer = os.pipe()
        self._targets[reader] = target
        self._pending[reader] = b""
        return writer

    def _close_writers(self) -> None:
        writers, self._writers = self._writers, ()
        for writer in {*writers}:
            os.close(writer)

    def _pass_on(self) -> None:
        with selectors.DefaultSelector() as selector:
            for reader in (*self._targets, self._ended):
                selector.register(reader, selectors.EVENT_READ)
            open_ones = set(self._targets)
            timeout, left = None, 1
            while open_ones and left > 0:
                ready = [key.fd for key, _ in selector.select(timeout)]
                if self._ended in ready:
                    selector.unregister(self._ended)
                    timeout, left = 0.0, _MOST_IN_PIPES  # what is there now, and no longer
                    ready.remove(self._ended)
                elif not ready:
                    return
                for reader in ready:
                    count = self._pass_on_some(reader)
                    left -= count if timeout is not None else 0
                    if not count:
                        selector.unregister(reader)
                        open_ones.discard(reader)

    def _pass_on_some(self, reader: int) -> int:
        """Pass on some bytes; none at the end of the stream, or where the reader is gone."""
        data = os.read(reader, 1 << 16)
        self._keep(reader, data)
        try:
            _write_all(self._targets[reader], data)
        except OSError:
            os.close(reader)  # so that the command learns of it, as it would have without us
            del self._targets[reader]
            return 0
        return len(data)

    def _keep(self, reader: int, data: bytes) -> None:
        *lines, rest = (self._pending[reader] + data).split(b"\n")
        self._lines.extend(line[-_MOST_KEPT:] for line in lines)
        self._pending[reader] = rest[-_MOST_KEPT:]


def _is_same(one: int, other: int) -> bool:
    """Whether two descriptors lead to the same file, terminal or pipe."""
    try:
        return os.path.sameopenfile(one, other)
    except OSError:
        return False


def _write_all(target: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(target, left) :]
        except BlockingIOError:  # whoever gave it to us does not want to wait for it
            select.select([], [target], [])
