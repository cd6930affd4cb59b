"""Reading of an object in ranges, without a tool around it: what the connection costs alone."""

from __future__ import annotations

import http.client
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

_BUFFER = 1 << 20


def read(url: str, size: int, ranges: int) -> None:
    """Read an object with one ranged GET per thread, and throw the bytes away.

    Args:
        url: A presigned URL.
        size: The object's bytes; at least one.
        ranges: How many requests are sent at the same time.

    Raises:
        OSError: The answers had another number of bytes.
    """
    length = -(-size // ranges)
    firsts = range(0, size, length)
    lasts = [min(first + length, size) - 1 for first in firsts]
    with ThreadPoolExecutor(ranges) as pool:
        got = sum(pool.map(lambda first, last: _read(url, first, last), firsts, lasts))
    if got != size:
        raise OSError(f"read {got} of {size} bytes")


def _read(url: str, first: int, last: int) -> int:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    target = f"{parts.path}?{parts.query}"
    connection.request("GET", target, headers={"Range": f"bytes={first}-{last}"})
    answer = connection.getresponse()
    buffer = memoryview(bytearray(_BUFFER))
    read = 0
    while got := answer.readinto(buffer):
        read += got
    connection.close()
    return read
