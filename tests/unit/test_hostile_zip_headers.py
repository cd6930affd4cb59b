"""Local headers, descriptors and extra fields: whatever is said twice has to be said alike."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from zip_bytes import (
    DEFLATED,
    DESCRIPTOR,
    ENCRYPTED,
    MASKED,
    MAX16,
    MAX32,
    PATCHED,
    STORED,
    STRONG,
    UTF8,
    DescriptorForm,
    Entry,
    Fields,
    deflate,
    extra_field,
    file,
    zip64_extra,
    zip_bytes,
)
from zip_checks import accepted, refused

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DATA = b"content " * 50
PACKED = len(deflate(DATA))

LOCAL_LIES: Mapping[str, Fields] = {
    "no signature": {"signature": b"PK\0\0"},
    "a directory record": {"signature": b"PK\1\2"},
    "method stored": {"method": STORED},
    "method 12": {"method": 12},
    "method 99": {"method": 99},
    "encrypted": {"flags": ENCRYPTED},
    "strongly encrypted": {"flags": STRONG | ENCRYPTED},
    "a patch": {"flags": PATCHED},
    "masked": {"flags": MASKED},
    "a descriptor to follow": {"flags": DESCRIPTOR},
    "a descriptor to follow, and zeros": {"flags": DESCRIPTOR, "crc": 0, "packed": 0, "size": 0},
    "another CRC": {"crc": 1},
    "no CRC": {"crc": 0},
    "a byte more packed": {"packed": PACKED + 1},
    "a byte less packed": {"packed": PACKED - 1},
    "nothing packed": {"packed": 0},
    "all packed": {"packed": 0xFFFFFFFE},
    "a byte more": {"size": len(DATA) + 1},
    "a byte less": {"size": len(DATA) - 1},
    "nothing": {"size": 0},
    "all": {"size": 0xFFFFFFFE},
    "zeros without a descriptor": {"crc": 0, "packed": 0, "size": 0},
    "another name": {"name": b"evil"},
    "a name that leaves the tree": {"name": b"../x"},
    "a longer name": {"name": b"file1"},
    "a shorter name": {"name": b"fil"},
    "no name": {"name": b""},
    "a name in capitals": {"name": b"FILE"},
    "a directory's name": {"name": b"file/"},
    "a name spelled otherwise": {"name": b"./file"},
    "a name that is longer than the archive": {"name_length": 0xFFFF},
    "an extra field that is longer than the archive": {"extra_length": 0xFFFF},
    "packed size in zip64 that is not there": {"packed": MAX32},
    "size in zip64 that is not there": {"size": MAX32},
    "zip64 with another size": {
        "size": MAX32,
        "packed": MAX32,
        "extra": zip64_extra(size=len(DATA) + 1, packed=PACKED),
    },
    "zip64 with another packed size": {
        "size": MAX32,
        "packed": MAX32,
        "extra": zip64_extra(size=len(DATA), packed=PACKED + 1),
    },
    "zip64 with the two sizes in the wrong order": {
        "size": MAX32,
        "packed": MAX32,
        "extra": zip64_extra(packed=PACKED, size=len(DATA)),
    },
    "zip64 with one size of two": {
        "size": MAX32,
        "packed": MAX32,
        "extra": zip64_extra(size=len(DATA)),
    },
    "zip64 that is cut off": {
        "size": MAX32,
        "packed": MAX32,
        "extra": zip64_extra(size=len(DATA), packed=PACKED)[:-1],
    },
    "zip64 twice": {
        "size": MAX32,
        "packed": MAX32,
        "extra": zip64_extra(size=len(DATA), packed=PACKED) * 2,
    },
    "zip64 twice, and needed once": {
        "extra": zip64_extra(size=len(DATA), packed=PACKED)
        + zip64_extra(size=len(DATA) + 1, packed=PACKED),
    },
    "a Unicode path beyond its area": {"extra": b"up\xff\xff\1name"},
}

CENTRAL_LIES: Mapping[str, Fields] = {
    "packed size in zip64 that is not there": {"packed": MAX32},
    "size in zip64 that is not there": {"size": MAX32},
    "offset in zip64 that is not there": {"offset": MAX32},
    "disk in zip64 that is not there": {"disk": MAX16},
    "zip64 with nothing in it": {"size": MAX32, "extra": extra_field(1, b"")},
    "zip64 with half a size": {"size": MAX32, "extra": extra_field(1, bytes(4))},
    "zip64 with one size of two": {
        "size": MAX32,
        "packed": MAX32,
        "extra": zip64_extra(size=len(DATA)),
    },
    "zip64 with half an offset": {"offset": MAX32, "extra": extra_field(1, bytes(7))},
    "zip64 with half a disk": {"disk": MAX16, "extra": extra_field(1, bytes(3))},
    "zip64 on disk 1": {"disk": MAX16, "extra": zip64_extra(disk=1)},
    "zip64 twice": {"size": MAX32, "extra": zip64_extra(size=len(DATA)) * 2},
    "zip64 twice, and different": {
        "size": MAX32,
        "extra": zip64_extra(size=len(DATA)) + zip64_extra(size=1),
    },
    "a Unicode path beyond its area": {"extra": b"up\xff\xff\1name"},
    "zip64 beyond its area": {"size": MAX32, "extra": b"\1\0\x10\0" + bytes(8)},
    "a name that is longer than the directory": {"name_length": 0xFFFF},
    "an extra field that is longer than the directory": {"extra_length": 0xFFFF},
    "a comment that is longer than the directory": {"comment_length": 0xFFFF},
    "a comment that ends in the next record": {"comment_length": 10},
    "no signature": {"signature": b"PK\0\0"},
    "a local header's signature": {"signature": b"PK\3\4"},
}


@pytest.mark.parametrize("local", LOCAL_LIES.values(), ids=LOCAL_LIES)
def test_a_local_header_that_disagrees(tmp_path: Path, local: Fields) -> None:
    body = zip_bytes(file("first"), Entry("file", DATA, DEFLATED, local=local), file("last"))

    refused(body, tmp_path, "file header|overlaps|extra field|zip64", entry="file", planned=False)


@pytest.mark.parametrize("central", CENTRAL_LIES.values(), ids=CENTRAL_LIES)
def test_a_directory_record_that_is_wrong(tmp_path: Path, central: Fields) -> None:
    body = zip_bytes(file("first"), Entry("file", DATA, DEFLATED, central=central), file("last"))

    refused(body, tmp_path, "directory|zip64|extra field|multi-disk|record")


@pytest.mark.parametrize(
    "central",
    [
        {"method": STORED, "size": PACKED},
        {"flags": DESCRIPTOR},
        {"crc": 1},
        {"size": len(DATA) + 1},
        {"size": len(DATA) - 1},
        {"packed": PACKED - 1},
        {"name": b"else"},
    ],
    ids=["method", "flags", "crc", "size + 1", "size - 1", "packed - 1", "name"],
)
def test_a_directory_record_that_disagrees(tmp_path: Path, central: Fields) -> None:
    body = zip_bytes(file("first"), Entry("file", DATA, DEFLATED, central=central), gap=bytes(16))

    refused(body, tmp_path, "local file header|descriptor", planned=False)


@pytest.mark.parametrize("flags", [{"local": 0}, {"central": 0}], ids=["local", "directory"])
def test_a_name_that_is_utf8_in_one_place(tmp_path: Path, flags: dict[str, int]) -> None:
    given = {place: {"flags": bits} for place, bits in flags.items()}
    entry = Entry("größe", DATA, local=given.get("local"), central=given.get("central"))

    refused(zip_bytes(entry), tmp_path, "local file header", planned=False)


@pytest.mark.parametrize("bits", [0b010, 0b100, 0b110])
def test_how_hard_it_was_deflated_may_differ(tmp_path: Path, bits: int) -> None:
    body = zip_bytes(Entry("file", DATA, DEFLATED, flags=bits), Entry("other", local={"flags": 2}))

    accepted(body, tmp_path, "unzip", "bsdtar")


def test_times_and_versions_may_differ(tmp_path: Path) -> None:
    body = zip_bytes(Entry("file", DATA, local={"time": 1, "date": 33, "needed": 10}))

    accepted(body, tmp_path, "unzip", "bsdtar")


@pytest.mark.parametrize("form", ["signed", "bare", "signed64", "bare64"])
@pytest.mark.parametrize("method", [STORED, DEFLATED], ids=["stored", "deflated"])
@pytest.mark.parametrize("sizes", ["zeros", "right", "crc alone", "zip64"])
def test_a_descriptor(tmp_path: Path, form: DescriptorForm, method: int, sizes: str) -> None:
    packed = len(DATA) if method == STORED else PACKED
    right = Entry("", DATA).shared["crc"]
    local: dict[str, Fields] = {
        "zeros": {},
        "right": {"crc": right, "packed": packed, "size": len(DATA)},
        "crc alone": {"crc": right},
        "zip64": {"packed": MAX32, "size": MAX32, "extra": zip64_extra(size=0, packed=0)},
    }
    entry = Entry("file", DATA, method, descriptor=form, local=local[sizes])
    empty = Entry("empty", b"", STORED, descriptor=form)

    accepted(zip_bytes(entry, empty, file("last")), tmp_path, "unzip")


@pytest.mark.parametrize("form", ["signed", "bare", "signed64", "bare64"])
@pytest.mark.parametrize("lie", ["crc", "packed", "size"])
@pytest.mark.parametrize("by", [1, -1, 1 << 31])
@pytest.mark.parametrize("follower", [[file("last")], []], ids=["entry", "directory"])
def test_a_descriptor_that_disagrees(
    tmp_path: Path, form: DescriptorForm, lie: str, by: int, follower: list[Entry]
) -> None:
    entry = Entry("file", DATA, DEFLATED, descriptor=form)
    value = entry.shared[lie]
    assert isinstance(value, int)
    wrong = {lie: (value + by) % (1 << 32)}
    body = zip_bytes(Entry("file", DATA, DEFLATED, descriptor=form, described=wrong), *follower)

    refused(body, tmp_path, "descriptor", entry="file", planned=False)


@pytest.mark.parametrize("lie", ["crc", "packed", "size"])
@pytest.mark.parametrize("value", [1, 0xFFFFFFFE])
def test_a_local_header_that_knows_better_than_the_descriptor(
    tmp_path: Path, lie: str, value: int
) -> None:
    entry = Entry("file", DATA, DEFLATED, descriptor="signed", local={lie: value})

    refused(zip_bytes(entry), tmp_path, "local file header", entry="file", planned=False)


def test_a_zip64_local_header_that_knows_better_than_the_descriptor(tmp_path: Path) -> None:
    local: Fields = {"packed": MAX32, "size": MAX32, "extra": zip64_extra(size=1, packed=PACKED)}
    entry = Entry("file", DATA, DEFLATED, descriptor="signed64", local=local)

    refused(zip_bytes(entry), tmp_path, "local file header", entry="file", planned=False)


@pytest.mark.parametrize(
    "instead", [b"", bytes(16), bytes(24), b"PK\7\x08" + bytes(12), b"PK\7\x08", b"x" * 12]
)
def test_a_descriptor_that_is_missing(tmp_path: Path, instead: bytes) -> None:
    local: Fields = {"crc": 0, "packed": 0, "size": 0}
    entry = Entry("file", DATA, DEFLATED, flags=DESCRIPTOR, local=local)
    last = Entry("last", b"x", before=instead)

    refused(zip_bytes(entry, last), tmp_path, "descriptor|overlaps", entry="file", planned=False)


@pytest.mark.parametrize(
    "entry",
    [
        Entry("d/", mode=stat.S_IFDIR | 0o755, local={"crc": 5}),
        Entry("d/", mode=stat.S_IFDIR | 0o755, local={"size": 5}),
        Entry("d/", mode=stat.S_IFDIR | 0o755, local={"name": b"e/"}),
        Entry("d/", mode=stat.S_IFDIR | 0o755, local={"flags": DESCRIPTOR}),
        Entry("d/", mode=stat.S_IFDIR | 0o755, descriptor="signed", described={"size": 5}),
        Entry("d/", mode=stat.S_IFDIR | 0o755, local={"signature": b"PK\0\0"}),
    ],
    ids=["crc", "size", "name", "flags", "descriptor", "signature"],
)
def test_the_local_header_of_a_directory_counts_too(tmp_path: Path, entry: Entry) -> None:
    refused(
        zip_bytes(entry, file("last")), tmp_path, "header|descriptor", entry="d/", planned=False
    )


@pytest.mark.parametrize("lie", ["name", "crc", "size", "method", "flags", "signature"])
def test_the_local_header_of_a_link_counts_too(tmp_path: Path, lie: str) -> None:
    """It is read for its target before anything is written."""
    mode = stat.S_IFLNK | 0o777
    wrong: Fields = {lie: b"e" if lie == "name" else b"PK\0\0" if lie == "signature" else 8}
    body = zip_bytes(file("good"), Entry("l", b"good", mode=mode, local=wrong))

    refused(body, tmp_path, "local file header|overlaps", entry="l")


@pytest.mark.parametrize(
    "extra",
    [
        extra_field(0x5455, b"\1" + bytes(4)) + extra_field(0x7875, b"\1\4" + bytes(4)),
        extra_field(0x000A, bytes(32)),
        extra_field(0xCAFE, b""),
        extra_field(0x9999, b"unknown") * 3,
        extra_field(0x9999, b"PK\3\4PK\1\2PK\5\6"),
        b"\0\0\0",
        b"",
    ],
    ids=["Unix", "NTFS", "jar", "repeated", "signatures", "aligned", "none"],
)
def test_extra_fields_that_say_nothing_of_interest(tmp_path: Path, extra: bytes) -> None:
    body = zip_bytes(
        Entry("both", DATA, DEFLATED, extra=extra),
        Entry("local", DATA, local={"extra": extra}),
        Entry("directory", DATA, central={"extra": extra}),
    )

    accepted(body, tmp_path, "unzip", "bsdtar")


def test_encryption_in_the_directory_alone(tmp_path: Path) -> None:
    body = zip_bytes(file("good"), Entry("file", DATA, central={"flags": ENCRYPTED | UTF8}))

    refused(body, tmp_path, "encrypted", entry="file")
