"""Archives: zip, tar and tar.gz, in and out.

::

    blob ──▶ readahead ──▶ zipreader / tarreader ──▶ plan ──▶ unpack ──▶ tree
             (threads,      (members, unchecked)     (names,   (files first,
              buffers)                                limits)   links last)

    walk ──▶ portions ──▶ compression ──▶ zipwriter / tarwriter ──▶ a stream of bytes
             (groups,     (in threads,    (in order)
              blocks)      by ordered)

What comes out of an archive is untrusted until :mod:`~cpstage.archive.plan` has admitted it:
names pass :mod:`~cpstage.archive.names`, amounts :mod:`~cpstage.archive.limits`. Nothing here
knows of AWS, and nothing but :mod:`~cpstage.tree` writes to disk.
"""

from cpstage.archive.blob import Blob, BytesBlob, FileBlob
from cpstage.archive.formats import CONTENT_TYPES, HEAD_BYTES, Format, format_of_name, recognise
from cpstage.archive.limits import Limits
from cpstage.archive.pack import DEFAULT_LEVEL, list_entries, pack
from cpstage.archive.readahead import BLOCK, ReadAhead
from cpstage.archive.unpack import Contents, Unpacker

__all__ = [
    "BLOCK",
    "CONTENT_TYPES",
    "DEFAULT_LEVEL",
    "HEAD_BYTES",
    "Blob",
    "BytesBlob",
    "Contents",
    "FileBlob",
    "Format",
    "Limits",
    "ReadAhead",
    "Unpacker",
    "format_of_name",
    "list_entries",
    "pack",
    "recognise",
]
