"""The end records of a zip archive (PKWARE APPNOTE 6.3.10, sections 4.3.14 to 4.3.16).

Readers look for the end record from the end, and take what they find; here there has to be one that
they all find, and all that it says has to agree.
"""

from __future__ import annotations

from dataclasses import dataclass

from cpstage.archive.zip.fields import (
    END,
    END64,
    END64_FIELDS,
    END_FIELDS,
    LOCATOR64,
    LOCATOR64_FIELDS,
    MAX16,
    MAX32,
)
from cpstage.errors import ArtifactRejected

_MOST_COMMENT = MAX16


@dataclass(frozen=True)
class Ends:
    """What the end records say, in places from the start of the archive.

    Attributes:
        count: Records of the directory.
        size: Bytes of it.
        start: Where it begins.
        shift: How much later everything is than the archive says, behind a self-extractor.
    """

    count: int
    size: int
    start: int
    shift: int


def read_ends(tail: bytes, offset: int) -> Ends:
    """Find the end record (4.3.16), and the zip64 ones (4.3.14, 4.3.15) where there are any.

    Args:
        tail: The last bytes of the archive.
        offset: Where they begin in it.

    Raises:
        ArtifactRejected: There is none or more than one, or they contradict themselves.
    """
    at = tail.rfind(END, max(0, len(tail) - END_FIELDS.size - _MOST_COMMENT - END_FIELDS.size))
    if at < 0 or at + END_FIELDS.size > len(tail):
        raise damaged("it has no end record: it is cut off, or no zip")
    _, disk, first_disk, here, count, size, start, comment = END_FIELDS.unpack_from(tail, at)
    after = at + END_FIELDS.size + comment
    if tail[after:].strip(b"\0") or after > len(tail):
        raise damaged("there is data after its end record, or the record's comment is cut off")
    _refuse_another_end(tail, at)
    end, shift = at, None
    if tail[max(0, at - LOCATOR64_FIELDS.size) : at].startswith(LOCATOR64):
        large, end, shift = _read_end64(tail, offset, at)
        small = (disk, first_disk, here, count, size, start)
        limits = (MAX16,) * 4 + (MAX32,) * 2
        if any(s not in (value, most) for s, value, most in zip(small, large, limits, strict=True)):
            raise damaged("its end record and its zip64 end record disagree")
        disk, first_disk, here, count, size, start = large
    if disk or first_disk or here != count:
        raise damaged("it is one volume of several")
    begin = offset + end - size
    if begin < start or shift not in (None, begin - start):
        raise damaged("its directory is not where its end record says")
    return Ends(count, size, begin, begin - start)


def _read_end64(tail: bytes, offset: int, at: int) -> tuple[tuple[int, ...], int, int]:
    """Read the zip64 locator and the record it points to.

    Returns:
        Disk, first disk, two counts, size and start of the directory; where the record begins in
        the tail; and how much less than that, from the start of the blob, the locator says.
    """
    locator = at - LOCATOR64_FIELDS.size
    _, disk, said, disks = LOCATOR64_FIELDS.unpack_from(tail, locator)
    record = said - offset
    if tail[max(0, record) : record + 4] != END64 or record < 0:
        # Behind a self-extractor that was put before an archive, places have shifted.
        record = locator - END64_FIELDS.size
    is_there = record >= 0 and tail[record : record + 4] == END64
    if disk or disks > 1 or not is_there or record + END64_FIELDS.size > len(tail):
        raise damaged("its zip64 locator does not point at its record")
    _, length, _, _, *values = END64_FIELDS.unpack_from(tail, record)
    if record + 12 + length != locator or length != END64_FIELDS.size - 12:
        raise damaged("its zip64 end record has a wrong length")
    return tuple(values), record, offset + record - said


def _refuse_another_end(tail: bytes, at: int) -> None:
    """Refuse a second end record that reaches to the end too: readers would differ."""
    other = tail.find(END, max(0, len(tail) - END_FIELDS.size - _MOST_COMMENT))
    while 0 <= other < at:
        if other + END_FIELDS.size <= len(tail):
            comment = END_FIELDS.unpack_from(tail, other)[-1]
            if other + END_FIELDS.size + comment == len(tail):
                raise damaged("it has several end records")
        other = tail.find(END, other + 1)


def damaged(why: str) -> ArtifactRejected:
    """Return the error for an archive whose own records cannot be believed."""
    return ArtifactRejected(f"the archive is damaged: {why}")
