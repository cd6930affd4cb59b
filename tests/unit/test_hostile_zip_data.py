"""The data of zip entries: methods, damage, sizes that lie, and limits on what comes out."""

from __future__ import annotations

import os
import random
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cpstage import Limits
from zip_bytes import (
    BZIP2,
    DEFLATED,
    ENCRYPTED,
    LZMA,
    LZMA_END_MARKER,
    MASKED,
    PATCHED,
    STORED,
    STRONG,
    Entry,
    Fields,
    compress,
    deflate,
    directory,
    file,
    link,
    zip_bytes,
)
from zip_checks import accepted, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

DATA = b"content " * 50
METHODS = {"stored": STORED, "deflated": DEFLATED, "bzip2": BZIP2, "lzma": LZMA}
PACKERS = {name: method for name, method in METHODS.items() if method}

DAMAGED = "is damaged|stream|declare|LZMA"

LZMA_WITHOUT_MARKER = bytes.fromhex("0914 0500 5d 00000100 00319bca19daeda4f2f5120f5d49e00000")
"""DATA as 7-Zip packs it for its own format, where the length alone ends a stream."""


def lying(entry: Entry, **fields: int) -> Entry:
    """The same entry with fields that both headers have wrong."""
    return replace(entry, local=fields, central=fields)


def written(root: Path) -> int:
    """How many bytes of files there are below a directory."""
    return sum(path.lstat().st_size for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize(
    "data", [b"", b"x", DATA, random.Random(1).randbytes(300_000), bytes(3 << 20)]
)
def test_what_was_packed_comes_out(tmp_path: Path, method: int, data: bytes) -> None:
    entry = Entry("a/file", data, method)
    reader = "bsdtar" if method == LZMA else "unzip"

    found = accepted(zip_bytes(file("first"), entry, file("last")), tmp_path, reader)

    assert found["a/file"] == ("file", False, data)


def test_lzma_with_and_without_an_end_marker(tmp_path: Path) -> None:
    body = zip_bytes(
        Entry("with", DATA, LZMA),
        Entry("without", DATA, LZMA, LZMA_WITHOUT_MARKER),
    )

    accepted(body, tmp_path, "bsdtar")


def test_data_of_several_deflate_blocks(tmp_path: Path) -> None:
    encoder = zlib.compressobj(9, zlib.DEFLATED, -15)
    stream = b""
    for flush in (zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_PARTIAL_FLUSH, zlib.Z_FINISH):
        stream += encoder.compress(DATA) + encoder.flush(flush)

    accepted(zip_bytes(Entry("file", DATA * 4, DEFLATED, stream)), tmp_path, "unzip", "bsdtar")


@pytest.mark.parametrize(
    "method",
    [1, 2, 3, 4, 5, 6, 7, 10, 11, 13, 15, 18, 19, 20, 93, 94, 95, 96, 97, 98, 99, 0xFFFF],
)
def test_a_method_that_is_not_supported(tmp_path: Path, method: int) -> None:
    body = zip_bytes(file("good"), Entry("odd", DATA, method))

    refused(body, tmp_path, "which is not supported", entry="odd")


@pytest.mark.parametrize("data", [b"", DATA], ids=["empty", "data"])
def test_a_method_that_is_not_supported_in_an_empty_entry_or_a_directory(
    tmp_path: Path, data: bytes
) -> None:
    odd = Entry("odd", data, 99) if data else replace(directory("odd/"), method=99)

    refused(zip_bytes(file("good"), odd), tmp_path, "AES encryption, which is not supported")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (ENCRYPTED, "encrypted"),
        (ENCRYPTED | STRONG, "encrypted"),
        (STRONG, "encrypted"),
        (MASKED, "encrypted|masked"),
        (PATCHED, "patch"),
    ],
    ids=["encrypted", "strongly", "strong alone", "masked", "patch"],
)
@pytest.mark.parametrize("method", [STORED, DEFLATED, 99], ids=["stored", "deflated", "AES"])
def test_an_entry_that_cannot_be_read(tmp_path: Path, flags: int, says: str, method: int) -> None:
    body = zip_bytes(file("good"), Entry("secret", DATA, method, flags=flags))

    refused(body, tmp_path, f"{says}|method 99", entry="secret")


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("size", [1, 400, 300_000])
def test_a_crc_that_is_wrong(tmp_path: Path, method: int, size: int) -> None:
    wrong = lying(Entry("bad", b"x" * size, method), crc=zlib.crc32(b"x" * size) ^ 1)

    refused(zip_bytes(file("good"), wrong), tmp_path, "CRC", entry="bad", planned=False)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_crc_of_nothing_that_is_wrong(tmp_path: Path, method: int) -> None:
    wrong = lying(Entry("bad", b"", method), crc=1)

    refused(zip_bytes(file("good"), wrong), tmp_path, "CRC", entry="bad", planned=False)


