"""The end of a zip: end record, comment, zip64 records, and what stands after them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cpstage import Limits
from zip_bytes import DEFLATED, MAX16, MAX32, Entry, directory, file, link, zip_bytes
from zip_checks import accepted, refused

if TYPE_CHECKING:
    from pathlib import Path

ENTRIES = (file("one", b"x" * 99, DEFLATED), directory("d/"), link("d/l", b"../one"))
WHOLE = zip_bytes(*ENTRIES)
START = WHOLE.index(b"PK\1\2")
SIZE = WHOLE.index(b"PK\5\6") - START

WRONG_ENDS = {
    "one record more": {"here": 4, "count": 4},
    "one record less": {"here": 2, "count": 2},
    "no record": {"here": 0, "count": 0},
    "no record in no bytes": {"here": 0, "count": 0, "size": 0},
    "no record after the last": {"here": 0, "count": 0, "size": 0, "offset": START + SIZE},
    "many records": {"here": 0xFFFE, "count": 0xFFFE},
    "fewer records on this disk": {"here": 2},
    "more records on this disk": {"here": 4},
    "no record on this disk": {"here": 0},
    "fewer records in all": {"count": 2},
    "more records in all": {"count": 4},
    "disk 1": {"disk": 1},
    "disk 1 of two": {"disk": 1, "first_disk": 0, "here": 2},
    "directory on disk 1": {"first_disk": 1},
    "both on disk 1": {"disk": 1, "first_disk": 1},
    "last disk": {"disk": MAX16, "first_disk": MAX16},
    "a byte more": {"size": SIZE + 1},
    "a byte less": {"size": SIZE - 1},
    "no bytes": {"size": 0},
    "a record's bytes less": {"size": SIZE - 46 - 3},
    "too many bytes": {"size": 0x7FFFFFFF},
    "all bytes": {"size": START + SIZE, "offset": 0},
    "a byte later": {"offset": START + 1},
    "at its end": {"offset": START + SIZE},
    "beyond the end": {"offset": 0x7FFFFFFF},
    "count in a record that is not there": {"here": MAX16, "count": MAX16},
    "size in a record that is not there": {"size": MAX32},
    "offset in a record that is not there": {"offset": MAX32},
    "all in a record that is not there": {
        "here": MAX16,
        "count": MAX16,
        "size": MAX32,
        "offset": MAX32,
    },
}

WRONG_END64 = {
    "one record more": {"here": 4, "count": 4},
    "one record less": {"here": 2, "count": 2},
    "all records there are": {"here": (1 << 64) - 1, "count": (1 << 64) - 1},
    "fewer records on this disk": {"here": 2},
    "more records in all": {"count": 4},
    "disk 1": {"disk": 1},
    "directory on disk 1": {"first_disk": 1},
    "a byte more": {"size": SIZE + 1},
    "a byte less": {"size": SIZE - 1},
    "too many bytes": {"size": 1 << 63},
    "wrapping round": {"size": (1 << 64) - 1},
    "a byte later": {"offset": START + 1},
    "beyond the end": {"offset": 1 << 40},
    "at the end of all": {"offset": (1 << 64) - 1},
    "a byte too long": {"length": 45},
    "a byte too short": {"length": 43},
    "empty": {"length": 0},
    "endless": {"length": (1 << 64) - 1},
    "without a signature": {"signature": b"PK\0\0"},
}

WRONG_LOCATORS = {
    "a byte earlier": {"offset": START + SIZE - 1},
    "a byte later": {"offset": START + SIZE + 1},
    "at the start": {"offset": 0},
    "at itself": {"offset": START + SIZE + 56},
    "beyond the end": {"offset": 1 << 40},
    "at the end of all": {"offset": (1 << 64) - 1},
    "on disk 1": {"disk": 1},
    "of two disks": {"disks": 2},
    "without a signature": {"signature": b"PK\0\0"},
}


@pytest.mark.parametrize("end", WRONG_ENDS.values(), ids=WRONG_ENDS)
def test_an_end_record_that_is_wrong(tmp_path: Path, end: dict[str, int]) -> None:
    refused(zip_bytes(*ENTRIES, end=end), tmp_path, "directory|multi-disk|zip64|archive|--max")


def test_a_directory_that_begins_before_its_first_record(tmp_path: Path) -> None:
    body = zip_bytes(*ENTRIES, end={"offset": START - 1})

    refused(body, tmp_path, "damaged|header|hides|overlaps", planned=False)


@pytest.mark.parametrize("end", [{"offset": 1}, {"size": 1}, {"size": MAX32}, {"count": 1}])
def test_an_end_record_of_nothing_that_is_wrong(tmp_path: Path, end: dict[str, int]) -> None:
    refused(zip_bytes(end=end), tmp_path, "directory|multi-disk|zip64|archive")


@pytest.mark.parametrize("disk", [1, 2, 0xFFFE])
def test_an_entry_on_another_disk(tmp_path: Path, disk: int) -> None:
    body = zip_bytes(file("good"), Entry("far", b"x", central={"disk": disk}))

    refused(body, tmp_path, "multi-disk", entry="far")


@pytest.mark.parametrize(
    "trailing", [b"x", b"\nx", bytes(99) + b"x", b"x" + bytes(99), b"PK", b"PK\5\6"]
)
def test_data_after_the_end(tmp_path: Path, trailing: bytes) -> None:
    refused(zip_bytes(*ENTRIES, trailing=trailing), tmp_path, "end of central")


@pytest.mark.parametrize("count", [1, 2, 3, 22, 512, 5000])
@pytest.mark.parametrize("comment", [b"", b"comment"])
def test_zeros_after_the_end(tmp_path: Path, count: int, comment: bytes) -> None:
    body = zip_bytes(*ENTRIES, comment=comment, trailing=bytes(count))

    accepted(body, tmp_path, "unzip", "bsdtar")


@pytest.mark.parametrize(
    "comment",
    [b"c", b"PK", b"\xff\xfe\0\r\n\x1b[2J", b"x" * 0xFFFF, bytes(22), b"\0ends in zeros\0\0"],
    ids=["short", "initials", "no text", "longest", "zeros", "zeros at the end"],
)
def test_a_comment(tmp_path: Path, comment: bytes) -> None:
    # bsdtar does not look far enough for a long one.
    accepted(zip_bytes(*ENTRIES, comment=comment), tmp_path, "unzip")


@pytest.mark.parametrize("length", [0, 1, 6, 8, 22, 0xFFFF])
def test_a_comment_of_another_length(tmp_path: Path, length: int) -> None:
    body = zip_bytes(*ENTRIES, comment=b"comment", end={"comment_length": length})

    refused(body, tmp_path, "end of central")


SECOND_ENDS = {
    "at the end of the comment": zip_bytes(),
    "in the middle of the comment": b"before" + zip_bytes() + b"after",
    "with a second comment": b"before" + zip_bytes(comment=b"after"),
    "with a comment that is cut off": zip_bytes(comment=b"after")[:-1],
    "padded": zip_bytes() + bytes(9),
    "of the same directory": WHOLE[START + SIZE :],
    "with its own archive": zip_bytes(file("evil")),
    "twice": zip_bytes() * 2,
}


@pytest.mark.parametrize("second", SECOND_ENDS.values(), ids=SECOND_ENDS)
def test_a_second_end_record_in_the_comment(tmp_path: Path, second: bytes) -> None:
    refused(zip_bytes(*ENTRIES, comment=second), tmp_path, "end of central|several|directory")


@pytest.mark.parametrize("second", SECOND_ENDS.values(), ids=SECOND_ENDS)
def test_a_second_end_record_after_the_first(tmp_path: Path, second: bytes) -> None:
    said = "end of central|several|directory|archive|'evil'"

    refused(zip_bytes(*ENTRIES, trailing=second), tmp_path, said, planned=False)


def test_two_whole_archives(tmp_path: Path) -> None:
    refused(WHOLE + WHOLE, tmp_path, "several|archive", planned=False)


def test_a_zip64_archive_and_one_that_is_none(tmp_path: Path) -> None:
    """A 32-bit end record and a zip64 one, each with another directory."""
    first = zip_bytes(file("one"))
    start = len(first) - 22 - 49
    body = zip_bytes(
        file("two"),
        prefix=first[:-22],
        zip64=True,
        end={"here": 1, "count": 1, "size": 49, "offset": start},
    )

    refused(body, tmp_path, "zip64|disagree")


@pytest.mark.parametrize(
    "entries",
    [
        (Entry("a", b"x" * 99, DEFLATED, zip64=members), file("b"))
        for members in (
            ("size",),
            ("packed",),
            ("offset",),
            ("size", "packed"),
            ("size", "packed", "offset"),
            ("size", "packed", "offset", "disk"),
        )
    ],
    ids=["size", "packed", "offset", "sizes", "sizes and offset", "all"],
)
@pytest.mark.parametrize("zip64", [True, False], ids=["zip64 end", "plain end"])
def test_zip64(tmp_path: Path, entries: tuple[Entry, ...], zip64: bool) -> None:
    found = accepted(zip_bytes(*entries, zip64=zip64), tmp_path, "unzip", "bsdtar")

    assert found["a"] == ("file", False, b"x" * 99)


@pytest.mark.parametrize(
    "end",
    [
        {"here": 3, "count": 3, "size": SIZE, "offset": START},
        {"here": 3, "count": 3},
        {"size": SIZE},
        {"offset": START},
        {"disk": MAX16, "first_disk": MAX16},
    ],
    ids=["all values", "counts", "size", "offset", "disks in zip64"],
)
def test_an_end_record_that_repeats_the_zip64_one(tmp_path: Path, end: dict[str, int]) -> None:
    accepted(zip_bytes(*ENTRIES, zip64=True, end=end), tmp_path, "unzip", "bsdtar")


def test_an_empty_archive_of_zip64(tmp_path: Path) -> None:
    assert accepted(zip_bytes(zip64=True), tmp_path, "unzip", "bsdtar") == {}


@pytest.mark.parametrize("end64", WRONG_END64.values(), ids=WRONG_END64)
def test_a_zip64_end_record_that_is_wrong(tmp_path: Path, end64: dict[str, int]) -> None:
    body = zip_bytes(*ENTRIES, zip64=True, end64=end64)

    refused(body, tmp_path, "zip64|directory|multi-disk|--max|damaged")


@pytest.mark.parametrize(
    "end",
    [
        {"here": 2},
        {"count": 4},
        {"here": 2, "count": 2},
        {"size": SIZE + 1},
        {"offset": START + 1},
        {"offset": 0},
        {"disk": 1},
        {"first_disk": 1},
    ],
)
@pytest.mark.parametrize("others", ["in zip64", "repeated"])
def test_end_records_that_disagree(tmp_path: Path, end: dict[str, int], others: str) -> None:
    said = {"here": 3, "count": 3, "size": SIZE, "offset": START} if others == "repeated" else {}

    refused(
        zip_bytes(*ENTRIES, zip64=True, end={**said, **end}),
        tmp_path,
        "zip64|disagree|multi-disk",
    )


@pytest.mark.parametrize("locator", WRONG_LOCATORS.values(), ids=WRONG_LOCATORS)
def test_a_zip64_locator_that_is_wrong(tmp_path: Path, locator: dict[str, int]) -> None:
    body = zip_bytes(*ENTRIES, zip64=True, locator=locator)

    refused(body, tmp_path, "zip64|directory|damaged")


def test_a_zip64_record_in_the_comment_of_an_entry_is_none(tmp_path: Path) -> None:
    other = zip_bytes(file("evil"), zip64=True)
    records = other[other.index(b"PK\6\6") :]
    body = zip_bytes(Entry("a", b"x", central={"comment": records[:-22]}), file("b"))

    assert set(accepted(body, tmp_path, "unzip", "bsdtar")) == {"a", "b"}


def test_a_zip64_record_within_a_zip64_record(tmp_path: Path) -> None:
    """Some readers follow the locator, and others take what stands before it."""
    outer = zip_bytes(file("one"), zip64=True)
    first, rest = outer.index(b"PK\6\6"), outer.index(b"PK\6\7")
    inner = zip_bytes(file("two"), prefix=outer[:rest], zip64=True)
    end = inner.index(b"PK\6\7", rest + 4)
    longer = (end - first - 12).to_bytes(8, "little")
    locator = inner[end : end + 8] + first.to_bytes(8, "little") + inner[end + 16 : end + 20]
    body = inner[: first + 4] + longer + inner[first + 12 : end] + locator + inner[end + 20 :]

    refused(body, tmp_path, "zip64|hid|record", planned=False)


def test_an_end_record_in_the_comment_of_the_last_entry(tmp_path: Path) -> None:
    """It reaches to the end of the archive, as that of the archive does."""
    comment = zip_bytes(end={"comment_length": 22})
    body = zip_bytes(file("one"), Entry("last", b"x", central={"comment": comment}))

    refused(body, tmp_path, "several|end of central")


def test_more_records_than_the_limit_are_not_even_read(tmp_path: Path) -> None:
    body = zip_bytes(*ENTRIES, zip64=True, end64={"here": 1 << 40, "count": 1 << 40})

    assert "--max-entries" in refused(body, tmp_path, "entries", limits=Limits())
