"""Headers of tar that are damaged, cut off or mean two things are refused, wherever they stand."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from cpstage.errors import ArtifactRejected
from tar_bytes import (
    BLOCK,
    CONTIGUOUS,
    DIRECTORY,
    END,
    FIELDS,
    FILE,
    GLOBAL,
    GNU,
    HARD_LINK,
    LINK,
    LONG_LINK,
    LONG_NAME,
    OLD_FILE,
    POSIX,
    SOLARIS_PAX,
    V7,
    base256,
    directory,
    gzip,
    hard_link,
    header,
    link,
    long_link,
    long_name,
    member,
    padded,
    pax,
    record,
    signed_sum,
    tar,
)
from tar_checks import PEERS, accepted, members_of, refused
from unpacked_archives import unpack

if TYPE_CHECKING:
    from pathlib import Path

NO_NUMBERS = [
    b" " * 12,
    b" ".ljust(12, b"\0"),
    b"-0000000001\0",
    b"+0000000001\0",
    b"0000000001x\0",
    b"1 1\0\0\0\0\0\0\0\0\0",
    b"1\x001\0\0\0\0\0\0\0\0\0",
    b"\x001\0\0\0\0\0\0\0\0\0\0",
    b"00000000008\0",
    b"0x000000001\0",
    b"0o000000001\0",
    b"0_000000001\0",
    b"0000000001.\0",
    b"\t0000000001\0",
    b"\xb900000000001",
    b"\x81" + bytes(10) + b"\1",
    b"\xfe" + bytes(10) + b"\1",
]


@pytest.mark.parametrize("size", NO_NUMBERS)
def test_a_size_that_is_no_number(tmp_path: Path, size: bytes) -> None:
    body = tar(member("before"), member("it", "x", size=size), member("after"))

    refused(body, tmp_path, "the size is not a number", entry="it")


@pytest.mark.parametrize("size", NO_NUMBERS)
@pytest.mark.parametrize("kind", [LONG_NAME, LONG_LINK, b"x", SOLARIS_PAX, GLOBAL])
def test_a_size_of_an_extended_header_that_is_no_number(
    tmp_path: Path, size: bytes, kind: bytes
) -> None:
    body = tar(member("before"), header("it", kind=kind, size=size), bytes(BLOCK))

    refused(body, tmp_path, "the size of an extended header is not a number")


@pytest.mark.parametrize("size", [-1, -512, -(1 << 63)])
def test_a_negative_size(tmp_path: Path, size: int) -> None:
    refused(tar(member("it", size=size)), tmp_path, "the size is negative", entry="it")


@pytest.mark.parametrize("size", [1 << 63, 1 << 87])
def test_a_size_that_no_file_can_have(tmp_path: Path, size: int) -> None:
    refused(tar(member("it", size=size)), tmp_path, "the size is too large", entry="it")


@pytest.mark.parametrize("mode", [b"-000644\0", b"rw-r--r-", b"00006x4\0", base256(-1, 8)])
def test_a_mode_that_is_no_number(tmp_path: Path, mode: bytes) -> None:
    refused(tar(member("before"), member("it", mode=mode)), tmp_path, "the mode is", entry="it")


@pytest.mark.parametrize(
    "size",
    [
        b"          1\0",
        b"1 \0\0\0\0\0\0\0\0\0\0",
        b"1\0\0\0\0\0\0\0\0\0\0\0",
        b"000000000001",
        base256(1, 12),
    ],
)
def test_numbers_that_writers_are_known_for(tmp_path: Path, size: bytes) -> None:
    body = tar(member("it", "x", size=size, mode=b"   755 \0"), member("after"))

    assert accepted(body, tmp_path, *PEERS)["it"] == ("file", True, b"x")


@pytest.mark.parametrize("size", [600, 1 << 40])
@pytest.mark.parametrize("place", ["last", "first"])
def test_a_size_beyond_the_end_of_the_archive(tmp_path: Path, size: int, place: str) -> None:
    body = member("it", "x", size=size) + b"data" * (place == "first")

    refused(body, tmp_path, "it is cut off", entry="it")


def test_a_size_that_swallows_the_end_marker(tmp_path: Path) -> None:
    refused(tar(member("it", "x", size=1600)), tmp_path, "cut off", entry="it")


def test_a_size_that_hides_the_next_member(tmp_path: Path) -> None:
    """Which is what the size says: other readers take it for data, too."""
    body = tar(member("it", "x", size=BLOCK + 100), member("hidden"), member("after"))

    assert list(accepted(body, tmp_path, *PEERS)) == ["after", "it"]


def test_a_symlink_with_data(tmp_path: Path) -> None:
    refused(tar(member("it", "x", kind=LINK, link="file")), tmp_path, "with data", entry="it")


@pytest.mark.parametrize("kind", [DIRECTORY, HARD_LINK])
@pytest.mark.parametrize("by_pax", [False, True])
def test_a_size_of_what_has_no_data_is_ignored(tmp_path: Path, kind: bytes, by_pax: bool) -> None:
    size = pax(record("size", "700")) if by_pax else b""
    it = header("it", kind=kind, link="file", size=0 if by_pax else 700)
    body = tar(member("file", "x"), size + it, member("after", "y"))

    found = accepted(body, tmp_path, "tar")

    assert set(found) == {"file", "it", "after"}


@pytest.mark.parametrize("kind", [FILE, OLD_FILE, CONTIGUOUS])
@pytest.mark.parametrize("magic", [POSIX, GNU, V7])
def test_a_directory_of_old_writers_ends_with_a_slash(
    tmp_path: Path, kind: bytes, magic: bytes
) -> None:
    body = tar(member("d/", kind=kind, magic=magic), member("d/file", magic=magic))

    assert accepted(body, tmp_path / "fine", *PEERS)["d"] == ("directory", False, b"")
    sized = tar(header("d/", kind=kind, size=1), member("d/file", magic=magic))
    assert set(accepted(sized, tmp_path / "sized")) == {"d", "d/file"}


def test_a_sum_of_signed_characters_is_a_checksum(tmp_path: Path) -> None:
    checksum = signed_sum(header("größe", magic=V7))

    found = accepted(tar(header("größe", magic=V7, checksum=checksum)), tmp_path, *PEERS)

    assert list(found) == ["größe"]


@pytest.mark.parametrize("off_by", [1, -1, 256, -256, 1024])
@pytest.mark.parametrize("name", ["plain", "größe"])
def test_a_wrong_checksum(tmp_path: Path, off_by: int, name: str) -> None:
    right = int(header(name)[FIELDS["checksum"]].rstrip(b"\0 "), 8)
    body = tar(member("before"), header(name, checksum=right + off_by))

    refused(body, tmp_path, "the checksum of a header is wrong", entry="before")


@pytest.mark.parametrize(
    "checksum", [b"        ", bytes(8), b"-1\0\0\0\0\0\0", b"\x80\0\0\0\0\0\1\0", b"none\0\0\0 "]
)
def test_a_checksum_that_is_none(tmp_path: Path, checksum: bytes) -> None:
    body = tar(member("before"), header("it", checksum=checksum))

    refused(body, tmp_path, "checksum", entry="before")


@pytest.mark.parametrize("magic", [b"ustar   ", b"USTAR\x0000", b"tar\0\0\0\0\0", b"\0ustar\0\0"])
def test_a_header_of_no_known_format(tmp_path: Path, magic: bytes) -> None:
    refused(tar(member("before"), header(magic=magic)), tmp_path, "unknown format", entry="before")


def test_only_posix_has_a_prefix(tmp_path: Path) -> None:
    times = b"12345670123\x0012345670123\0"
    body = tar(
        member("posix", rest="prefix/of", magic=POSIX),
        member("no version", rest="prefix/of", magic=b"ustar\0\0\0"),
        member("gnu", rest=times, magic=GNU),
    )

    found = accepted(body, tmp_path, *PEERS)

    assert [name for name, (kind, *_) in found.items() if kind == "file"] == [
        "gnu",
        "prefix/of/no version",
        "prefix/of/posix",
    ]


def test_a_prefix_of_v7_is_no_prefix(tmp_path: Path) -> None:
    assert list(accepted(tar(member("v7", rest="junk", magic=V7)), tmp_path)) == ["v7"]


def test_names_that_need_more_than_a_header(tmp_path: Path) -> None:
    name, target = "n/" * 60 + "name", "t/" * 80 + "target"
    found = accepted(
        tar(
            long_name(name + "1") + member("short", "x"),
            long_link(target) + long_name(name + "2") + link("short", "s"),
            pax(record("path", name + "3"), record("linkpath", target)) + link("short", "s"),
            pax(record("path", name + "4"), kind=SOLARIS_PAX) + directory("short"),
            pax(record("linkpath", name + "1")) + hard_link("again", "s"),
        ),
        tmp_path,
        *PEERS,
    )

    assert found[name + "2"] == found[name + "3"] == ("link", False, target.encode())
    assert found["again"] == ("file", False, b"x")
    assert "short" not in found


def test_a_size_in_pax_is_the_size(tmp_path: Path) -> None:
    """What the header says then is nothing, or what there was room for."""
    data = member("inside", "x" * 700)
    sized = pax(record("size", str(len(data))))
    body = tar(*(sized + header(f"it{said}", size=said) + data for said in (0, 1, 8**11 - 1)))

    assert {content for _, _, content in accepted(body, tmp_path, "tar").values()} == {data}


@pytest.mark.parametrize("said", [b"1 1".ljust(12), b"-1".ljust(12), base256(-1, 12)])
def test_a_size_in_pax_makes_no_number_of_what_is_none(tmp_path: Path, said: bytes) -> None:
    body = tar(pax(record("size", "1")), member("it", "x", size=said))

    refused(body, tmp_path, "the size is", entry="it")


@pytest.mark.parametrize(
    "size", ["", "-1", "+1", "1.0", "0x1", "1 ", " 1", "1_0", "x", "\u0661", "9" * 20, "9" * 5000]
)
def test_a_size_in_pax_that_is_no_number(tmp_path: Path, size: str) -> None:
    body = tar(pax(record("size", size)), member("it", "x"))

    refused(body, tmp_path, "the size is not a number", entry="it")


def test_the_last_of_several_records_wins(tmp_path: Path) -> None:
    records = (record("path", "../evil"), record("size", "9" * 30), record("path", "it"))
    body = tar(pax(*records, record("size", "2")), member("short", "xx"))

    assert accepted(body, tmp_path) == {"it": ("file", False, b"xx")}


def test_records_that_say_nothing_of_use_are_passed_over(tmp_path: Path) -> None:
    body = tar(
        pax(record("comment", "of all"), record("vendor.key", b"\xff\0=\n"), kind=GLOBAL),
        pax(
            record("hdrcharset", "BINARY"),
            record("path", "größe"),
            record("SCHILY.xattr.user.x", b"\0\n\xff="),
            record("comment", "1 a=b\n" * 20),
            record("uname", "somebody"),
        ),
        member("short", "x"),
        pax(),
        member("plain"),
    )

    assert list(accepted(body, tmp_path, "bsdtar")) == ["größe", "plain"]


BAD_RECORDS = {
    "too long by one": b"13 path=abc\n",
    "too short by one": b"11 path=abc\n",
    "longer than the header": b"99 path=abc\n",
    "no newline": b"12 path=abcd",
    "no length": b" path=abc\n",
    "no space": b"12path=abcde\n",
    "two spaces": b"13  path=abc\n",
    "a tab": b"12\tpath=abc\n",
    "no equals sign": b"11 pathabc\n",
    "no key": b"8 =abc\n",
    "no record": b"pax header",
    "nothing": b"0 \n",
    "negative": b"-9 path=abc\n",
    "leading zero": b"013 path=abc\n",
    "other digits": "\u0661\u0661 path=abc\n".encode(),
    "zeros at the end": b"12 path=abc\n\0\0\0\0",
    "many digits": b"1" * 5000 + b" path=abc\n",
}


@pytest.mark.parametrize("records", BAD_RECORDS)
@pytest.mark.parametrize("kind", [b"x", SOLARIS_PAX, GLOBAL])
def test_records_that_are_not_exactly_of_their_form(
    tmp_path: Path, records: str, kind: bytes
) -> None:
    body = tar(member("before"), pax(BAD_RECORDS[records], kind=kind), member("it"))

    refused(body, tmp_path, "pax header", entry="before")


@pytest.mark.parametrize(
    "key", ["path", "linkpath", "size", "GNU.sparse.size", "GNU.sparse.\udcff", "GNU.volume.offset"]
)
def test_a_global_header_that_names_or_sizes_members(tmp_path: Path, key: str) -> None:
    body = tar(pax(record(key, "1"), kind=GLOBAL), member("it"))

    refused(body, tmp_path, "a global header sets b'")


EXTENDED = {
    "L": long_name("one"),
    "K": long_link("one"),
    "x": pax(record("path", "one")),
    "X": pax(record("path", "one"), kind=SOLARIS_PAX),
    "g": pax(record("comment", "one"), kind=GLOBAL),
}


@pytest.mark.parametrize("first", EXTENDED)
@pytest.mark.parametrize("second", EXTENDED)
def test_two_extended_headers_before_a_member(tmp_path: Path, first: str, second: str) -> None:
    body = tar(EXTENDED[first], EXTENDED[second], link("it", "target"))

    if first == "g" or {first, second} == {"L", "K"}:
        assert len(accepted(body, tmp_path)) == 1
    else:
        refused(body, tmp_path, f"type b'{second}' follows b'{first}'")


@pytest.mark.parametrize("name", [b"", b"abc", b"n" * 512, b"a\0b"])
@pytest.mark.parametrize("kind", [LONG_NAME, LONG_LINK])
def test_a_long_name_that_ends_elsewhere_for_others(
    tmp_path: Path, kind: bytes, name: bytes
) -> None:
    """Without the zero that ends it, what fills its block would belong to it."""
    follows = b"x" * (-len(name) % BLOCK)
    body = tar(member("before"), header("h", kind=kind, size=len(name)), name + follows, member())

    refused(body, tmp_path, "a long name has no end", entry="before")


def test_a_long_name_may_end_with_its_block(tmp_path: Path) -> None:
    body = tar(header("h", kind=LONG_NAME, size=2), padded(b"it"), member("short"))

    assert list(accepted(body, tmp_path, *PEERS)) == ["it"]


@pytest.mark.parametrize("kind", ["L", "K", "x", "X"])
def test_an_extended_header_without_a_member(tmp_path: Path, kind: str) -> None:
    body = tar(member("before"), EXTENDED[kind])

    refused(body, tmp_path, "not followed by a member", entry="before")


def test_a_global_header_may_be_the_last(tmp_path: Path) -> None:
    assert list(accepted(tar(member("it"), EXTENDED["g"]), tmp_path, *PEERS)) == ["it"]


THREE = [member("one", "1" * 600), member("two", "2", mode=0o755), member("three")]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_flipped_bit_in_a_header_is_found(which: int) -> None:
    """All of a header is in its checksum.

    Of the field of the checksum itself, a bit may make a zero or space of a leading zero or of
    what ends the digits, and says the same then.
    """
    start = sum(map(len, THREE[:which]))
    whole = tar(*THREE)
    expected = members_of(whole)

    harmless = set()
    for at in range(BLOCK):
        for pattern in (*(1 << bit for bit in range(8)), 0xFF):
            body = bytearray(whole)
            body[start + at] ^= pattern
            with suppress(ArtifactRejected):
                assert members_of(bytes(body)) == expected
                harmless.add(at)

    assert harmless <= set(range(*FIELDS["checksum"].indices(BLOCK)))


@pytest.mark.parametrize("at", range(0, 2 * BLOCK, 73))
def test_a_flipped_bit_in_the_end_marker_is_found(tmp_path: Path, at: int) -> None:
    body = bytearray(tar(*THREE))
    body[at - len(END)] ^= 1

    refused(bytes(body), tmp_path, "damaged|after the end")


@pytest.mark.parametrize("length", [*range(7, BLOCK, 7), BLOCK - 1])
def test_an_end_marker_that_is_cut_off(tmp_path: Path, length: int) -> None:
    refused(tar(*THREE, end=bytes(length)), tmp_path, "no end marker|cut off", entry="three")


@pytest.mark.parametrize("length", [BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1, 10240, 100_000])
def test_an_end_marker_and_zeros(tmp_path: Path, length: int) -> None:
    """A block of zeros is the end; GNU tar only warns of a second one that is missing."""
    assert len(accepted(tar(*THREE, end=bytes(length)), tmp_path, "bsdtar")) == 3


@pytest.mark.parametrize("after", [b"x", member("evil"), b"\0" * 511 + b"\1"])
@pytest.mark.parametrize("end", [bytes(BLOCK), bytes(20480)])
def test_anything_but_zeros_after_the_end(tmp_path: Path, after: bytes, end: bytes) -> None:
    body = tar(*THREE, end=end)
    whole = body if len(end) == BLOCK else body + bytes(-len(body) % 10240)
    refused(whole + after, tmp_path, "data after the end of the archive")


@pytest.mark.parametrize("after", [member("evil"), bytes(BLOCK) + member("evil")])
def test_a_member_after_the_end_blocks(tmp_path: Path, after: bytes) -> None:
    refused(tar(*THREE) + after, tmp_path, "data after the end of the archive")


@pytest.mark.parametrize("after", [b"x", b"\n", bytes(5000) + b"x", b"AIX" * 1000])
def test_garbage_in_the_last_record_is_ignored_with_a_note(tmp_path: Path, after: bytes) -> None:
    contents = unpack(tar(*THREE) + after, tmp_path / "into", "app.tar")

    assert contents.files == 3
    assert contents.notes == ["bytes after the end of the tar were ignored"]


def test_a_line_end_after_a_whole_record_is_ignored(tmp_path: Path) -> None:
    body = tar(*THREE)

    assert unpack(body + bytes(-len(body) % 10240) + b"\r\n", tmp_path / "into").files == 3


@pytest.mark.parametrize("compressed", [False, True])
def test_a_tar_without_end_blocks_is_accepted_with_a_note(tmp_path: Path, compressed: bool) -> None:
    body = tar(*THREE, end=b"")
    contents = unpack(gzip(body) if compressed else body, tmp_path / "into")

    assert contents.files == 3
    assert "no end-of-archive blocks" in contents.notes[0]


@pytest.mark.parametrize(
    "last", [pax(record("path", "x")), pax(record("comment", "x"), kind=GLOBAL), long_name("x")]
)
def test_a_tar_that_ends_after_an_extended_header(tmp_path: Path, last: bytes) -> None:
    refused(tar(*THREE, last, end=b""), tmp_path, "not followed by a member")


CUT = [
    member("file", "x" * 700),
    long_name("n" * 150) + member("short", "x"),
    pax(record("path", "p" * 150)) + member("short", "x"),
    pax(record("comment", "c"), kind=GLOBAL) + directory("d"),
    link("d/l", "../file"),
]


def test_a_tar_that_is_cut_off_anywhere() -> None:
    whole = tar(*CUT)

    assert len(members_of(whole)) == len(CUT)
    boundaries = {sum(map(len, CUT[:count])) for count in range(len(CUT) + 1)}
    for length in set(range(len(whole) - len(END) + BLOCK)) - boundaries:
        with pytest.raises(ArtifactRejected, match=r"cut off|not followed"):
            members_of(whole[:length])
    for length in boundaries:
        assert len(members_of(whole[:length])) <= len(CUT)


@pytest.mark.parametrize("length", range(0, 5700, 131))
def test_a_tar_that_is_cut_off_is_not_unpacked(tmp_path: Path, length: int) -> None:
    body = tar(*CUT)[:length]

    refused(body, tmp_path, "cut off|not followed|not a tar archive|is empty")


def test_an_empty_tree_of_git_has_a_global_header(tmp_path: Path) -> None:
    body = tar(pax(record("comment", "of a commit"), kind=GLOBAL))

    assert unpack(body, tmp_path / "into").notes == []


def test_padding_after_data_may_be_anything(tmp_path: Path) -> None:
    body = tar(header("it", size=4) + b"data".ljust(BLOCK, b"\xff"), padded(b"") + member("after"))

    assert accepted(body, tmp_path, *PEERS)["it"] == ("file", False, b"data")
