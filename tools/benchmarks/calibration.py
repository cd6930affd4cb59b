"""What a link is really like: its round trip, and what plain TCP connections carry.

Run as a program it is one of the two ends: `calibration.py serve ADDRESS PORT` answers, and
`calibration.py measure ADDRESS PORT` writes the figures as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
import selectors
import socket
import socketserver
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_START_SECONDS = 30.0
_ECHO, _SEND, _TAKE = b"e", b"s", b"t"
_PINGS = 21
_WARM_UP_SECONDS = 2.0
_SECONDS = 2.0
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Calibration:
    """What was measured of a link before the tools ran on it.

    Attributes:
        round_trip: Median of the seconds that a byte takes there and back.
        down: Bits per second that the client receives, by the number of connections.
        up: Bits per second that the client sends, by the number of connections.
    """

    round_trip: float
    down: dict[str, float]
    up: dict[str, float]


def measure(inside: Sequence[str], address: str, log: Path) -> Calibration:
    """Measure the link that leads from the client to this namespace."""
    from benchmarks.servers import Server, free_ports, listens

    (port,) = free_ports(1)
    command = [sys.executable, __file__, "serve", address, str(port)]
    with Server(command, log, {"PATH": os.environ["PATH"]}) as server:
        server.wait_until(lambda: listens(port, address), _START_SECONDS)
        command = [*inside, sys.executable, __file__, "measure", address, str(port)]
        return Calibration(**json.loads(subprocess.check_output(command)))


class _Handler(socketserver.BaseRequestHandler):
    """Does what the first byte of a connection says, until the client closes it."""

    request: socket.socket

    def handle(self) -> None:
        buffer = bytearray(_BLOCK)
        with suppress(OSError):
            wish = self.request.recv(1)
            if wish == _SEND:
                while True:
                    self.request.sendall(buffer)
            while got := self.request.recv_into(buffer):
                if wish == _ECHO:
                    self.request.sendall(memoryview(buffer)[:got])


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def _serve(address: str, port: int) -> None:
    _Server((address, port), _Handler).serve_forever()


def _measure(place: tuple[str, int]) -> Calibration:
    return Calibration(
        round_trip=_round_trip(place),
        down={str(count): _rate(place, count, _SEND) for count in (1, 8)},
        up={str(count): _rate(place, count, _TAKE) for count in (1, 8)},
    )


def _round_trip(place: tuple[str, int]) -> float:
    with socket.create_connection(place) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(_ECHO)
        seconds = []
        for _ in range(_PINGS):
            began = time.perf_counter()
            connection.sendall(b"x")
            connection.recv(1)
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _rate(place: tuple[str, int], count: int, wish: bytes) -> float:
    """Return the bits per second of some connections together, after slow start."""
    event = selectors.EVENT_READ if wish == _SEND else selectors.EVENT_WRITE
    buffer = bytearray(_BLOCK)
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        connections = []
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(place))
            connection.sendall(wish)
            connection.setblocking(False)
            selector.register(connection, event)
            connections.append(connection)
        begins = time.monotonic() + _WARM_UP_SECONDS
        carried, before = 0, 0
        while (now := time.monotonic()) < begins + _SECONDS:
            if now < begins:
                before = carried
            for key, _ in selector.select(_SECONDS):
                one = key.fileobj
                assert isinstance(one, socket.socket)
                carried += one.recv_into(buffer) if wish == _SEND else one.send(buffer)
    return (carried - before) * 8 / _SECONDS


if __name__ == "__main__":
    _order, _address, _port = sys.argv[1:]
    if _order == "serve":
        _serve(_address, int(_port))
    else:
        print(json.dumps(dataclasses.asdict(_measure((_address, int(_port))))))