@pytest.mark.parametrize("method", PACKERS.values(), ids=PACKERS)
@pytest.mark.parametrize("by", [1, 2, 399])
def test_fewer_bytes_than_declared(tmp_path: Path, method: int, by: int) -> None:
    stream = compress(method, DATA[:-by])
    flags = LZMA_END_MARKER if method == LZMA else 0
    short = Entry("bad", DATA, method, stream, flags=flags)

    refused(zip_bytes(file("good"), short), tmp_path, "fewer", entry="bad", planned=False)


@pytest.mark.parametrize("method", PACKERS.values(), ids=PACKERS)
@pytest.mark.parametrize("more", [1, 100, 1 << 20, 80 << 20])
def test_more_bytes_than_declared(tmp_path: Path, method: int, more: int) -> None:
    stream = compress(method, DATA + bytes(more))
    flags = LZMA_END_MARKER if method == LZMA else 0
    long = Entry("bad", DATA, method, stream, flags=flags)

    refused(zip_bytes(long), tmp_path, "more|damaged|end", entry="bad", planned=False)

    assert written(tmp_path / "above/into") <= len(DATA)


@pytest.mark.parametrize("method", PACKERS.values(), ids=PACKERS)
@pytest.mark.parametrize("declared", [0, 1])
def test_bytes_where_none_or_one_is_declared(tmp_path: Path, method: int, declared: int) -> None:
    flags = LZMA_END_MARKER if method == LZMA else 0
    long = Entry("bad", DATA[:declared], method, compress(method, DATA), flags=flags)

    refused(zip_bytes(long), tmp_path, "more|damaged|end", entry="bad", planned=False)

    assert written(tmp_path / "above/into") <= declared


@pytest.mark.parametrize("method", PACKERS.values(), ids=PACKERS)
@pytest.mark.parametrize("after", [b"\0", b"x", b"PK", bytes(99), b"stream"])
def test_bytes_after_the_end_of_the_stream(tmp_path: Path, method: int, after: bytes) -> None:
    flags = LZMA_END_MARKER if method == LZMA else 0
    follows = compress(method, DATA) if after == b"stream" else after
    late = Entry("bad", DATA, method, compress(method, DATA) + follows, flags=flags)

    refused(zip_bytes(late), tmp_path, "after the end|more|damaged", entry="bad", planned=False)


@pytest.mark.parametrize("method", PACKERS.values(), ids=PACKERS)
def test_a_stream_that_is_cut_off_anywhere(tmp_path: Path, method: int) -> None:
    data = random.Random(2).randbytes(40) + b"content"
    stream = compress(method, data)
    flags = LZMA_END_MARKER if method == LZMA else 0
    for length in range(len(stream)):
        cut = Entry("bad", data, method, stream[:length], flags=flags)
        body = zip_bytes(cut)

        refused(body, tmp_path / str(length), DAMAGED, entry="bad", planned=False)


