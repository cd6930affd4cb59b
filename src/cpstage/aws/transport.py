"""HTTP/1.1 exchanges: pooled connections, TLS, time-outs, and bodies that are whole.

``http.client`` does the protocol (RFC 9112). What is added: connections are kept and used again,
also by many threads; a body that is shorter than promised is an error; and what the network does
is a :class:`NetworkError`, which repeats no header. This module knows nothing of AWS.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import TYPE_CHECKING

from cpstage.aws.origin import Origin, Proxy, proxy_of

if TYPE_CHECKING:
    import ssl

_MOST_IDLE = 16
"""Connections that are kept for one origin."""

_LONGEST_DOCUMENT = 16 << 20
"""Bytes of an answer whose length is not known beforehand: no document of AWS comes near."""

_TRUST_HINT = "trust the certificate with --ca-bundle FILE"


class NetworkError(Exception):
    """An exchange did not come to its end.

    Attributes:
        began: Whether the answer had begun: then it was cut.
    """

    def __init__(self, message: str, *, began: bool = False) -> None:
        super().__init__(message)
        self.began = began


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
class Tls:
    """Whom to trust.

    Attributes:
        verify: False trusts everybody.
        ca_bundle: A file of CA certificates; None takes those that botocore brings.
    """

    verify: bool = True
    ca_bundle: str | None = None


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
    body: bytes | memoryview = field(default=b"", repr=False)
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
class _Line:
    """A connection that leads to an origin, by itself or through a proxy.

    Attributes:
        prefix: What stands before the target: a proxy wants the whole URL.
        headers: The proxy's own.
    """

    connection: HTTPConnection
    prefix: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class Transport:
    """Sends requests, from any number of threads.

    Args:
        tls: Whom to trust.
        connect_timeout: Seconds to wait for a connection; None waits for ever.
        read_timeout: Seconds to wait for the next bytes; None waits for ever.
    """

    def __init__(
        self, tls: Tls, connect_timeout: float | None = 60, read_timeout: float | None = 60
    ) -> None:
        self._tls = tls
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._idle: dict[Origin, list[_Line]] = {}
        self._lock = threading.Lock()
        self._busy: set[_Line] = set()
        self._context: ssl.SSLContext | None = None

    def interrupt(self) -> None:
        """Break off every exchange that is under way, in whatever thread it waits."""
        with self._lock:
            busy = [*self._busy]
        for line in busy:
            with suppress(OSError, AttributeError):  # it may just be closed
                line.connection.sock.shutdown(socket.SHUT_RDWR)

    def exchange(self, request: Request) -> Answer:
        """Send a request, and read all of the answer.

        Raises:
            NetworkError: There was no connection, or it ended too early.
            SetupError: The other side is not trusted, or the proxy is none.
            UnsendableError: A header cannot be sent.
        """
        line = self._take_idle(request.origin)
        if line is not None:
            try:
                return self._over(line, request)
            except NetworkError as error:
                if error.began:
                    raise
                # The other side may have closed it long ago, which says nothing of the network.
        return self._over(self._open(request.origin), request)

    def _take_idle(self, origin: Origin) -> _Line | None:
        with self._lock:
            idle = self._idle.get(origin)
            return idle.pop() if idle else None

    def _over(self, line: _Line, request: Request) -> Answer:
        """Use a line, and keep it if it can be used again."""
        with self._lock:
            self._busy.add(line)
        try:
            answer, reusable = _exchange(line, request)
        except BaseException:
            line.connection.close()
            raise
        finally:
            with self._lock:
                self._busy.discard(line)
        with self._lock:
            idle = self._idle.setdefault(request.origin, [])
            if reusable and len(idle) < _MOST_IDLE:
                idle.append(line)
                return answer
        line.connection.close()
        return answer

    def _open(self, origin: Origin) -> _Line:
        try:
            proxy = proxy_of(origin)
        except ValueError as error:
            raise SetupError(str(error), "check HTTP_PROXY and HTTPS_PROXY") from None
        if proxy is None:
            line = _Line(self._new(origin.scheme, origin.host, origin.port))
        else:
            line = self._through(proxy, origin)
        connection = line.connection
        try:
            connection.connect()
        except OSError as error:
            raise _connecting_failed(error, origin, proxy) from None
        connection.sock.settimeout(self._read_timeout)
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return line

    def _through(self, proxy: Proxy, origin: Origin) -> _Line:
        if origin.scheme == "http":
            connection = self._new(proxy.origin.scheme, proxy.origin.host, proxy.origin.port)
            return _Line(connection, str(origin), proxy.headers)
        if proxy.origin.scheme == "https":
            what = f"{proxy} speaks TLS itself, and {origin} would be TLS inside of it"
            raise SetupError(what, "give a proxy that is http://")
        connection = self._new("https", proxy.origin.host, proxy.origin.port)
        connection.set_tunnel(origin.host, origin.port, dict(proxy.headers))
        return _Line(connection)

    def _new(self, scheme: str, host: str, port: int) -> HTTPConnection:
        if scheme == "http":
            return HTTPConnection(host, port, timeout=self._connect_timeout)
        context = self._trust()
        return HTTPSConnection(host, port, timeout=self._connect_timeout, context=context)

    def _trust(self) -> ssl.SSLContext:
        with self._lock:
            if self._context is None:
                self._context = _ssl_context(self._tls)
            return self._context


def _exchange(line: _Line, request: Request) -> tuple[Answer, bool]:
    """Send and receive over an open connection; tell also whether it can be used again."""
    connection = line.connection
    try:
        failure = _send(line, request)
        response = connection.getresponse()
    except (OSError, HTTPException) as error:
        raise NetworkError(f"{request.origin} gave no answer: {_why(error)}") from None
    try:
        body = _body(response, request)
    except (OSError, HTTPException) as error:
        message = f"the answer of {request.origin} was cut: {_why(error)}"
        raise NetworkError(message, began=True) from None
    headers = {name.lower(): value for name, value in response.getheaders()}
    reusable = failure is None and not response.will_close and response.isclosed()
    return Answer(response.status, headers, body), reusable


def _send(line: _Line, request: Request) -> OSError | None:
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
            connection.putheader(name, value)
        if request.body or request.method in ("PUT", "POST"):
            connection.putheader("Content-Length", str(len(request.body)))
    except (ValueError, HTTPException):  # it would quote the header
        raise UnsendableError from None
    try:
        connection.endheaders()
        if request.body:
            connection.send(request.body)
    except (BrokenPipeError, ConnectionResetError) as error:
        return error
    return None


def _body(response: HTTPResponse, request: Request) -> bytes:
    """Read the body of an answer to its end."""
    if request.method == "HEAD":
        response.read()
        return b""
    wanted = request.length if response.status in (200, 206) else None
    if wanted is None:
        body = response.read(_LONGEST_DOCUMENT)
    else:
        if response.length not in (None, wanted):
            raise HTTPException(f"{response.length} bytes are announced instead of {wanted}")
        body = response.read(wanted)
    if response.length or (wanted is not None and len(body) != wanted):
        raise HTTPException(f"it ended after {len(body):,} bytes")
    return body


def _connecting_failed(error: OSError, origin: Origin, proxy: Proxy | None) -> Exception:
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        what = f"the certificate of {origin} is not trusted: {error.verify_message}"
        return SetupError(what, _TRUST_HINT)
    through = f" through {proxy}" if proxy else ""
    return NetworkError(f"Could not connect to {origin}{through}: {_why(error)}")


def _why(error: Exception) -> str:
    """Say what the system says; messages of ``http.client`` may quote what was received."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) if type(error) is HTTPException else type(error).__name__


def _ssl_context(tls: Tls) -> ssl.SSLContext:
    import ssl

    if not tls.verify:
        return ssl._create_unverified_context()  # noqa: S323 (asked for by --no-verify-ssl)
    bundle = tls.ca_bundle or _botocores_bundle()
    try:
        if bundle and os.path.isdir(bundle):
            return ssl.create_default_context(capath=bundle)
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:
        what = f"cannot use the CA certificates in {bundle}: {_why(error)}"
        raise SetupError(what, _TRUST_HINT) from None


def _botocores_bundle() -> str | None:
    """Return the certificates that the AWS CLI trusts, without loading botocore."""
    from importlib.util import find_spec

    spec = find_spec("botocore")
    place = os.path.join(os.path.dirname(spec.origin or ""), "cacert.pem") if spec else ""
    return place if os.path.exists(place) else None
