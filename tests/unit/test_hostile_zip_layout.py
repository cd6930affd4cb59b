"""Where the entries of a zip lie: overlaps, what the directory does not mention, stubs."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cpstage import Limits
from zip_bytes import (
    DEFLATED,
    DESCRIPTOR,
    DESCRIPTOR_FORMS,
    DescriptorForm,
    Entry,
    deflate,
    directory,
    file,
    link,
    local_header,
    zip_bytes,
)
from zip_checks import accepted, refused

if TYPE_CHECKING:
    from pathlib import Path

OVERLAPS = "overlap"
STUB = b"#!/bin/sh\nexit\n"


def quoted(names: list[str], kernel: bytes) -> list[Entry]:
    """Entries that quote the headers of those after them, and share the data of the last.

    The deflate stream of each one has the local header of the next in a stored block, and goes on
    with that one's stream (D. Fifield, A better zip bomb, 2019).
    """
    data, stream, entries = kernel, deflate(kernel), list[Entry]()
    for name in reversed(names):
        entry = Entry(name, data, DEFLATED, stream)
        header = local_header(entry)
        entries.insert(0, entry)
        block = struct.pack("<B2H", 0, len(header), len(header) ^ 0xFFFF) + header
        data, stream = header + data, block + stream
    offset, placed = 0, list[Entry]()
    for entry in entries:
        placed.append(replace(entry, absent=offset > 0, central={"offset": offset}))
        offset += len(local_header(entry)) + 5
    return placed


def test_all_entries_in_one_place(tmp_path: Path) -> None:
    body = zip_bytes(
        file("first", b"x" * 1000),
        *[Entry(f"copy-{n}", b"x" * 1000, absent=True, central={"offset": 0}) for n in range(9)],
    )

    refused(body, tmp_path, OVERLAPS)


def test_all_entries_in_one_place_under_one_name(tmp_path: Path) -> None:
    again = Entry("a", b"x", absent=True, central={"offset": 0})

    refused(zip_bytes(file("a", b"x"), again), tmp_path, f"{OVERLAPS}|twice")


def test_links_in_one_place(tmp_path: Path) -> None:
    """The targets of links are read before anything is written; where they lie comes before."""
    again = Entry("m", b"x", mode=link("m", b"").mode, absent=True, central={"offset": 0})

    refused(zip_bytes(link("l", b"x"), again), tmp_path, OVERLAPS)


def test_directories_in_one_place(tmp_path: Path) -> None:
    again = Entry("e/", mode=directory("e/").mode, absent=True, central={"offset": 0})

    refused(zip_bytes(directory("d/"), again), tmp_path, OVERLAPS)


def test_headers_quoted_in_the_data_of_other_entries(tmp_path: Path) -> None:
    entries = quoted(["a", "b", "c", "d"], bytes(10_000))

    refused(zip_bytes(*entries), tmp_path, OVERLAPS)


def test_an_entry_in_the_stored_data_of_another(tmp_path: Path) -> None:
    inner = file("inner", b"inner")
    data = b"before" + local_header(inner) + b"inner" + b"after"
    body = zip_bytes(
        file("outer", data),
        Entry("inner", b"inner", absent=True, central={"offset": 30 + 5 + 6}),
    )

    refused(body, tmp_path, OVERLAPS)


@pytest.mark.parametrize("more", [1, 2, 30, 1 << 20, 0xFFFFFFFE - 7])
@pytest.mark.parametrize("follower", [[file("next")], []], ids=["entry", "directory"])
def test_an_entry_that_runs_into_what_follows(
    tmp_path: Path, more: int, follower: list[Entry]
) -> None:
    longer = {"packed": 7 + more, "size": 7 + more}
    body = zip_bytes(Entry("long", b"content", local=longer, central=longer), *follower)

    refused(body, tmp_path, OVERLAPS, entry="long", limits=Limits(ratio=1 << 40))


@pytest.mark.parametrize("more", [1, 8])
def test_a_deflated_entry_that_runs_into_what_follows(tmp_path: Path, more: int) -> None:
    data = b"content " * 50
    longer = {"packed": len(deflate(data)) + more}
    body = zip_bytes(Entry("long", data, DEFLATED, local=longer, central=longer), file("next"))

    refused(body, tmp_path, OVERLAPS, entry="long")


def test_an_entry_that_runs_into_the_next_because_of_its_local_extra_field(tmp_path: Path) -> None:
    """How long that is, the directory does not say."""
    stretched = Entry("long", b"content", local={"extra_length": 30})

    refused(zip_bytes(stretched, file("next")), tmp_path, "long", planned=False)


@pytest.mark.parametrize("follower", [[file("next")], []], ids=["entry", "directory"])
def test_an_entry_without_room_for_its_descriptor(tmp_path: Path, follower: list[Entry]) -> None:
    body = zip_bytes(Entry("a", b"x", flags=DESCRIPTOR), *follower)

    refused(body, tmp_path, f"{OVERLAPS}|descriptor", entry="a")


@pytest.mark.parametrize("inside", [0, 1, 46, 60])
def test_an_offset_inside_the_directory(tmp_path: Path, inside: int) -> None:
    first = file("first")
    start = len(local_header(first)) + 7
    body = zip_bytes(first, Entry("odd", absent=True, central={"offset": start + inside}))

    refused(body, tmp_path, OVERLAPS, entry="odd")


@pytest.mark.parametrize("offset", [10_000, 0x7FFFFFFF, 0xFFFFFFFE])
def test_an_offset_beyond_the_end(tmp_path: Path, offset: int) -> None:
    odd = Entry("odd", absent=True, central={"offset": offset})

    refused(zip_bytes(file("first"), odd), tmp_path, OVERLAPS, entry="odd")


@pytest.mark.parametrize("offset", [1 << 32, 1 << 63, (1 << 64) - 1, (1 << 64) - 60])
def test_an_offset_beyond_the_end_by_zip64(tmp_path: Path, offset: int) -> None:
    extra = struct.pack("<2HQ", 1, 8, offset)
    odd = Entry("odd", absent=True, central={"offset": 0xFFFFFFFF, "extra": extra})

    refused(zip_bytes(file("first"), odd), tmp_path, OVERLAPS, entry="odd")


@pytest.mark.parametrize("by", [-1, 1, 4])
def test_an_offset_where_no_local_header_is(tmp_path: Path, by: int) -> None:
    at = len(local_header(file("first"))) + 7 + len(b"room")
    odd = Entry("odd", b"x", before=b"room", central={"offset": at + by, "size": 0, "packed": 0})

    body = zip_bytes(file("first"), odd, gap=b"room")

    refused(body, tmp_path, "'odd'|hides", planned=False)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("hidden", [file("evil"), directory("evil/"), link("evil", b"a")])
def test_an_entry_that_the_directory_does_not_have(
    tmp_path: Path, place: int, hidden: Entry
) -> None:
    entries = [file("one"), file("two")]
    unlisted = Entry(hidden.name, hidden.data, mode=hidden.mode, hidden=True)
    entries.insert(place, unlisted)

    refused(zip_bytes(*entries), tmp_path, "hid|record|directory", planned=False)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_entry_with_a_descriptor_that_the_directory_does_not_have(
    tmp_path: Path, place: int
) -> None:
    entries = [file("one", b"1"), Entry("two", b"2", descriptor="signed")]
    entries.insert(place, Entry("evil", b"x" * 99, DEFLATED, descriptor="signed", hidden=True))

    refused(zip_bytes(*entries), tmp_path, "hid|record|directory", planned=False)


def test_an_entry_that_lies_behind_the_data_of_a_large_one(tmp_path: Path) -> None:
    entries = [file("large", bytes(9 << 20)), Entry("evil", b"x", hidden=True), file("last")]

    refused(zip_bytes(*entries), tmp_path, "hid|record|directory", planned=False)


@pytest.mark.parametrize("room", [0, 4, 20, 21, 22, 23, 24, 25, (8 << 20) - 44, (8 << 20) - 2])
@pytest.mark.parametrize("form", ["none", "signed"])
@pytest.mark.parametrize(
    "kind", [file("a", b"1"), directory("a/"), link("a", b"b")], ids=["f", "d", "l"]
)
def test_an_entry_that_is_hidden_in_a_long_gap(
    tmp_path: Path, room: int, form: DescriptorForm, kind: Entry
) -> None:
    hidden = local_header(file("evil", b"evil")) + b"evil"
    body = zip_bytes(replace(kind, descriptor=form), gap=bytes(room) + hidden + bytes(9 << 20))

    refused(body, tmp_path, "hid|record", planned=False)


@pytest.mark.parametrize("at", [0, (8 << 20) - 3, (8 << 20) - 1, 8 << 20])
def test_an_entry_that_is_hidden_in_a_long_stub(tmp_path: Path, at: int) -> None:
    hidden = local_header(file("evil", b"evil")) + b"evil"
    body = zip_bytes(file("a"), prefix=bytes(at) + hidden + bytes(9 << 20))

    refused(body, tmp_path, "hid|record", planned=False)


@pytest.mark.parametrize("room", [1, 30, 9 << 20])
@pytest.mark.parametrize("form", DESCRIPTOR_FORMS)
def test_room_between_entries_changes_nothing(
    tmp_path: Path, room: int, form: DescriptorForm
) -> None:
    entries = [
        Entry("d/", mode=directory("d/").mode, descriptor=form),
        Entry("d/a", b"1", DEFLATED, descriptor=form, before=bytes(room)),
        Entry("l", b"d", mode=link("l", b"").mode, descriptor=form, before=bytes(room)),
        Entry("empty/", mode=directory("d/").mode, descriptor=form, before=b"x" * room),
    ]

    found = accepted(zip_bytes(*entries, gap=bytes(room)), tmp_path, "unzip")

    assert set(found) == {"d", "d/a", "l", "empty"}


def test_a_directory_that_the_end_record_does_not_point_to(tmp_path: Path) -> None:
    """As an archive that was appended to would have it."""
    older = zip_bytes(file("one", b"1"))
    records = older[older.index(b"PK\1\2") : older.index(b"PK\5\6")]

    refused(zip_bytes(file("one", b"1"), gap=records), tmp_path, "hid|record", planned=False)


def test_the_order_of_the_directory_does_not_matter(tmp_path: Path) -> None:
    body = zip_bytes(file("a/one"), link("l", b"a"), file("two"), order=(2, 0, 1))

    assert set(accepted(body, tmp_path, "unzip", "bsdtar")) == {"a", "a/one", "l", "two"}


@pytest.mark.parametrize("form", DESCRIPTOR_FORMS)
def test_an_archive_in_an_archive_hides_nothing(tmp_path: Path, form: DescriptorForm) -> None:
    inner = zip_bytes(file("inner"), comment=b"inner")
    body = zip_bytes(file("first"), Entry("zip", inner, descriptor=form), file("last"))

    assert accepted(body, tmp_path, "unzip")["zip"] == ("file", False, inner)


@pytest.mark.parametrize("stub", [STUB, b"MZ" + bytes(70_000), bytes(9 << 20), b"\n", b"PK00"])
@pytest.mark.parametrize("adjusted", [True, False], ids=["offsets adjusted", "offsets as before"])
def test_a_stub_before_the_archive(tmp_path: Path, stub: bytes, adjusted: bool) -> None:
    body = zip_bytes(
        file("a/b", b"x" * 99, DEFLATED),
        link("l", b"a"),
        prefix=stub,
        shift=0 if adjusted else len(stub),
    )

    assert set(accepted(body, tmp_path, "unzip")) == {"a", "a/b", "l"}


@pytest.mark.parametrize("adjusted", [True, False], ids=["offsets adjusted", "offsets as before"])
def test_a_stub_before_an_archive_of_zip64(tmp_path: Path, adjusted: bool) -> None:
    entry = Entry("a", b"x" * 99, DEFLATED, zip64=("size", "packed", "offset"))
    body = zip_bytes(entry, prefix=STUB, shift=0 if adjusted else len(STUB), zip64=True)

    assert set(accepted(body, tmp_path, "unzip")) == {"a"}


def test_a_stub_before_an_empty_archive(tmp_path: Path) -> None:
    assert accepted(zip_bytes(prefix=STUB), tmp_path, "bsdtar") == {}


@pytest.mark.parametrize("adjusted", [True, False], ids=["offsets adjusted", "offsets as before"])
@pytest.mark.parametrize(
    "stub",
    [
        zip_bytes(file("other")),
        zip_bytes(file("other"), comment=b"comment"),
        zip_bytes(),
        STUB + zip_bytes(file("other")),
        zip_bytes(file("other")) + bytes(99),
    ],
    ids=["a zip", "with a comment", "empty", "with a stub", "padded"],
)
def test_a_stub_that_is_an_archive(tmp_path: Path, stub: bytes, adjusted: bool) -> None:
    body = zip_bytes(file("last"), prefix=stub, shift=0 if adjusted else len(stub))

    refused(body, tmp_path, "several|archive", planned=False)


def test_a_stub_that_is_an_archive_before_an_empty_one(tmp_path: Path) -> None:
    refused(zip_bytes(prefix=zip_bytes(file("other"))), tmp_path, "several|archive", planned=False)


@pytest.mark.parametrize("shift", [1, 2, 15])
def test_offsets_of_entries_that_count_from_elsewhere_than_the_directorys(
    tmp_path: Path, shift: int
) -> None:
    start = len(STUB) + len(local_header(file("a"))) + 7
    body = zip_bytes(file("a"), prefix=STUB, shift=shift, end={"offset": start})

    refused(body, tmp_path, "damaged|header|overlap", planned=False)
