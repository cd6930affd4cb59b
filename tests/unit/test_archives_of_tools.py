"""Archives as real tools write them, in other sizes, places and orders than the known cases."""

from __future__ import annotations

import gzip
import lzma
import os
import stat
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cpstage import Limits
from cpstage.archive.blob import BytesBlob
from cpstage.archive.formats import recognise
from cpstage.archive.options import Budget, ExtractOptions
from cpstage.archive.zip_directory import read_directory, read_tail
from cpstage.archive.zip_reader import decoded
from cpstage.errors import ArtifactRejected
from tar_bytes import directory as tar_directory
from tar_bytes import hard_link, header, member, padded, pax, record, tar
from trees import names, needs
from unpacked_archives import unpack
from zip_bytes import DEFLATED, LZMA, Entry, directory, file, link, zip_bytes

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
FAT, HPFS, NTFS, VFAT, UNIX = 0, 6, 10, 14, 3


def _padding(length: int, fill: bytes = b"\0", name: bytes = b"") -> bytes:
    """A local header without a name, as zipflinger fills gaps with it."""
    return struct.pack("<4s5H3L2H", b"PK\3\4", *[0] * 8, len(name), length) + name + fill * length


@pytest.mark.parametrize("gap", [(0,), (1,), (65535, 65535), (3, 0, 300)])
@pytest.mark.parametrize("where", ["first", "between", "last", "after a descriptor"])
def test_paddings_of_zipflinger(tmp_path: Path, gap: tuple[int, ...], where: str) -> None:
    padding = b"".join(map(_padding, gap))
    described = Entry("a", b"hello", DEFLATED, descriptor="signed")
    body = {
        "first": zip_bytes(Entry("a", before=padding), file("b")),
        "between": zip_bytes(file("a"), Entry("b", before=padding)),
        "last": zip_bytes(file("a"), file("b"), gap=padding),
        "after a descriptor": zip_bytes(described, Entry("b", before=padding)),
    }[where]

    assert unpack(body, tmp_path / "d").files == 2


@pytest.mark.parametrize(
    "padding",
    [_padding(9, b"x"), _padding(9, name=b"evil"), _padding(9) + b"\0", _padding(9)[:-1]],
)
def test_what_only_resembles_a_padding(tmp_path: Path, padding: bytes) -> None:
    with pytest.raises(ArtifactRejected, match="hides records"):
        unpack(zip_bytes(file("a"), Entry("b", before=padding)), tmp_path / "d")


def _lzma(data: bytes, **numbers: int) -> bytes:
    """LZMA data of zip (APPNOTE 5.8.8)."""
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16, **numbers}]
    packer = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=filters)
    raw = packer.compress(data) + packer.flush()
    properties = (numbers.get("pb", 2) * 5 + numbers.get("lp", 0)) * 9 + numbers.get("lc", 3)
    return struct.pack("<2BHBL", 9, 20, 5, properties, 1 << 16) + raw


@pytest.mark.parametrize("size", [1, 4096, 300_000])
@pytest.mark.parametrize("numbers", [{}, {"lc": 0, "lp": 2, "pb": 0}, {"lc": 4, "lp": 0, "pb": 4}])
def test_lzma_of_other_parameters(tmp_path: Path, size: int, numbers: dict[str, int]) -> None:
    data = os.urandom(100) * (size // 100 + 1)
    entry = Entry("a", data, LZMA, stream=_lzma(data, **numbers), flags=2)

    unpack(zip_bytes(entry, file("b")), tmp_path / "d")

    assert (tmp_path / "d/a").read_bytes() == data


SEVEN_ZIP = {
    "LZMA": "-mm=LZMA",
    "LZMA with an end marker": "-mm=LZMA -meos=on",
    "Deflate64": "-mm=Deflate64",
    "bzip2": "-mm=BZip2",
}


def _by_7z(root: Path, data: bytes, *options: str) -> bytes:
    needs("7z")
    (root / "in.bin").write_bytes(data)
    command = ["7z", "a", "-bd", "-tzip", *options, str(root / "a.zip"), str(root / "in.bin")]
    subprocess.run(command, check=True, capture_output=True)
    return (root / "a.zip").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 1, 100, 3 * MIB])
