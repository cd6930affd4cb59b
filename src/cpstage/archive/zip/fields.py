"""Signatures, codes and fields of zip (PKWARE APPNOTE 6.3.10), for who reads and who writes it."""

from __future__ import annotations

import struct

LOCAL, RECORD, END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
"""How a local header (4.3.7), a record of the directory (4.3.12) and the end record (4.3.16)
begin."""

SIGNATURES = (LOCAL, RECORD, END)
"""What is none of these has none of them in it."""

DESCRIPTOR, END64, LOCATOR64 = b"PK\7\10", b"PK\6\6", b"PK\6\7"
"""A data descriptor (4.3.9), the zip64 end record (4.3.14) and its locator (4.3.15)."""

END_FIELDS = struct.Struct("<4s4H2LH")
END64_FIELDS = struct.Struct("<4sQ2H2L4Q")
LOCATOR64_FIELDS = struct.Struct("<4sLQL")

MAX16, MAX32 = 0xFFFF, 0xFFFFFFFF
"""What stands in a field whose value is in a zip64 one."""

STORED, DEFLATED, BZIP2, LZMA = 0, 8, 12, 14
"""Compression methods (4.4.5) that are read; of them, the first two are written."""

ENCRYPTED, DESCRIPTOR_FOLLOWS, PATCHED, UTF8_NAME = 0x1 | 0x40 | 0x2000, 0x8, 0x20, 0x800
"""General purpose bits (4.4.4): 0, 6 and 13 all mean some kind of encryption."""

ZIP64, UNICODE_PATH = 0x0001, 0x7075
"""Extra fields (4.5.3, 4.6.9)."""

UNIX, OS_X = 3, 19
"""Systems (4.4.2.2) whose external attributes hold a mode."""

DOS_DIRECTORY = 0x10
"""In the external attributes (4.4.15)."""
