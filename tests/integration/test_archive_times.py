"""mtimes and permission bits: from archives to files, and from files to archives."""

from __future__ import annotations

import os
import stat
import struct
import time
from pathlib import Path

import pytest

from cpstage.archive.options import ExtractOptions
from tar_bytes import header, member, pax, record, tar
from trees import needs
from unpacked_archives import unpack
from zip_bytes import FAT, Entry, extra_field, zip_bytes

WINTER = 1_500_000_001
OLD = -86_400


def timestamp(seconds: int) -> bytes:
    """Info-ZIP's extended timestamp, with an mtime alone."""
    return extra_field(0x5455, struct.pack("<Bl", 1, seconds))


def ntfs(seconds: int, tenths_of_us: int = 0) -> bytes:
    ticks = (seconds + 11_644_473_600) * 10**7 + tenths_of_us
    return extra_field(0x0A, struct.pack("<L2H3Q", 0, 1, 24, ticks, ticks, ticks))


def mtime_ns(path: Path) -> int:
    return path.lstat().st_mtime_ns


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize(
    ("extra", "expected_ns"),
    [
        (timestamp(WINTER), WINTER * 10**9),
        (timestamp(OLD), OLD * 10**9),
        (ntfs(WINTER, 1234567), WINTER * 10**9 + 123456700),
        (extra_field(0x5855, struct.pack("<2l", 1, WINTER)), WINTER * 10**9),
        (extra_field(0x000D, struct.pack("<2l2H", 1, WINTER, 0, 0)), WINTER * 10**9),
        (ntfs(5) + timestamp(WINTER), WINTER * 10**9),
    ],
)
def test_a_zip_entry_gets_the_mtime_of_its_extra_field(
    tmp_path: Path, extra: bytes, expected_ns: int
) -> None:
    entries = (Entry("d/", extra=extra, mode=0o40755), Entry("d/f", b"x", extra=extra))
    unpack(zip_bytes(*entries), tmp_path / "t")
    assert mtime_ns(tmp_path / "t/d/f") == expected_ns
    assert mtime_ns(tmp_path / "t/d") == expected_ns


def test_an_extra_field_of_the_local_header_alone_counts(tmp_path: Path) -> None:
    entry = Entry("f", b"x", local={"extra": timestamp(WINTER)})
    unpack(zip_bytes(entry), tmp_path / "t")
    assert mtime_ns(tmp_path / "t/f") == WINTER * 10**9


def test_a_dos_time_is_local(tmp_path: Path) -> None:
    shared = {"time": 12 << 11 | 30 << 5 | 7, "date": (2021 - 1980) << 9 | 7 << 5 | 4}
    unpack(zip_bytes(Entry("f", b"x", local=shared, central=shared)), tmp_path / "t")
    expected = time.mktime((2021, 7, 4, 12, 30, 14, 0, 0, -1))
    assert (tmp_path / "t/f").stat().st_mtime == expected


def test_a_zip_date_of_zero_is_accepted(tmp_path: Path) -> None:
    zero = {"time": 0, "date": 0}
    unpack(zip_bytes(Entry("f", b"x", local=zero, central=zero)), tmp_path / "t")
    assert (tmp_path / "t/f").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("records", "expected_ns"),
    [
        ({}, WINTER * 10**9),
        ({"mtime": b"1500000000.25"}, 1_500_000_000_250_000_000),
        ({"mtime": b"-1.5"}, -1_500_000_000),
        ({"mtime": b"soon"}, WINTER * 10**9),
    ],
)
def test_a_tar_member_gets_the_mtime_of_its_headers(
    tmp_path: Path, records: dict[str, bytes], expected_ns: int
) -> None:
    extended = pax(*(record(key.encode(), value) for key, value in records.items()))
    fields = {"mtime": b"%011o\0" % WINTER}
    body = tar(
        *([extended] if records else []),
        member(b"d/", kind=b"5", **fields),
        *([extended] if records else []),
        member(b"d/f", b"x", **fields),
    )
    unpack(body, tmp_path / "t")
    assert mtime_ns(tmp_path / "t/d/f") == expected_ns
    assert mtime_ns(tmp_path / "t/d") == expected_ns


@pytest.mark.parametrize("seconds", [OLD, 0, 1 << 33])
def test_binary_numbers_are_read_as_times(tmp_path: Path, seconds: int) -> None:
    number = (seconds % (1 << 96)).to_bytes(12, "big")
    field = bytes([0xFF if seconds < 0 else 0x80]) + number[1:]
    unpack(tar(member("f", b"x", mtime=field)), tmp_path / "t")
    assert mtime_ns(tmp_path / "t/f") == seconds * 10**9


@pytest.mark.parametrize("field", [b"\x80" + b"\xff" * 11, b" " * 12])
def test_a_time_that_is_none_does_not_refuse_a_member(tmp_path: Path, field: bytes) -> None:
    unpack(tar(member("f", b"x", mtime=field)), tmp_path / "t")
    assert (tmp_path / "t/f").read_bytes() == b"x"


def nearest_mtime(directory: Path, seconds: int) -> int:
    """What the file system makes of an mtime of at most 62 bits."""
    (directory / "probe").touch()
    os.utime(directory / "probe", (seconds, seconds))
    return (directory / "probe").stat().st_mtime_ns


