"""What a mutation breaks and no reader gets past, made right again: a fuzzer guesses no checksum.

Only what is needed to get further is repaired, and only where there is something to repair.
"""

from __future__ import annotations

import struct
import zlib

_BLOCK = 512
_CHECKSUM = slice(148, 156)
_LOCAL_BYTES, _CENTRAL_BYTES = 30, 46
_END_BYTES = 22


def tar(body: bytes) -> bytes:
    """Write the right checksum into each header, as far as declared sizes lead from one on."""
    fixed = bytearray(body)
    at = 0
    while at + _BLOCK <= len(fixed):
        header = fixed[at : at + _BLOCK]
        if not any(header):
            break
        header[_CHECKSUM] = b" " * 8
        fixed[at + _CHECKSUM.start : at + _CHECKSUM.stop] = b"%06o\0 " % sum(header)
        at += _BLOCK + -(-_octal(bytes(header[124:136])) // _BLOCK) * _BLOCK
    return bytes(fixed)


def gzip(body: bytes) -> bytes:
    """Compress what is in it again, the tar in it repaired."""
    try:
        return _gzipped(tar(zlib.decompressobj(wbits=31).decompress(body, 1 << 20)))
    except zlib.error:
        return body


def _gzipped(body: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=31)
    return encoder.compress(body) + encoder.flush()


def zip(body: bytes) -> bytes:
    """Let the local headers say what the directory says, and stored data have its CRC-32."""
    fixed = bytearray(body)
    end = fixed.rfind(b"PK\5\6")
    if end < 0 or end + _END_BYTES > len(fixed):
        return body
    count, size = struct.unpack_from("<10xHL", fixed, end)
    at = end - size
    for _ in range(count):
        if at < 0 or at + _CENTRAL_BYTES > end:
            break
        at = _repair_entry(fixed, at)
    return bytes(fixed)


def _repair_entry(fixed: bytearray, at: int) -> int:
    """Repair one entry, and return where the next record of the directory is."""
    flags, method = struct.unpack_from("<8x2H", fixed, at)
    packed, _, name, extra, comment = struct.unpack_from("<20x2L3H", fixed, at)
    (local,) = struct.unpack_from("<42xL", fixed, at)
    start = local + _LOCAL_BYTES
    if start <= len(fixed):
        local_name, local_extra = struct.unpack_from("<26x2H", fixed, local)
        data = start + local_name + local_extra
        if method == 0 and data + packed <= len(fixed):
            crc = zlib.crc32(fixed[data : data + packed])
            struct.pack_into("<L", fixed, at + 16, crc)
        fixed[local + 6 : local + 10] = fixed[at + 8 : at + 12]
        if not flags & 8:
            fixed[local + 14 : local + 26] = fixed[at + 16 : at + 28]
        if name == local_name:
            fixed[start : start + name] = fixed[at + _CENTRAL_BYTES : at + _CENTRAL_BYTES + name]
    following: int = at + _CENTRAL_BYTES + name + extra + comment
    return following


def _octal(field: bytes) -> int:
    digits = field.strip(b"\0 ")
    return int(digits, 8) if digits and not set(digits) - set(b"01234567") else 0
