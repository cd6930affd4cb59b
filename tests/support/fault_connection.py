"""One connection through the fault proxy: bytes handed on both ways as they are, but for faults.

It knows sockets and HTTP, and does to them what a fault says. Which fault that is, it is told.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from faults import Answer, Drop, Fault, Meanwhile, OnTheWay, Request
from http_messages import Body, Head, Stream, answer_body, read_head, request_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_HANG_UP = getattr(select, "POLLRDHUP", select.POLLHUP)
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class Exchange:
    """One request, and what became of it, so far.

    Attributes:
        request: What was asked.
        fault: What the plan had for it.
        struck: Whether that had an effect; a break behind the end of a body has none.
        status: Of the answer that the client was sent; None while it was sent none.
        received: Bytes of the request's body that came from the client.
        sent: Bytes of the answer's body that went to the client.
    """

    request: Request
    fault: Fault | None
    struck: bool = False
    status: int | None = None
    received: int = 0
    sent: int = 0


class Sockets:
    """The sockets of all connections, and what may wake those who wait for one.

    Attributes:
        stalled: Is set when a fault has made a connection stall.
        closing: Is set when all of them are to end.
        released: Becomes readable when what is stalled may go on.
    """

    def __init__(self) -> None:
        self.stalled = threading.Event()
        self.closing = threading.Event()
        self._release, self.released = socket.socketpair()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def keep(self, sock: socket.socket) -> socket.socket:
        """Take part in what ends all sockets."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open.add(sock)
            if self.closing.is_set():
                _end(sock)
        return sock

    def close(self, sock: socket.socket) -> None:
        with self._lock:
            self._open.discard(sock)
            sock.close()

    def release(self) -> None:
        self._release.close()

    def end_all(self) -> None:
        """End every connection, and wake the threads that wait for one."""
        self.closing.set()
        with self._lock:
            for sock in self._open:
                _end(sock)
        self.release()


class _Over(Exception):
    """The connection has ended as it was meant to."""