@pytest.mark.parametrize("method", SEVEN_ZIP)
def test_methods_of_7z(tmp_path: Path, method: str, size: int) -> None:
    data = b"".join(b"line %d\n" % number for number in range(size // 6 + 1))[:size]

    unpack(_by_7z(tmp_path, data, *SEVEN_ZIP[method].split()), tmp_path / "d")

    assert (tmp_path / "d/in.bin").read_bytes() == data


@pytest.mark.slow
def test_deflate64_comes_out_in_bounded_pieces(tmp_path: Path) -> None:
    body = _by_7z(tmp_path, bytes(96 * MIB), "-mm=Deflate64")
    blob = BytesBlob(body)
    [entry] = read_directory(blob, read_tail(blob, Budget(Limits(), blob.size)))
    start = 30 + len("in.bin")

    sizes = [len(one) for one in decoded(entry, [memoryview(body)[start : start + entry.packed]])]

    assert sum(sizes) == 96 * MIB
    assert max(sizes) <= 32 * MIB


@pytest.mark.parametrize("change", ["cut", "longer", "flipped", "declared shorter"])
def test_damaged_deflate64(tmp_path: Path, change: str) -> None:
    body = bytearray(_by_7z(tmp_path, os.urandom(999) * 300, "-mm=Deflate64"))
    blob = BytesBlob(bytes(body))
    [entry] = read_directory(blob, read_tail(blob, Budget(Limits(), blob.size)))
    stream = bytes(body[36 : 36 + entry.packed])
    data = (tmp_path / "in.bin").read_bytes()
    if change == "cut":
        stream = stream[:-20]
    elif change == "longer":
        stream += b"more"
    elif change == "flipped":
        stream = stream[:500] + bytes([stream[500] ^ 0x10]) + stream[501:]
    else:
        data = data[:-1]

    with pytest.raises(ArtifactRejected, match="the entry"):
        unpack(zip_bytes(Entry("in.bin", data, 9, stream=stream)), tmp_path / "d")


def test_deflate64_without_the_extra_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(_by_7z(tmp_path, b"text" * 99, "-mm=Deflate64"))
    code = (
        "import sys; sys.modules['inflate64'] = None; from cpstage.__main__ import main;"
        "sys.argv[1:] = ['unpack', 'a.zip', '--into', 'd']; main()"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )

    assert done.returncode == 65
    assert "Deflate64" in done.stderr
    assert "pip install '.[deflate64]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("host", [FAT, HPFS, NTFS, VFAT])
def test_backslashes_of_windows_hosts_in_other_orders(tmp_path: Path, host: int) -> None:
    made = [
        Entry(rb"a\b\f", b"1", host=host, mode=0),
        Entry(rb"a/b\g", b"2", host=host, mode=0),
        Entry(b"a\\", host=host, mode=0),
        Entry(b"e\\e\\", host=host, mode=0),
    ]

    done = unpack(zip_bytes(*made), tmp_path / "d")

    assert names(tmp_path / "d") == ["a", "a/b", "a/b/f", "a/b/g", "e", "e/e"]
    assert len(done.notes) == 1


@pytest.mark.parametrize("name", [rb"..\x", rb"a\..\..\x", rb"\x", rb"C:\x", rb"a\..", rb"\\h\s\x"])
def test_backslashes_of_windows_hosts_that_lead_out(tmp_path: Path, name: bytes) -> None:
    with pytest.raises(ArtifactRejected, match="unsafe name"):
        unpack(zip_bytes(Entry(name, b"x", host=FAT, mode=0)), tmp_path / "d")


@pytest.mark.parametrize("kind", [stat.S_IFIFO, 0o030000, 0o110000, 0o170000, 0])
@pytest.mark.parametrize("method", [0, DEFLATED])
def test_data_that_came_from_a_pipe_or_with_an_unknown_type(
    tmp_path: Path, kind: int, method: int
) -> None:
    body = zip_bytes(Entry("-", b"data", method, mode=kind | 0o600, descriptor="signed"))

    unpack(body, tmp_path / "d")

    assert (tmp_path / "d/-").read_bytes() == b"data"
    assert stat.S_IMODE((tmp_path / "d/-").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "empty", [Entry("-", mode=0o010600), Entry("x", b"", DEFLATED, mode=0o010600)]
)
def test_an_empty_pipe_is_an_empty_file(tmp_path: Path, empty: Entry) -> None:
    unpack(zip_bytes(empty), tmp_path / "d")

    assert [path.read_bytes() for path in (tmp_path / "d").iterdir()] == [b""]


def test_equal_duplicates_of_files_only(tmp_path: Path) -> None:
    equal = zip_bytes(directory("d/"), file("d/a"), file("b"), directory("d/"), file("./d/a"))
    other = zip_bytes(file("a", b"1"), file("a", b"2"))
    links = zip_bytes(file("f"), link("l", b"f"), file("l", b"f"))

    assert unpack(equal, tmp_path / "equal").files == 2
    for number, body in enumerate((other, links)):
        with pytest.raises(ArtifactRejected, match="is there twice"):
            unpack(body, tmp_path / str(number))


@pytest.mark.parametrize("tail", [b"\r\n\r\n", b" \t\n"[::2], bytes(4096), b"\0\r\n "])
def test_blanks_after_the_end_record(tmp_path: Path, tail: bytes) -> None:
    assert unpack(bytes(zip_bytes(file("a"))) + tail, tmp_path / "d").files == 1


@pytest.mark.parametrize("tail", [b"x", b"\n.\n", b"PK\5\6"])
def test_other_bytes_after_the_end_record(tmp_path: Path, tail: bytes) -> None:
    with pytest.raises(ArtifactRejected, match="end of central"):
        unpack(bytes(zip_bytes(file("a"))) + tail, tmp_path / "d")


@pytest.mark.parametrize("size", [1, 511, 10_241, MIB])
def test_zeros_in_gzip_are_a_file(size: int) -> None:
    body = gzip.compress(bytes(size))

    assert recognise(body[:4096], name="data.gz") is None
    assert recognise(body[:4096]) is None


@pytest.mark.parametrize("size", [512, 1024, 10_240, 102_400])
def test_zeros_in_gzip_that_are_named_as_tar_are_an_empty_tar(tmp_path: Path, size: int) -> None:
    done = unpack(gzip.compress(bytes(size)), tmp_path / "d", name="x.tar.gz")

    assert (done.files, done.directories) == (0, 0)


@pytest.mark.parametrize("end", [b"", bytes(512)])
@pytest.mark.parametrize("packed", [False, True])
def test_tars_that_end_early_at_a_member(tmp_path: Path, end: bytes, packed: bool) -> None:
    body = tar(tar_directory("d"), member("d/a", "x" * 700), member("last", ""), end=end)

    done = unpack(gzip.compress(body) if packed else body, tmp_path / "d")

    assert done.files == 2
    assert len(done.notes) == (not end)


@pytest.mark.parametrize("before", [pax(record("path", "z")), header("x", kind=b"L", size=2)])
def test_tars_that_end_in_the_middle_of_a_member(tmp_path: Path, before: bytes) -> None:
    with pytest.raises(ArtifactRejected, match="damaged"):
        unpack(tar(member("a"), before, end=b""), tmp_path / "d")


def test_types_of_other_tars_in_the_middle_of_an_archive(tmp_path: Path) -> None:
    body = tar(
        header("label", kind=b"V"),
        member("a", "x"),
        header("acl", kind=b"A", size=600) + padded(b"u" * 600),
        header("d/", kind=b"D", size=9) + padded(b"Yone\0Nb\0\0"),
        member("d/one", "y"),
        header("e/", kind=b"5", size=4096),
        hard_link("h", "a", size=700),
        member("last"),
    )

    done = unpack(body, tmp_path / "d")

    assert names(tmp_path / "d") == ["a", "d", "d/one", "e", "h", "last"]
    assert (done.files, done.directories) == (4, 2)


@pytest.mark.parametrize("mtime", [b"zzzzzzzzzzz\0", b"0x123456789\0", b"-1234567890\0"])
def test_an_mtime_that_is_not_a_number(tmp_path: Path, mtime: bytes) -> None:
    with pytest.raises(ArtifactRejected, match="mtime is not a number"):
        unpack(tar(member("a", mtime=mtime)), tmp_path / "d")


@pytest.mark.parametrize("mtime", [bytes(12), b" " * 12, b"  1234567\0zz", b"12345670123 "])
def test_mtimes_that_old_writers_left(tmp_path: Path, mtime: bytes) -> None:
    options = ExtractOptions(Limits())

    assert unpack(tar(member("a", mtime=mtime)), tmp_path / "d", options=options).files == 1


@pytest.mark.parametrize("second", [bytes(511) + b"\n", b"\r\n"])
def test_a_line_end_in_the_second_end_block(tmp_path: Path, second: bytes) -> None:
    contents = unpack(tar(member("a", "x"), end=bytes(512) + second), tmp_path / "d", "a.tar")

    assert contents.files == 1
    assert contents.notes == ["bytes after the end of the tar were ignored"]


@pytest.mark.parametrize("zeros", [1, 21, 5000])
def test_a_size_in_pax_with_leading_zeros(tmp_path: Path, zeros: int) -> None:
    body = tar(pax(record("size", "0" * zeros + "4")), member("a", "data", size=b"0" * 11 + b"\0"))

    assert unpack(body, tmp_path / "d").files == 1
    assert (tmp_path / "d/a").read_bytes() == b"data"