@pytest.mark.parametrize("method", PACKERS.values(), ids=PACKERS)
@pytest.mark.parametrize("seed", range(8))
def test_garbage(tmp_path: Path, method: int, seed: int) -> None:
    garbage = random.Random(seed).randbytes(200)
    bad = Entry("bad", DATA, method, garbage)

    refused(zip_bytes(file("good"), bad), tmp_path, DAMAGED, entry="bad", planned=False)


@pytest.mark.parametrize(
    "stream",
    [
        b"\x07",
        b"\x06",
        b"\x01\x05\x00\xfa\xfe",
        b"\x01\x05\x00\x00\x00hello",
        b"\x03\x02\x00",
        b"\x05" + b"\xff" * 30,
        b"\x4b\x04\x82\x00",
    ],
    ids=[
        "reserved block type",
        "reserved block type, not the last",
        "stored block without its bytes",
        "stored block with lengths that disagree",
        "distance before the start",
        "bad code lengths",
        "distance beyond the start",
    ],
)
def test_deflate_streams_that_are_against_the_rules(tmp_path: Path, stream: bytes) -> None:
    refused(
        zip_bytes(Entry("bad", DATA, DEFLATED, stream)),
        tmp_path,
        DAMAGED,
        entry="bad",
        planned=False,
    )


@pytest.mark.parametrize("dictionary", [b"\xff" * 4, b"\0\0\0\x80"])
def test_lzma_that_asks_for_all_memory(tmp_path: Path, dictionary: bytes) -> None:
    stream = compress(LZMA, DATA)
    bad = Entry("bad", DATA, LZMA, stream[:5] + dictionary + stream[9:], flags=LZMA_END_MARKER)

    refused(zip_bytes(bad), tmp_path, "LZMA", entry="bad", planned=False)


@pytest.mark.parametrize("properties", [b"\xe1", b"\xff"])
def test_lzma_with_properties_that_there_are_none_of(tmp_path: Path, properties: bytes) -> None:
    stream = compress(LZMA, DATA)
    bad = Entry("bad", DATA, LZMA, stream[:4] + properties + stream[5:], flags=LZMA_END_MARKER)

    refused(zip_bytes(bad), tmp_path, "LZMA", entry="bad", planned=False)


LARGE_DAMAGE: Mapping[str, Callable[[Entry], Entry]] = {
    "CRC": lambda entry: lying(entry, crc=1),
    "declared a byte less": lambda entry: lying(entry, size=len(entry.data) - 1),
    "declared a byte more": lambda entry: lying(entry, size=len(entry.data) + 1),
    "cut off": lambda entry: replace(entry, stream=entry.packed[:-1]),
    "followed by a byte": lambda entry: replace(entry, stream=entry.packed + b"x"),
    "followed by megabytes": lambda entry: replace(entry, stream=entry.packed + bytes(9 << 20)),
    "local header": lambda entry: replace(entry, local={"crc": 1}),
    "descriptor": lambda entry: replace(entry, descriptor="bare", described={"size": 1}),
}


@pytest.fixture(scope="module")
def large() -> Entry:
    data = random.Random(3).randbytes(10 << 20)
    return Entry("large", data, DEFLATED, deflate(data))


@pytest.mark.parametrize("damaged", LARGE_DAMAGE.values(), ids=LARGE_DAMAGE)
def test_damage_to_an_entry_of_many_blocks(
    tmp_path: Path, large: Entry, damaged: Callable[[Entry], Entry]
) -> None:
    body = zip_bytes(file("good"), damaged(large), file("last"))

    refused(body, tmp_path, f"{DAMAGED}|header|descriptor", entry="large", planned=False)

    assert written(tmp_path / "above/into") <= len(large.data) + 2 * len(b"content")


@pytest.mark.parametrize("by", [1, -1, 100, 1 << 20])
def test_a_stored_entry_of_two_lengths(tmp_path: Path, by: int) -> None:
    wrong = lying(Entry("bad", DATA), size=len(DATA) + by)

    refused(zip_bytes(file("good"), wrong), tmp_path, "stored", entry="bad")