@pytest.mark.parametrize("seconds", [-(1 << 40), 1 << 40, 1 << 80])
def test_a_time_that_no_file_can_have_is_changed_with_a_note(tmp_path: Path, seconds: int) -> None:
    directory = member(b"d/", kind=b"5")
    body = tar(pax(record(b"mtime", b"%d" % seconds)), member(b"old", b"x"), directory)
    notes = unpack(body, tmp_path / "t").notes
    expected = nearest_mtime(tmp_path, min(seconds, 1 << 62))

    assert mtime_ns(tmp_path / "t/old") == expected
    named = [note for note in notes if "mtimes" in note and note.endswith("'old'")]
    assert len(named) == (expected != seconds * 10**9)


@pytest.mark.parametrize("name", ["old", "old/"])
def test_a_time_of_a_zip_that_no_file_can_have_is_changed_with_a_note(
    tmp_path: Path, name: str
) -> None:
    in_1700 = -8_520_336_000
    entries = (Entry(name, extra=ntfs(in_1700)), Entry("f", extra=timestamp(WINTER)))
    notes = unpack(zip_bytes(*entries), tmp_path / "t").notes
    expected = nearest_mtime(tmp_path, in_1700)

    assert mtime_ns(tmp_path / "t" / name) == expected
    named = [note for note in notes if "mtimes" in note and note.endswith(repr(name))]
    assert len(named) == (expected != in_1700 * 10**9)
    now = ExtractOptions(mtime="now")
    assert not unpack(zip_bytes(*entries), tmp_path / "now", options=now).notes


def test_a_name_of_our_own_files_may_be_in_an_archive(tmp_path: Path) -> None:
    body = tar(member("cpstage-\u00e9", b"x"), member("d/", kind=b"5", mode=0o700))
    unpack(body, tmp_path / "t")
    assert permissions(tmp_path / "t/d") == 0o700


def test_a_symlink_has_its_mtime(tmp_path: Path) -> None:
    unpack(tar(header("l", kind=b"2", link=b"f", mtime=WINTER)), tmp_path / "t")
    assert mtime_ns(tmp_path / "t/l") == WINTER * 10**9


def test_directories_keep_their_times_though_links_are_made_last(tmp_path: Path) -> None:
    body = tar(
        member("d/", kind=b"5", mtime=WINTER),
        header("d/l", kind=b"2", link=b"f"),
        member("d/f", b"x"),
    )
    unpack(body, tmp_path / "t")
    assert mtime_ns(tmp_path / "t/d") == WINTER * 10**9


def test_now_is_one_time_for_all(tmp_path: Path) -> None:
    before = time.time_ns()
    body = tar(member("d/", kind=b"5"), member("d/f", b"x"), member("g", b"x"))
    unpack(body, tmp_path / "t", options=ExtractOptions(mtime="now"))
    times = {mtime_ns(tmp_path / "t" / name) for name in ("d", "d/f", "g")}
    assert len(times) == 1
    assert before - 10**9 <= times.pop() <= time.time_ns() + 10**9


MODES = {0o600: 0o600, 0o444: 0o444, 0o777: 0o755, 0o750: 0o750, 0o6755: 0o755, 0: 0o644}


@pytest.fixture(autouse=True)
def umask() -> object:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize(("stored", "expected"), MODES.items())
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_files_get_the_permission_bits_of_the_archive(
    tmp_path: Path, kind: str, stored: int, expected: int
) -> None:
    if kind == "zip":
        body = bytes(zip_bytes(Entry("f", b"x", mode=stat.S_IFREG | stored)))
    else:
        body = tar(member("f", b"x", mode=stored))
    unpack(body, tmp_path / "t")
    assert permissions(tmp_path / "t/f") == expected


def test_without_unix_attributes_they_are_the_usual_ones(tmp_path: Path) -> None:
    entries = (Entry("d/", host=FAT, mode=0), Entry("d/f", b"x", host=FAT, mode=0o100600))
    unpack(zip_bytes(*entries), tmp_path / "t")
    assert permissions(tmp_path / "t/d") == 0o755
    assert permissions(tmp_path / "t/d/f") == 0o644


@pytest.mark.parametrize("mode", [0o555, 0o700, 0o777, 0o500])
def test_a_directory_gets_its_permission_bits_when_it_is_full(tmp_path: Path, mode: int) -> None:
    body = tar(
        member("d/", kind=b"5", mode=mode), member("d/e/", kind=b"5", mode=mode), member("d/e/f")
    )
    unpack(body, tmp_path / "t")
    assert permissions(tmp_path / "t/d") == mode & ~0o022
    assert permissions(tmp_path / "t/d/e") == mode & ~0o022
    assert (tmp_path / "t/d/e/f").exists()


def test_a_release_is_not_built_again(tmp_path: Path) -> None:
    needs("make")
    makefile = b"parser.c: parser.y\n\tfalse\n"
    body = tar(
        member("parser.y", b"y", mtime=1_700_000_000),
        member("parser.c", b"c", mtime=1_700_000_001),
        member("Makefile", makefile),
    )
    unpack(body, tmp_path / "t")
    assert os.spawnlp(os.P_WAIT, "make", "make", "-s", "-C", str(tmp_path / "t"), "parser.c") == 0
