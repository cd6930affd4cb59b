"""One HTTP/1.1 exchange over an open connection: a request that is sent, an answer that is whole.

``http.client`` does the protocol (RFC 9112). What is added: a body that is shorter or longer than
promised is an error, nothing that is received can fill the memory, and what the network does is a
:class:`NetworkError`, which repeats no header. This module knows nothing of AWS.
"""

from __future__ import annotations

import re
import select
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, RemoteDisconnected

from cpstage.aws.origin import Origin

_LONGEST_DOCUMENT = 16 << 20
"""Bytes of an answer whose length is not known beforehand: no document of AWS comes near."""

_PIECE = 256 << 10
"""Bytes of a body that are sent in one call, whose time-out is for all of them."""

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_REFUSED_TUNNEL = re.compile(r"Tunnel connection failed: [0-9]{3}")


Body = Sequence["bytes | bytearray | memoryview"]
"""A body in pieces, which are sent as they are: to join 8 MiB costs as much as to send them."""


class NetworkError(Exception):
    """An exchange did not come to its end.

    Attributes:
        began: Whether the answer had begun: then it was cut.
        lost: Whether the other side had closed the connection before it answered.
    """

    def __init__(self, message: str, *, began: bool = False, lost: bool = False) -> None:
        super().__init__(message)
        self.began = began
        self.lost = lost


class SetupError(Exception):
    """What the caller has set up stands in the way: trusted certificates, or a proxy.

    Attributes:
        hint: What to do about it.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class UnsendableError(Exception):
    """The request has a header that cannot be sent; which, only its maker may know."""


@dataclass(frozen=True)
class Request:
    """One HTTP request.

    Attributes:
        target: Path and query, percent-encoded.
        headers: All but Host and Content-Length.
        length: How many bytes the body of a good answer has to have; None takes any.
    """

    method: str
    origin: Origin
    target: str
    headers: Mapping[str, str] = field(repr=False)
    body: Body = field(default=(), repr=False)
    length: int | None = None


@dataclass(frozen=True)
class Answer:
    """The answer to a request, whole.

    Attributes:
        headers: By their names in lower case.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, eq=False)
class Line:
    """A connection that leads to an origin, by itself or through a proxy.

    Attributes:
        prefix: What stands before the target: a proxy wants the whole URL.
        headers: The proxy's own.
    """

    connection: HTTPConnection
    prefix: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def is_quiet(self) -> bool:
        """Tell whether nothing has come since the last answer, not even the end.

        What has come would be taken for the next answer.
        """
        return not _is_readable(self.connection.sock)


def exchange(line: Line, request: Request) -> tuple[Answer, bool]:
    """Send and receive over an open connection; tell also whether it can be used again.

    Raises:
        NetworkError: The connection ended too early, or what came is no answer.
        UnsendableError: A header cannot be sent.
    """
    failure: OSError | None = None
    try:
        failure = _send(line, request)
        response = line.connection.getresponse()
    except (OSError, HTTPException, ValueError) as error:
        message = f"{request.origin} gave no answer: {why(failure or error)}"
        raise NetworkError(message, lost=_is_loss(failure or error)) from None
    try:
        body = _body(response, request)
    except (OSError, HTTPException, ValueError) as error:
        response.close()
        message = f"the answer of {request.origin} was cut: {why(error)}"
        raise NetworkError(message, began=True) from None
    headers = {name.lower(): value for name, value in response.getheaders()}
    reusable = failure is None and not response.will_close and response.isclosed()
    return Answer(response.status, headers, body), reusable


def length_of(body: Body) -> int:
    """Return how many bytes a body has."""
    return sum(map(len, body))


def why(error: Exception) -> str:
    """Say what the system says; messages of ``http.client`` may quote what was received."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, RemoteDisconnected):
        return "the connection was closed"
    if isinstance(error, OSError):
        refused = _REFUSED_TUNNEL.match(str(error))
        return error.strerror or (refused[0] if refused else type(error).__name__)
    return str(error) if type(error) is HTTPException else type(error).__name__


def _send(line: Line, request: Request) -> OSError | None:
    """Send a request; return what stopped the sending, which an answer may explain."""
    connection = line.connection
    try:
        connection.putrequest(
            request.method,
            line.prefix + request.target,
            skip_host=True,
            skip_accept_encoding=True,
        )
        connection.putheader("Host", request.origin.authority)
        for name, value in (*request.headers.items(), *line.headers.items()):
            if _CONTROL.search(value):
                raise UnsendableError
            connection.putheader(name, value.encode())  # as it is signed
        if request.body or request.method in ("PUT", "POST"):
            connection.putheader("Content-Length", str(length_of(request.body)))
    except (ValueError, HTTPException):  # it would quote the header
        raise UnsendableError from None
    try:
        connection.endheaders()
        for piece in request.body:
            for at in range(0, len(piece), _PIECE):
                connection.send(memoryview(piece)[at : at + _PIECE])
    except TimeoutError as error:
        if not _is_readable(connection.sock):
            raise
        return error
    except OSError as error:
        return error
    return None


def _body(response: HTTPResponse, request: Request) -> bytes:
    """Read the body of an answer to its end."""
    if request.method == "HEAD":
        response.read()
        return b""
    if response.status < 200:
        raise HTTPException(f"status {response.status} is none of an answer")
    wanted = request.length if response.status in (200, 206) else None
    most = _LONGEST_DOCUMENT if wanted is None else wanted
    if wanted is not None and response.length not in (None, wanted):
        raise HTTPException(f"{response.length} bytes are announced instead of {wanted}")
    if (response.length or 0) > most:
        raise HTTPException(f"{response.length:,} bytes are announced")
    body = response.read(most)
    if response.length or (wanted is not None and len(body) != wanted):
        raise HTTPException(f"it ended after {len(body):,} bytes")
    if not response.isclosed() and response.read(1):
        raise HTTPException(f"it does not end after {most:,} bytes")
    return body


def _is_loss(error: Exception) -> bool:
    """Tell whether the other side may just have closed a connection that was idle."""
    return isinstance(error, ConnectionError) or type(error).__name__ == "SSLEOFError"


def _is_readable(sock: socket.socket | None) -> bool:
    decrypted = getattr(sock, "pending", int)  # of a record of TLS that has been read already
    if sock is None or decrypted():
        return True
    watched = select.poll()
    watched.register(sock, select.POLLIN)
    return bool(watched.poll(0))