@pytest.mark.parametrize(
    ("limits", "option"),
    [
        (Limits(size=999), "--max-size"),
        (Limits(entries=2), "--max-entries"),
        (Limits(depth=3), "--max-depth"),
        (Limits(header=10), "--max-header"),
    ],
)
def test_a_limit_names_its_option(tmp_path: Path, limits: Limits, option: str) -> None:
    entries: Sequence[Entry] = [
        file("a", b"x" * 500),
        replace(link("l", b"a"), central={"comment": b"x" * 4000}),
        Entry("b", b"x" * 500, DEFLATED),
        file("c/d/e/f", b""),
    ]

    refused(zip_bytes(*entries), tmp_path, option, limits=limits)


def test_what_is_just_within_the_limits(tmp_path: Path) -> None:
    entries = [file("a", b"x" * 500), Entry("b", b"x" * 500, DEFLATED), directory("c/d/e/")]
    # Of the directories two are only implied.
    exact = Limits(size=1000, entries=5, depth=3)

    accepted(zip_bytes(*entries), tmp_path, "unzip", limits=exact)


def test_directories_that_are_only_implied_are_entries_too(tmp_path: Path) -> None:
    body = zip_bytes(*[file(f"{index}/" + "d/" * 50 + "f") for index in range(10)])

    refused(body, tmp_path, "--max-entries", limits=Limits(entries=400))


def test_a_directory_of_comments(tmp_path: Path) -> None:
    body = zip_bytes(*[Entry(str(n), central={"comment": b"x" * 0xFFFF}) for n in range(20)])

    refused(body, tmp_path, "--max-header")


def test_a_directory_that_is_longer_than_what_is_read_at_once(tmp_path: Path) -> None:
    body = zip_bytes(*[Entry(str(n), central={"comment": b"x" * 0xFFFF}) for n in range(40)])

    found = accepted(body, tmp_path, "unzip", limits=Limits(header=10 << 20))

    assert len(found) == 40


def test_a_bomb(tmp_path: Path) -> None:
    refused(
        zip_bytes(file("good"), Entry("zeros", bytes(80 << 20), DEFLATED)), tmp_path, "--max-ratio"
    )


def test_a_bomb_in_many_entries(tmp_path: Path) -> None:
    zeros = bytes(8 << 20)
    stream, crc = deflate(zeros), zlib.crc32(zeros)
    size: Fields = {"size": len(zeros), "crc": crc}
    entries = [Entry(f"{n}", b"", DEFLATED, stream, local=size, central=size) for n in range(10)]

    refused(zip_bytes(*entries), tmp_path, "--max-ratio")


def test_a_ratio_below_64_mib_is_no_bomb(tmp_path: Path) -> None:
    found = accepted(zip_bytes(Entry("zeros", bytes(8 << 20), DEFLATED)), tmp_path, "unzip")

    assert found["zeros"] == ("file", False, bytes(8 << 20))


@pytest.mark.parametrize("size", [65 << 20, 0xFFFFFFFE])
def test_a_bomb_that_is_none(tmp_path: Path, size: int) -> None:
    """What an entry declares counts before anything of it is unpacked."""
    body = zip_bytes(file("good"), lying(Entry("bad", DATA, DEFLATED), size=size))

    refused(body, tmp_path, "--max-ratio")


def test_the_damaged_one_of_many(tmp_path: Path) -> None:
    """So many that several workers have their part, and one of them finds it."""
    entries = [file(f"{n % 7}/{n}", str(n).encode()) for n in range(1500)]
    entries[1200] = lying(entries[1200], crc=1)

    refused(zip_bytes(*entries), tmp_path, "CRC", entry="3/1200", planned=False)


def test_many_entries(tmp_path: Path) -> None:
    entries = [Entry(f"{n % 7}/{n}", os.urandom(n % 50), n % 2 * DEFLATED) for n in range(1500)]

    accepted(zip_bytes(*entries, link("l", b"1/1")), tmp_path, "unzip")
