"""HTTP/1.1 messages as the bytes they are: read from a socket without changing any of them.

It finds where a head and a body end (RFC 9112). AWS and faults are those of its callers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

PIECE = 256 << 10
"""Bytes of a body that are in memory at a time, at most."""

_MOST_OF_A_HEAD = 1 << 20


class Stream:
    """A socket to read messages from, and what has been received of the next one already."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""

    def receive(self, most: int = PIECE) -> bytes:
        """Some bytes, as soon as there are any; none at the end of the stream."""
        piece, self.buffer = self.buffer[:most], self.buffer[most:]
        return piece or self.sock.recv(most)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def until(self, mark: bytes) -> bytes:
        """The bytes up to and with a mark; none where the stream ends before the first byte."""
        while (end := self.buffer.find(mark)) < 0:
            piece = self.sock.recv(PIECE)
            if not piece and not self.buffer:
                return b""
            if not piece or len(self.buffer) > _MOST_OF_A_HEAD:
                raise ConnectionError("the message has no end")
            self.buffer += piece
        end += len(mark)
        taken, self.buffer = self.buffer[:end], self.buffer[end:]
        return taken


@dataclass(frozen=True)
class Head:
    """The first line and the headers of a message, as they were sent, blank line included."""

    raw: bytes

    @property
    def first_line(self) -> list[str]:
        """Method, target and version, or version, status and reason."""
        return self.raw.partition(b"\r\n")[0].decode("latin-1").split(" ", 2)

    @property
    def status(self) -> int:
        return int(self.first_line[1])

    @cached_property
    def headers(self) -> dict[str, str]:
        """Values by lower-case name."""
        lines = self.raw.decode("latin-1").split("\r\n")[1:]
        pairs = (line.partition(":")[::2] for line in lines if line)
        return {name.lower(): value.strip() for name, value in pairs}

    @property
    def is_last_of_connection(self) -> bool:
        version = self.first_line[0 if self.raw.startswith(b"HTTP/") else 2]
        return "close" in self.headers.get("connection", "").lower() or version == "HTTP/1.0"

    def with_length(self, length: int) -> Head:
        """The same, with another Content-Length."""
        value = b"\\g<1>%d" % length
        return replace(self, raw=re.sub(rb"(?i)(\r\ncontent-length: *)\d+", value, self.raw))


class Body:
    """The body of a message, read once: an iterator of its bytes as they lie on the wire.

    Attributes:
        length: Its Content-Length; None for a body in chunks, or up to the end of the stream.
        ended: Whether the last byte has been read.
    """

    def __init__(self, stream: Stream, length: int | None, *, chunked: bool = False) -> None:
        self.length = length
        self.ended = length == 0
        self._stream = stream
        self._chunked = chunked

    def __iter__(self) -> Iterator[bytes]:
        if self._chunked:
            yield from self._chunks()
        elif self.length is None:
            yield from iter(self._stream.receive, b"")
        else:
            yield from self._exactly(self.length, last=True)
        self.ended = True

    def _exactly(self, length: int, *, last: bool = False) -> Iterator[bytes]:
        while length:
            piece = self._stream.receive(min(length, PIECE))
            if not piece:
                raise ConnectionError("the body ends too early")
            length -= len(piece)
            self.ended = last and not length
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        """Chunks with their sizes, the last chunk, and the trailers."""
        size = None
        while size != 0:
            line = self._line()
            size = int(line.partition(b";")[0], 16)
            yield line
            if size:
                yield from self._exactly(size + 2)
        while (line := self._line()) != b"\r\n":
            yield line
        self.ended = True
        yield line

    def _line(self) -> bytes:
        line = self._stream.until(b"\r\n")
        if not line:
            raise ConnectionError("the body ends too early")
        return line


def read_head(stream: Stream) -> Head | None:
    """The head of the next message; None where the other side has closed the connection."""
    raw = stream.until(b"\r\n\r\n")
    return Head(raw) if raw else None


def request_body(stream: Stream, head: Head) -> Body:
    if "chunked" in head.headers.get("transfer-encoding", "").lower():
        return Body(stream, None, chunked=True)
    return Body(stream, int(head.headers.get("content-length", 0)))


def answer_body(stream: Stream, head: Head, method: str) -> Body:
    if method == "HEAD" or head.status in (204, 304):
        return Body(stream, 0)
    if "chunked" in head.headers.get("transfer-encoding", "").lower():
        return Body(stream, None, chunked=True)
    length = head.headers.get("content-length")
    return Body(stream, None if length is None else int(length))