class Connection:
    """One connection of the client, its requests, and the connection upstream that they go to.

    Args:
        client: The client's.
        address: Host and port of what answers.
        arrived: Is told of each request, and returns where to note what becomes of it.
        sockets: All connections of the proxy.
    """

    def __init__(
        self,
        client: socket.socket,
        address: tuple[str, int],
        arrived: Callable[[Head], Exchange],
        sockets: Sockets,
    ) -> None:
        self._address = address
        self._arrived = arrived
        self._sockets = sockets
        self._client = Stream(sockets.keep(client))
        self._upstream: Stream | None = None

    def serve(self) -> None:
        try:
            with suppress(_Over, ConnectionError):  # the client finds out for itself
                while self._exchange():
                    pass
        finally:
            self._disconnect()
            self._sockets.close(self._client.sock)

    def _exchange(self) -> bool:
        """Pass on one request and its answer; tell whether the connection can have another."""
        head = read_head(self._client)
        if head is None:
            return False
        self._done = self._arrived(head)
        body = request_body(self._client, head)
        fault = self._done.fault
        if isinstance(fault, Answer):
            return self._answer(fault, head, body)
        if isinstance(fault, Drop):
            self.strike()
            self._drain(body)
            if fault.with_reset:
                self.reset()
            return False
        if isinstance(fault, Meanwhile):
            self.strike()
            fault.action()
        answer, upstream = self._ask(head, body)
        self._pass_on(answer, answer_body(upstream, answer, self._done.request.method))
        if not body.ended:
            self._hear_out()
        return body.ended and not head.is_last_of_connection and not answer.is_last_of_connection

    def _ask(self, head: Head, body: Body) -> tuple[Head, Stream]:
        """Send a request upstream, and return the head of the answer to it."""
        upstream = self._connect()
        upstream.send(head.raw)
        pieces = self._faulty("request", self._counted(body), body.length)
        while True:
            if not body.ended and not self._client.buffer and self._answers_already(upstream):
                answer = self._next_head(upstream)
                if answer is not None:
                    return answer, upstream
                continue
            piece = next(pieces, None)
            if piece is None or not _sent(piece, upstream):
                break
        while (answer := self._next_head(upstream)) is None:
            pass
        return answer, upstream

    def _next_head(self, upstream: Stream) -> Head | None:
        """Read a head; one that is not the final one is passed on at once, as 100 Continue is."""
        head = read_head(upstream)
        if head is None:
            raise ConnectionError("no answer from upstream")
        if head.status >= 200:
            return head
        self._client.send(head.raw)
        return None

    def _answers_already(self, upstream: Stream) -> bool:
        """Wait until the client sends more, or upstream answers without waiting for that."""
        ready, _, _ = select.select([self._client.sock, upstream.sock], [], [])
        return upstream.sock in ready

    def _pass_on(self, head: Head, body: Body) -> None:
        fault = self._done.fault
        heading = iter([head.raw])
        if isinstance(fault, OnTheWay) and fault.side == "response":
            fault.before(self)
            announced = fault.announced(body.length)
            if announced is not None and announced != body.length:
                head = head.with_length(announced)
            heading = fault.heading(head.raw, self)
        self._done.status = head.status
        for piece in heading:
            self._client.send(piece)
        for piece in self._faulty("response", iter(body), body.length):
            self._done.sent += len(piece)
            self._client.send(piece)

    def _answer(self, fault: Answer, head: Head, body: Body) -> bool:
        """Answer at once to who asks before sending a body, else when the body has come."""
        self.strike()
        waits = "expect" in head.headers
        if not waits:
            self._drain(body)
        kind, content = fault.body(self._done.request)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            **({"Connection": "close"} if waits else {}),
            **fault.headers,
        }
        lines = [f"HTTP/1.1 {fault.status} Fault"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._done.status = fault.status
        if self._done.request.method == "HEAD":
            content = b""
        self._client.send("\r\n".join([*lines, "", ""]).encode() + content)
        self._done.sent = len(content)
        return not (waits or head.is_last_of_connection)

    def _hear_out(self) -> None:
        """Close towards a client that is still sending: it would not read its answer after RST."""
        with suppress(OSError):  # it may have gone away
            self._client.sock.shutdown(socket.SHUT_WR)
        for _ in iter(self._client.receive, b""):
            pass

    def _drain(self, body: Body) -> None:
        for _ in self._counted(body):
            pass

    def _counted(self, body: Body) -> Iterator[bytes]:
        for piece in body:
            self._done.received += len(piece)
            yield piece

    def _faulty(self, side: str, pieces: Iterator[bytes], length: int | None) -> Iterator[bytes]:
        fault = self._done.fault
        if isinstance(fault, OnTheWay) and fault.side == side:
            return fault.through(pieces, length, self)
        return pieces

    def _connect(self) -> Stream:
        """Return the connection upstream: the last one, if that is still open."""
        if self._upstream and select.select([self._upstream.sock], [], [], 0)[0]:
            self._disconnect()
        if self._upstream is None:
            self._upstream = Stream(self._sockets.keep(_connected(self._address)))
        return self._upstream

    def _disconnect(self) -> None:
        if self._upstream:
            self._sockets.close(self._upstream.sock)
            self._upstream = None

    # What faults do (faults.Link).

    def strike(self) -> None:
        self._done.struck = True

    def reset(self) -> NoReturn:
        self._client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        raise _Over

    def close(self) -> NoReturn:
        raise _Over

    def stall(self) -> None:
        waiting = select.poll()
        waiting.register(self._client.sock, _HANG_UP)
        waiting.register(self._sockets.released, select.POLLIN)
        self._sockets.stalled.set()
        if self._client.sock.fileno() in dict(waiting.poll()):
            raise _Over

    def pause(self, seconds: float) -> None:
        if self._sockets.closing.wait(seconds):
            raise _Over


def _connected(address: tuple[str, int]) -> socket.socket:
    try:
        return socket.create_connection(address)
    except OSError as error:  # nothing that a plan has, and so a mistake of the test
        raise RuntimeError(f"nothing listens at {address}, behind the proxy") from error


def _sent(piece: bytes, upstream: Stream) -> bool:
    """Send, unless upstream has closed; then it has answered before."""
    try:
        upstream.send(piece)
    except ConnectionError:
        return False
    return True


def _end(sock: socket.socket) -> None:
    """Wake the threads that wait for a socket."""
    with suppress(OSError):  # it may have ended already
        sock.shutdown(socket.SHUT_RDWR)
