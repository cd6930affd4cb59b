"""Servers as child processes: started, waited for, measured and ended.

What they serve is not known here.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

LOOPBACK = "127.0.0.1"
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Tls:
    """Files for TLS, in PEM: the servers' certificate with its key, and the clients' CA bundle."""

    certificate: Path
    ca: Path


@dataclass(frozen=True)
class Network:
    """How tools reach the servers.

    Attributes:
        address: Where the servers listen for tools.
        tls: For HTTPS; None for HTTP.
        inside: What a command begins with to run where the tools are.
    """

    address: str = LOOPBACK
    tls: Tls | None = None
    inside: Sequence[str] = ()

    def url(self, port: int) -> str:
        return f"{'https' if self.tls else 'http'}://{self.address}:{port}"


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [int(one.getsockname()[1]) for one in sockets]


def listens(port: int, address: str = LOOPBACK) -> bool:
    with socket.socket() as one:
        return one.connect_ex((address, port)) == 0


class Server:
    """A server that runs as long as the context does.

    Its end is abrupt: what a benchmark's server holds is thrown away anyway.
    """

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self._name = Path(command[0]).name
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,  # Ctrl-C is for the benchmark, which still needs it then
            )

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until it answers.

        Raises:
            RuntimeError: It ended, or did not answer in time.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = self._log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self._name} did not come up:\n{tail}")
            time.sleep(_POLL_SECONDS)

    def cpu_seconds(self) -> float:
        """Return the processor time it has used so far; 0 where there is no /proc."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        # proc(5): utime and stime are the 14th and 15th field, and two have been cut off.
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
