"""The HTTP connections of one boto3 client: interruptible, with a minimum rate of data.

botocore waits for each piece of an answer as long as the read timeout, so a peer that sends a byte
now and then is never given up; and it cannot end a request from another thread. Both are added by
connection classes for urllib3's pools. For that, :class:`Connections`, and nothing else, sets two
undocumented attributes of botocore's HTTP session.
"""

from __future__ import annotations

import io
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from urllib3.exceptions import ProtocolError

_LEAST_BYTES = 1 << 10
"""Bytes that a peer has to deliver within one read timeout, once its answer has begun."""

_MOST_HEADER_BYTES = 1 << 20
_MOST_DOCUMENT_BYTES = 16 << 20
"""Bytes of an answer's headers, and of an answer without an object: AWS sends far fewer."""


class _Bounds(threading.local):
    """The limits of the next answer, for the thread that waits for it."""

    most_bytes: int = _MOST_DOCUMENT_BYTES
    patience: float = 1.0
    keeps_cut: bool = False


class Connections:
    """The open connections of one boto3 client."""

    def __init__(self, client: Any) -> None:
        self.bounds = _Bounds()
        self._sockets: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.Lock()
        session = client._endpoint.http_session
        session._pool_classes_by_scheme = session._manager.pool_classes_by_scheme = _pools(self)

    def add(self, sock: Any) -> None:
        """Keep a socket, as long as something else does."""
        with self._lock:
            self._sockets.add(sock)

    def end(self) -> None:
        """Shut down every connection; threads that wait for an answer get an error."""
        with self._lock:
            sockets = [*self._sockets]
        for sock in sockets:
            with suppress(OSError):  # it may just be closed
                if isinstance(sock, socket.socket):
                    # The method of an SSLSocket would go on in plain text.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
                else:  # TLS inside TLS, through a proxy
                    sock.socket.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def expecting(
        self,
        most_bytes: int = _MOST_DOCUMENT_BYTES,
        *,
        patience: float = 1.0,
        keeps_cut: bool = False,
    ) -> Iterator[None]:
        """Set the limits of answers to requests of this thread.

        Args:
            most_bytes: Bytes of the body.
            patience: How many read timeouts the peer has for each KiB.
            keeps_cut: Whether a body that is cut ends there, for a caller that counts its bytes
                and resumes it. Otherwise the received bytes are lost in buffers.
        """
        bounds = self.bounds
        bounds.most_bytes, bounds.patience, bounds.keeps_cut = most_bytes, patience, keeps_cut
        try:
            yield
        finally:
            bounds.most_bytes, bounds.patience, bounds.keeps_cut = _MOST_DOCUMENT_BYTES, 1.0, False


class _Answer(io.RawIOBase):
    """The bytes of one answer as they come from the socket.

    Args:
        raw: The file of the socket.
        seconds: The read timeout; None waits without limit.
        bounds: The limits of the answer.
    """

    def __init__(self, raw: io.RawIOBase, seconds: float | None, bounds: _Bounds) -> None:
        self._raw = raw
        self._seconds = None if seconds is None else seconds * bounds.patience
        self._most = bounds.most_bytes + _MOST_HEADER_BYTES
        self._keeps_cut = bounds.keeps_cut
        self._waited = 0.0
        self._received = 0
        self.total = 0
        self.has_ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Fill the buffer with received bytes.

        Raises:
            TimeoutError: Nothing comes, or next to nothing.
            OSError: The connection broke, or the answer does not end.
        """
        began = time.monotonic()
        try:
            count = self._raw.readinto(buffer)
        except OSError:
            if not (self._keeps_cut and self.total):
                raise
            count = 0
        if not count:
            self.has_ended = True
            return count
        if self.total:  # the time until an answer begins is the socket's own timeout
            self._waited += time.monotonic() - began
        self.total += count
        self._received += count
        if self.total > self._most:
            raise OSError(f"the answer does not end after {self._most:,} bytes")
        if self._seconds is not None and self._waited > self._seconds:
            if self._received < _LEAST_BYTES:
                raise TimeoutError(f"fewer than {_LEAST_BYTES:,} bytes in {self._seconds:g} s")
            self._waited, self._received = 0.0, 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Socket:
    """A connected socket with bounded answers; other methods are those of the socket."""

    def __init__(self, sock: Any, bounds: _Bounds) -> None:
        self._sock = sock
        self._bounds = bounds
        self.answer: _Answer | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def makefile(self, mode: str, buffering: int | None = None, **_: Any) -> Any:
        raw = self._sock.makefile(mode, buffering=0)
        self.answer = _Answer(raw, self._sock.gettimeout(), self._bounds)
        return self.answer if buffering == 0 else io.BufferedReader(self.answer)


def _pools(connections: Connections) -> dict[str, type]:
    """Return urllib3's pool classes by scheme, with connections that are tracked."""

    class Tracked:
        """Mixed into botocore's connection classes."""

        sock: Any

        def connect(self) -> None:
            super().connect()  # type: ignore[misc]
            connections.add(self.sock)
            self.sock = _Socket(self.sock, connections.bounds)

        def getresponse(self) -> Any:
            sock = self.sock
            response = super().getresponse()  # type: ignore[misc]
            # http.client takes the end of the connection for the end of the headers.
            if sock.answer is not None and sock.answer.has_ended:
                raise ProtocolError("the answer was cut in its headers")
            return response

    class Complete:
        """Mixed into botocore's pools: a body that is shorter than announced is an error."""

        def urlopen(self, *arguments: Any, **options: Any) -> Any:
            options["enforce_content_length"] = True
            return super().urlopen(*arguments, **options)  # type: ignore[misc]

    # The two bases of botocore's classes declare the same methods otherwise.
    class Http(Tracked, AWSHTTPConnection):  # type: ignore[misc]
        """A connection without TLS."""

    class Https(Tracked, AWSHTTPSConnection):  # type: ignore[misc]
        """A connection with TLS."""

    class HttpPool(Complete, AWSHTTPConnectionPool):
        """Connections without TLS to one host."""

        ConnectionCls = Http

    class HttpsPool(Complete, AWSHTTPSConnectionPool):
        """Connections with TLS to one host."""

        ConnectionCls = Https

    return {"http": HttpPool, "https": HttpsPool}
