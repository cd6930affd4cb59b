"""Machines to run one program on each: namespaces of Linux where that is allowed, else processes.

A namespace has only a loopback, from which a relay leads to the local AWS, and
separate processes. What is cut off there is cut off by the kernel; without namespaces a proxy
drops every connection.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from fault_proxy import FaultProxy
from faults import Drop, Fault, Request
from secret_markers import descendants

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_RELAY = str(Path(__file__).with_name("relay.py"))
_PROGRAM = (sys.executable, "-m", "cpstage")
_UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


class Machine(ABC):
    """A machine with one program of cpstage on it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        """Start the program; its stderr goes to a file."""

    @abstractmethod
    def cut_off(self) -> None:
        """Take the network away."""

    def send(self, number: signal.Signals) -> None:
        """Send the program a signal."""
        os.kill(self._pid(), number)

    def wait(self) -> int:
        """Wait for the program, and return its exit code."""
        assert self._process
        return self._process.wait(120)

    def kill(self) -> None:
        """End the program and all that it has started, at once."""
        assert self._process
        for pid in descendants(self._process.pid)[::-1]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def end(self) -> None:
        """See to it that nothing is left."""
        if self._process and self._process.poll() is None:
            self.kill()

    def _run(
        self, arguments: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        home = log.parent
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        with log.open("wb") as file:
            return subprocess.Popen(
                arguments,
                env={**kept, **environment, "HOME": str(home)},
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
            )

    def _pid(self) -> int:
        assert self._process
        return self._process.pid


class Namespaces(Machine):
    """A machine of namespaces.

    Args:
        stack: What takes it away again.
        name: Its name.
        port: The port of the local AWS, which the machine has on its loopback too.
        way: The socket that leads there.
    """

    def __init__(self, stack: ExitStack, name: str, port: int, way: Path) -> None:
        super().__init__()
        self._name = f"cpstage-{os.getpid()}-{name}"
        _ip("netns", "add", self._name)
        stack.callback(_ip, "netns", "delete", self._name)
        self._inside = ("ip", "netns", "exec", self._name)
        _ip("-n", self._name, "link", "set", "lo", "up")
        _relay(stack, (*self._inside,), f"tcp:{port}", f"unix:{way}")
        stack.callback(self.end)

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        command = [*self._inside, *_UNSHARE, *_PROGRAM, *arguments]
        self._process = self._run(command, environment, log)

    def cut_off(self) -> None:
        _ip("-n", self._name, "link", "set", "lo", "down")

    def _pid(self) -> int:
        """The program is the one child of unshare(1)."""
        return descendants(super()._pid())[1]


class Processes(Machine):
    """No machine at all, but a process behind a proxy.

    Args:
        stack: What takes it away again.
        endpoint_url: Where the local AWS is.
    """

    def __init__(self, stack: ExitStack, endpoint_url: str) -> None:
        super().__init__()
        self._cut = _Cut()
        self._proxy = stack.enter_context(FaultProxy(endpoint_url, self._cut))
        stack.callback(self.end)

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        through = {**environment, "AWS_ENDPOINT_URL": self._proxy.url}
        self._process = self._run([*_PROGRAM, *arguments], through, log)

    def cut_off(self) -> None:
        self._cut.is_cut = True


class _Cut:
    """A plan that drops everything once it is told to."""

    is_cut = False

    def choose(self, request: Request) -> Fault | None:
        return Drop() if self.is_cut else None


class Site:
    """Where machines are made; what they share is gone with the stack.

    Args:
        stack: What takes them away again.
        endpoint_url: Where the local AWS is.
    """

    def __init__(self, stack: ExitStack, endpoint_url: str) -> None:
        self._stack = stack
        self._endpoint_url = endpoint_url
        self._port = int(endpoint_url.rpartition(":")[2])
        if has_namespaces():
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="cpstage-relay-"))
            self._way = Path(directory) / "way"
            _relay(stack, (), f"unix:{self._way}", f"tcp:{self._port}")

    def make(self, name: str) -> Machine:
        """Make a machine."""
        if has_namespaces():
            return Namespaces(self._stack, name, self._port, self._way)
        return Processes(self._stack, self._endpoint_url)


@cache
def has_namespaces() -> bool:
    """Whether this machine lets us make namespaces."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare"))):
        return False
    name = f"cpstage-{os.getpid()}-probe"
    try:
        _ip("netns", "add", name)
    except subprocess.CalledProcessError:
        return False
    try:
        probe = ["ip", "netns", "exec", name, *_UNSHARE, "true"]
        return subprocess.run(probe, capture_output=True).returncode == 0
    finally:
        _ip("netns", "delete", name)


def isolation() -> str:
    """Say what separates the machines."""
    if has_namespaces():
        return "each in a network namespace and a process namespace"
    return "each a process behind another proxy"


def _relay(stack: ExitStack, inside: Sequence[str], listen: str, connect: str) -> None:
    relay = subprocess.Popen(
        [*inside, sys.executable, _RELAY, listen, connect], stdout=subprocess.PIPE
    )
    stack.callback(relay.wait)
    stack.callback(relay.kill)
    assert relay.stdout
    assert relay.stdout.readline() == b"ready\n"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
