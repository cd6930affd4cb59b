"""Read an object in four ranges at once, and throw it away: a program of its own.

It does nothing that a fetch does not have to, and so is a measure of the connection.
"""

import http.client
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

_RANGES = 4
_BUFFER = 1 << 20


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


def main(url: str, size: int) -> None:
    length = -(-size // _RANGES)
    firsts = range(0, size, length)
    lasts = [min(first + length, size) - 1 for first in firsts]
    with ThreadPoolExecutor(_RANGES) as pool:
        read = sum(pool.map(lambda first, last: _read(url, first, last), firsts, lasts))
    if read != size:
        raise SystemExit(f"{read} of {size} bytes")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
