"""A tar in gzip: every member of the stream is verified, and nothing may be missing or follow."""

from __future__ import annotations

import random
import zlib
from typing import TYPE_CHECKING

import pytest

from cpstage.errors import ArtifactRejected
from cpstage.transfer.local_archives import unpack as unpack_file
from samples import tar_of, zip_of
from tar_bytes import END, TEXT_FLAG, gzip, member, tar
from tar_checks import PEERS, accepted, members_of, refused
from trees import listing
from unpacked_archives import unpack

if TYPE_CHECKING:
    from pathlib import Path

NOISE = random.Random(1).randbytes(3000)
BODY = tar(member("file", NOISE, mode=0o755), member("zeros", bytes(5000)))
TREE = {"file": ("file", True, NOISE), "zeros": ("file", False, bytes(5000))}

_PLAIN = gzip(BODY)
_CUT = len(BODY) // 2

ACCEPTED = {
    "plain": _PLAIN,
    "a name": gzip(BODY, name=b"app.tar"),
    "an empty name": gzip(BODY, name=b""),
    "a comment": gzip(BODY, comment="größe".encode("latin-1")),
    "an extra field": gzip(BODY, extra=b"ab\2\0xy"),
    "a long extra field": gzip(BODY, extra=b"x" * 2000, name=b"n" * 1000),
    "a longer header later": gzip(BODY[:_CUT])
    + gzip(BODY[_CUT:], extra=b"x" * 0xFFFF, name=b"n" * 500_000),
    "an empty extra field": gzip(BODY, extra=b""),
    "a checked header": gzip(BODY, header_crc=True),
    "a text flag": gzip(BODY, flags=TEXT_FLAG),
    "everything": gzip(
        BODY, extra=b"\0" * 9, name=b"n", comment=b"c", header_crc=True, flags=1, mtime=1, hints=2
    ),
    "another system": gzip(BODY, system=3, mtime=0xFFFFFFFF),
    "stored blocks": gzip(BODY, level=0),
    "two members": gzip(BODY[:_CUT], name=b"one") + gzip(BODY[_CUT:], comment=b"two"),
    "a member for each byte": gzip(BODY[:512])
    + b"".join(gzip(BODY[at : at + 1]) for at in range(512, len(BODY))),
    "empty members": gzip(BODY[:512]) + gzip(b"") * 3 + gzip(BODY[512:]) + gzip(b"", name=b"x"),
    "a separate end marker": gzip(BODY[: -len(END)]) + gzip(END),
    "zeros at the end": _PLAIN + b"\0",
    "a record of zeros at the end": _PLAIN + bytes(10240),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_gzip_as_writers_make_it(tmp_path: Path, case: str) -> None:
    assert accepted(ACCEPTED[case], tmp_path, *PEERS) == TREE


REFUSED = {
    "a wrong CRC-32": (gzip(BODY, crc=zlib.crc32(BODY) ^ 1), "CRC-32"),
    "a wrong length": (gzip(BODY, size=len(BODY) + 1), "length"),
    "a wrong CRC-32 of the first member": (
        gzip(BODY[:_CUT], crc=0) + gzip(BODY[_CUT:]),
        "CRC-32",
    ),
    "a wrong CRC-32 of an empty member": (_PLAIN + gzip(b"", crc=1), "CRC-32"),
    "a wrong length of the last member": (gzip(BODY[:_CUT]) + gzip(BODY[_CUT:], size=1), "length"),
    "a wrong CRC of the header": (gzip(BODY, header_crc=b"\1\2", name=b"n"), "header crc"),
    "a wrong CRC of a later header": (_PLAIN + gzip(b"", header_crc=b"\1\2"), "the header of"),
    "an unknown flag": (gzip(BODY, flags=0x20), "unknown header flags"),
    "an unknown flag later": (_PLAIN + gzip(b"", flags=0x20), "begins with no header"),
    "another method": (_PLAIN + gzip(b"", method=7), "begins with no header"),
    "a byte after the end": (_PLAIN + b"x", "data after the end of the gzip stream"),
    "a byte after zeros": (_PLAIN + bytes(600) + b"x", "data after the end of the gzip stream"),
    "a member after zeros": (_PLAIN + bytes(512) + gzip(b""), "data after the end of the gzip"),
    "another archive after the end": (_PLAIN + BODY, "data after the end of the gzip stream"),
    "a start of a member": (_PLAIN + b"\x1f\x8b", "header of the gzip stream is cut off"),
    "a header alone": (_PLAIN + gzip(b"")[:10], "gzip stream is cut off"),
    "another tar in another member": (_PLAIN + _PLAIN, "data after the end of the archive"),
    "an endless comment": (_PLAIN + gzip(b"", comment=b"c" * (1 << 21)), "header of the gzip"),
    "half a header": (gzip(BODY[:600]), "it is cut off"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_gzip_that_is_damaged(tmp_path: Path, case: str) -> None:
    body, says = REFUSED[case]

    refused(body, tmp_path, says)


def test_damage_names_the_entry_that_it_is_found_at(tmp_path: Path) -> None:
    body = bytearray(gzip(tar(member("one", "1"), member("two", NOISE * 800))))
    body[len(body) // 2] ^= 0x55

    refused(bytes(body), tmp_path / "data", "gzip stream", entry="two")
    refused(gzip(BODY, size=1), tmp_path / "trailer", "CRC-32 and length", entry="zeros")


WITH_EVERYTHING = gzip(
    tar(member("a", "content " * 9), member("b", "x")),
    name=b"name",
    comment=b"comment",
    extra=b"ab\2\0xy",
)
UNPROTECTED = {
    "flags": {3},
    "mtime": {4, 5, 6, 7},
    "hints": {8},
    "system": {9},
    "extra": {10, *range(12, 18)},
    "name": set(range(18, 22)),
    "comment": set(range(23, 30)),
}
"""Bytes of the header that no checksum covers, and that say nothing of the data.

Of the flags that is the one for text. A longer extra field may end in the name, a name early or in
the comment: as long as the data begins in its place, nothing is different.
"""

_DATA, _TRAILER = 31, len(WITH_EVERYTHING) - 8


def test_a_flipped_bit_is_found_or_says_nothing(tmp_path: Path) -> None:
    """In the deflate data, a bit may say the same in another way, such as copy from elsewhere."""
    expected = accepted(WITH_EVERYTHING, tmp_path)

    harmless = set()
    for at in range(len(WITH_EVERYTHING)):
        for bit in range(8):
            body = bytearray(WITH_EVERYTHING)
            body[at] ^= 1 << bit
            into = tmp_path / f"{at}-{bit}"
            try:
                unpack(bytes(body), into, name="app.tar.gz")
            except ArtifactRejected:
                continue
            assert listing(into) == expected
            harmless.add(at)

    assert harmless - set(range(_DATA, _TRAILER)) == set().union(*UNPROTECTED.values())


def test_a_checked_header_is_protected_as_a_whole(tmp_path: Path) -> None:
    whole = gzip(BODY, name=b"name", header_crc=True)
    header = len(whole) - len(_PLAIN) + 10

    for at in range(header):
        body = bytearray(whole)
        body[at] ^= 0x10
        with pytest.raises(ArtifactRejected):
            unpack(bytes(body), tmp_path / str(at), name="app.tar.gz")


@pytest.mark.slow
def test_a_tar_gz_that_is_cut_off_anywhere() -> None:
    whole = gzip(BODY[:1000], name=b"n", header_crc=True) + gzip(BODY[1000:])

    assert len(members_of(whole)) == 2
    for length in range(2, len(whole)):
        with pytest.raises(ArtifactRejected):
            members_of(whole[:length])


@pytest.mark.parametrize("length", range(0, 3000, 157))
def test_a_tar_gz_that_is_cut_off_is_not_unpacked(tmp_path: Path, length: int) -> None:
    refused(
        _PLAIN[:length], tmp_path, "cut off|no end marker|not a tar.gz archive|is empty|not a tar"
    )


def test_nothing_but_whole_members_is_gzip(tmp_path: Path) -> None:
    """A stream that is flushed, but not ended."""
    encoder = zlib.compressobj(6, zlib.DEFLATED, 31)
    body = encoder.compress(BODY) + encoder.flush(zlib.Z_SYNC_FLUSH)

    refused(body, tmp_path, "the gzip stream is cut off")


ZIP, TAR_GZ = zip_of({"f": "x"}), gzip(tar_of({"f": "x"}))


@pytest.mark.parametrize(
    ("name", "inside", "kind"),
    [("App.zip", ZIP, "zip"), ("App.tar.gz", TAR_GZ, "tar.gz"), ("App.tar", TAR_GZ, "tar.gz")],
)
def test_an_archive_that_gzip_compressed_once_more_is_named(
    tmp_path: Path, name: str, inside: bytes, kind: str
) -> None:
    """``Content-Encoding: gzip`` that an uploader left on."""
    (tmp_path / name).write_bytes(gzip(inside))

    with pytest.raises(ArtifactRejected, match=f"is gzip around a {kind} archive") as caught:
        unpack_file(tmp_path / name, tmp_path / "out")

    assert "Content-Encoding: gzip" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_gzip_around_a_tar_is_a_tar_gz_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "App.zip").write_bytes(TAR_GZ)

    unpack_file(tmp_path / "App.zip", tmp_path / "out")

    assert (tmp_path / "out/f").read_text() == "x"
