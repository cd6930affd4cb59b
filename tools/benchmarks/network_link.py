"""A network link of a chosen bandwidth and round trip, between two network namespaces.

Each end is a TUN device. Two processes, one per direction, read the packets of one device, delay
them and write them to the other device: this module is their program too. The kernel's own TCP runs
at both ends, with segments of 1,460 bytes. The devices hand over up to 64 KiB of one connection's
segments at once, as network cards with segmentation offload do. Needs Linux and root.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import time
from collections import deque
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from select import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER = "10.77.0.1"
CLIENT = "10.77.0.2"
_TUN = Path("/dev/net/tun")
_CLONE_NEWNET = 0x40000000
# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4 = 0x01, 0x02
_DEVICE = "wan"
_MTU = 1500
_DEVICE_PACKETS = 10_000
_SPARE_QUEUE = 4_000_000
# linux/virtio_net.h: 10 bytes before each packet, with hdr_len and gso_size at 2.
_VIRTIO = 10
_LENGTHS = struct.Struct("=HH")
_LARGEST = _VIRTIO + 65_536
_BATCH = 16
_ETHERNET = 38
"""Bytes of an Ethernet frame around its IP packet: header, checksum, preamble and gap."""


@dataclass(frozen=True)
class Setting:
    """What a link is like, in both directions.

    Attributes:
        bits: Bits per second, with the headers of Ethernet, IP and TCP.
        round_trip: Seconds.
    """

    bits: float
    round_trip: float

    @property
    def title(self) -> str:
        return f"{self.bits / 1e9:g} Gbit/s, {self.round_trip * 1e3:g} ms"

    @property
    def queue(self) -> float:
        """Bytes that wait to be sent before packets are dropped."""
        return self.bits / 8 * self.round_trip + _SPARE_QUEUE


class Link:
    """Two namespaces: this process moves into that of the servers, and stays there.

    Args:
        stack: What closes the devices; the namespaces end with the processes in them.

    Attributes:
        inside: What a command begins with to run on the client.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._client = _new_end(stack, CLIENT, SERVER)
        namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
        stack.callback(os.close, namespace)
        self.inside = ("nsenter", f"--net=/proc/{os.getpid()}/fd/{namespace}", "--")
        self._server = _new_end(stack, SERVER, CLIENT)

    @contextmanager
    def running(self, setting: Setting) -> Iterator[None]:
        """Pass packets on in both directions.

        Raises:
            RuntimeError: One of the two processes ended early.
        """
        ends = (self._client, self._server)
        with ExitStack() as stack:
            processes = [
                stack.enter_context(_Direction(setting, *one)) for one in (ends, ends[::-1])
            ]
            yield
            if any(one.ended for one in processes):
                raise RuntimeError("the link broke down")


class _Direction:
    """A process that passes packets on from one device to the other."""

    def __init__(self, setting: Setting, source: int, target: int) -> None:
        figures = (setting.bits / 8, setting.round_trip / 2, setting.queue)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, *map(str, (source, target, *figures))],
            stdin=subprocess.PIPE,
            pass_fds=(source, target),
            start_new_session=True,  # Ctrl-C is for the benchmark, which ends this process
        )

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def __enter__(self) -> _Direction:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def obstacle() -> str:
    """Return why this machine cannot have a link; empty if it can."""
    if os.name != "posix" or os.geteuid() != 0:
        return "root is needed for network namespaces"
    if not _TUN.exists():
        return f"{_TUN} is missing: load the kernel module tun"
    for name, package in (("ip", "iproute2"), ("nsenter", "util-linux")):
        if not shutil.which(name):
            return f"{name} is missing: install the Debian package {package}"
    return ""


def transport() -> str:
    """Describe TCP's settings of this namespace; the client's are the same."""
    control, read, written = (
        Path("/proc/sys/net/ipv4", name).read_text().split()[-1]
        for name in ("tcp_congestion_control", "tcp_rmem", "tcp_wmem")
    )
    largest = f"{int(read) / 1e6:.1f} MB to receive, {int(written) / 1e6:.1f} MB to send"
    return f"congestion control {control}; largest buffers of a connection: {largest}"


def _new_end(stack: ExitStack, address: str, peer: str) -> int:
    """Move this process into a new network namespace, and return the TUN device that it has."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot make a network namespace")
    device = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK)
    stack.callback(os.close, device)
    flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", _DEVICE.encode(), flags))
    fcntl.ioctl(device, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4)
    # A run must not begin with what TCP learned about the link in an earlier run.
    Path("/proc/sys/net/ipv4/tcp_no_metrics_save").write_text("1")
    for arguments in (
        "link set lo up",
        f"address add {address} peer {peer} dev {_DEVICE}",
        f"link set {_DEVICE} mtu {_MTU} txqueuelen {_DEVICE_PACKETS} up",
    ):
        subprocess.run(["ip", *arguments.split()], check=True)
    return device


def _pass_on(source: int, target: int, rate: float, delay: float, room: float) -> None:
    """Read packets, and write each when it would arrive; ends when stdin does.

    Args:
        source: The device to read.
        target: The device to write.
        rate: Bytes per second.
        delay: Seconds from the end of sending to arrival.
        room: Bytes that may wait to be sent; further packets are dropped.
    """
    stdin = sys.stdin.fileno()
    coming: deque[tuple[float, bytes]] = deque()
    is_free = 0.0  # when all packets so far are sent
    while True:
        wait = max(0.0, coming[0][0] - time.monotonic()) if coming else None
        ready, _, _ = select([source, stdin], [], [], wait)
        if stdin in ready:
            return
        now = time.monotonic()
        for packet in _read(source) if source in ready else ():
            begins = max(now, is_free)
            if (begins - now) * rate <= room:
                is_free = begins + _wire_size(packet) / rate
                coming.append((is_free + delay, packet))
        while coming and coming[0][0] <= time.monotonic():
            os.write(target, coming.popleft()[1])


def _read(source: int) -> Iterator[bytes]:
    """Yield the packets that are there, up to a number: those that are due must not wait long."""
    for _ in range(_BATCH):
        try:
            yield os.read(source, _LARGEST)
        except BlockingIOError:
            return


def _wire_size(packet: bytes) -> int:
    """Return the bytes that a packet's segments take on an Ethernet."""
    headers: int
    segment: int
    headers, segment = _LENGTHS.unpack_from(packet, 2)
    size = len(packet) - _VIRTIO
    if not segment:
        return size + _ETHERNET
    count = -(-(size - headers) // segment)
    return size - headers + count * (headers + _ETHERNET)


def _main() -> None:
    # By default the kernel wakes a process up to 50 microseconds late.
    Path("/proc/self/timerslack_ns").write_text("1")
    # A packet must not wait for the time slices of tools, as no network card does.
    os.nice(-20)
    source, target = map(int, sys.argv[1:3])
    _pass_on(source, target, *map(float, sys.argv[3:]))


if __name__ == "__main__":
    _main()
