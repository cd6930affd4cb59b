"""HTTP/1.1 to any number of origins: connections that are kept, TLS, proxies and time-outs.

Connections are used again, also by many threads. This module knows nothing of AWS.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection

from cpstage.aws.message import Answer, Line, NetworkError, Request, SetupError, exchange, why
from cpstage.aws.origin import Origin, Proxy, proxy_of
from cpstage.aws.tls import Tls, distrust

_MOST_IDLE = 16
"""Connections that are kept for one origin."""


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
        self._idle: dict[Origin, list[Line]] = {}
        self._busy: dict[Line, socket.socket] = {}
        self._interrupts = 0
        self._lock = threading.Lock()

    def interrupt(self) -> None:
        """Break off every exchange that is under way, in whatever thread it waits."""
        with self._lock:
            self._interrupts += 1
            busy = [*self._busy.values()]
        for sock in busy:
            with suppress(OSError):  # it may just be closed
                # Not the method of an SSLSocket: it would go on in plain text before it ends.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def exchange(self, request: Request) -> Answer:
        """Send a request, and read all of the answer.

        Raises:
            NetworkError: There was no connection, or it ended too early.
            SetupError: The other side is not trusted, or the proxy is none.
            UnsendableError: A header cannot be sent.
        """
        interrupts = self._interrupts
        line = self._take_idle(request.origin)
        if line is not None:
            try:
                return self._over(line, request, interrupts)
            except NetworkError as error:
                if not error.lost or interrupts != self._interrupts:
                    raise
                # The other side may have closed it long ago, which says nothing of the network.
        return self._over(self._open(request.origin), request, interrupts)

    def _take_idle(self, origin: Origin) -> Line | None:
        while True:
            with self._lock:
                idle = self._idle.get(origin)
                line = idle.pop() if idle else None
            if line is None or line.is_quiet():
                return line
            line.connection.close()

    def _over(self, line: Line, request: Request, interrupts: int) -> Answer:
        """Use a line, and keep it if it can be used again."""
        try:
            with self._lock:
                if interrupts != self._interrupts:
                    raise NetworkError(f"the request to {request.origin} was interrupted")
                self._busy[line] = line.connection.sock
            answer, reusable = exchange(line, request)
        except BaseException:
            line.connection.close()
            raise
        finally:
            with self._lock:
                self._busy.pop(line, None)
        with self._lock:
            idle = self._idle.setdefault(request.origin, [])
            if reusable and len(idle) < _MOST_IDLE:
                idle.append(line)
                return answer
        line.connection.close()
        return answer

    def _open(self, origin: Origin) -> Line:
        try:
            proxy = proxy_of(origin)
        except ValueError as error:
            raise SetupError(str(error), "check HTTP_PROXY and HTTPS_PROXY") from None
        if proxy is None:
            line = Line(self._new(origin.scheme, origin.host, origin.port))
        else:
            line = self._through(proxy, origin)
        connection = line.connection
        try:
            connection.connect()
            connection.sock.settimeout(self._read_timeout)
        except BaseException as error:
            connection.close()
            if isinstance(error, (OSError, HTTPException, ValueError)):
                raise _connecting_failed(error, origin, proxy) from None
            raise
        return line

    def _through(self, proxy: Proxy, origin: Origin) -> Line:
        if origin.scheme == "http":
            connection = self._new(proxy.origin.scheme, proxy.origin.host, proxy.origin.port)
            return Line(connection, str(origin), proxy.headers)
        if proxy.origin.scheme == "https":
            what = f"{proxy} speaks TLS itself, and {origin} would be TLS inside of it"
            raise SetupError(what, "give a proxy that is http://")
        connection = self._new("https", proxy.origin.host, proxy.origin.port)
        connection.set_tunnel(origin.host, origin.port, dict(proxy.headers))
        return Line(connection)

    def _new(self, scheme: str, host: str, port: int) -> HTTPConnection:
        if scheme == "http":
            return HTTPConnection(host, port, timeout=self._connect_timeout)
        context = self._tls.context()
        return HTTPSConnection(host, port, timeout=self._connect_timeout, context=context)


def _connecting_failed(error: Exception, origin: Origin, proxy: Proxy | None) -> Exception:
    refused = distrust(error) if isinstance(error, OSError) else None
    if refused is not None:
        says, hint = refused
        return SetupError(f"the certificate of {origin} {says}", hint)
    through = f" through {proxy}" if proxy else ""
    return NetworkError(f"Could not connect to {origin}{through}: {why(error)}")
