"""Sparse files in tar, in all forms that GNU tar and libarchive write, and maps that lie."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from cpstage import Limits
from tar_bytes import BLOCK, header, member, number, padded, pax, record, sparse, tar
from tar_checks import PEERS, accepted, refused
from trees import listing, needs

if TYPE_CHECKING:
    from pathlib import Path

    from archive_checks import Listing

PIECE = b"piece by piece, " * 32
CONTENT = bytes(1000) + PIECE + bytes(98_488) + b"end" + bytes(99_997)
EXTENTS = [(1000, 512), (100_000, 3), (200_000, 0)]
DATA = PIECE + b"end"
TREE: Listing = {"holes": ("file", False, CONTENT), "after": ("file", False, b"x")}


def records(**values: str) -> bytes:
    return b"".join(
        record(f"GNU.sparse.{key.replace('_', '.')}", value) for key, value in values.items()
    )


def form_10(extents: list[tuple[int, int]], size: int, data: bytes = DATA) -> bytes:
    numbers = [len(extents), *(number for extent in extents for number in extent)]
    lines = "".join(f"{number}\n" for number in numbers)
    return map_10(lines.encode(), size, data)


def map_10(lines: bytes, size: int, data: bytes = DATA) -> bytes:
    sizes = records(major="1", minor="0", name="holes", realsize=str(size))
    return pax(sizes) + member("GNUSparseFile.0/holes", padded(lines) + data)


def old_form(extents: list[tuple[int, int]], size: int, data: bytes = DATA) -> bytes:
    rest = extents[4:]
    more = [rest[at : at + 21] for at in range(0, len(rest), 21)]
    return sparse("holes", extents[:4], data, size, more)


FORMS = {"old": old_form, "1.0": form_10}


@pytest.mark.parametrize("form", FORMS)
def test_a_sparse_file(tmp_path: Path, form: str) -> None:
    body = tar(FORMS[form](EXTENTS, 200_000), member("after", "x"))

    assert accepted(body, tmp_path, *PEERS) == TREE


@pytest.mark.parametrize("form", FORMS)
def test_a_sparse_file_of_holes_only(tmp_path: Path, form: str) -> None:
    body = tar(FORMS[form]([(70_000, 0)], 70_000, b""), member("after", "x"))

    assert accepted(body, tmp_path, *PEERS)["holes"] == ("file", False, bytes(70_000))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [4, 5, 25, 26, 400])
def test_a_sparse_file_with_a_long_map(tmp_path: Path, form: str, count: int) -> None:
    extents = [(index * 1000, 512) for index in range(count)] + [(1000 * count, 0)]
    pieces = [b"%03d " % index * 128 for index in range(count)]
    body = tar(FORMS[form](extents, 1000 * count, b"".join(pieces)), member("after", "x"))

    content = accepted(body, tmp_path, *PEERS)["holes"][2]

    assert content == b"".join(piece + bytes(488) for piece in pieces)


@pytest.mark.parametrize(
    "options",
    [
        ["tar", "--format=gnu"],
        ["tar", "--format=pax", "--sparse-version=1.0"],
        ["bsdtar"],
    ],
    ids=" ".join,
)
def test_what_other_packers_make_of_holes(tmp_path: Path, options: list[str]) -> None:
    needs(options[0])
    (tmp_path / "tree").mkdir()
    with (tmp_path / "tree/disk.img").open("wb") as file:
        for offset in range(0, 40 << 20, 1 << 20):
            os.pwrite(file.fileno(), b"data at %d" % offset, offset)
        file.truncate(41 << 20)
    pack = [*options, "-cf", "app.tar", "-C", "tree"]
    subprocess.run([*pack, *(["--sparse"] * (options[0] == "tar")), "."], cwd=tmp_path, check=True)
    body = (tmp_path / "app.tar").read_bytes()

    assert accepted(body, tmp_path / "out") == listing(tmp_path / "tree")


SIZE = len(DATA)
LIES = {
    "overlap": [(0, 512), (500, 3), (9000, 0)],
    "backwards": [(1000, 512), (0, 3), (9000, 0)],
    "beyond the size": [(9000, SIZE)],
    "short of the size": [(0, SIZE)],
    "less than the data": [(9000 - SIZE + 1, SIZE - 1)],
    "more than the data": [(0, 512), (8996, 4)],
    "nothing of the data": [(9000, 0)],
    "pieces that are no blocks": [(0, 3), (8488, 512)],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("lie", LIES)
def test_a_map_that_lies(tmp_path: Path, form: str, lie: str) -> None:
    body = tar(member("before"), FORMS[form](LIES[lie], 9000))
    says = "the map of a sparse file (overlaps|does not fit|has a piece that ends)"

    refused(body, tmp_path, says, entry="holes")


PLAIN = member("GNUSparseFile.0/holes", b"2\n0\n512\n9000\n0\n".ljust(BLOCK, b"\0") + PIECE)
BAD_MAPS = {
    "form 0.0": pax(records(size="9", offset="0", numbytes="9")) + member("holes", DATA),
    "form 0.1": pax(records(name="holes", size="9", map="0,9")) + member("s", DATA),
    "an unknown form": pax(records(name="holes", major="2", minor="0", realsize="9000")) + PLAIN,
    "no form": pax(records(name="holes", realsize="9000")) + PLAIN,
    "no size": pax(records(name="holes", major="1", minor="0")) + PLAIN,
    "a negative size": pax(records(name="holes", major="1", minor="0", realsize="-1")) + PLAIN,
    "a count alone": map_10(b"3\n", 1000, b""),
    "an odd number": map_10(b"2\n0\n512\n1000\n", 1000),
    "a negative number": map_10(b"1\n0\n-515\n", 1000),
    "no count": map_10(b"\n0\n8\n", 1000),
    "more than there is": map_10(b"99999999999\n0\n8\n", 1000),
    "text": map_10(b"map of a sparse file", 1000),
    "another base": sparse("holes", [(b"\xff" * 12, 8)], DATA, 1000),
    "letters": sparse("holes", [(b"zero".ljust(12), 8)], DATA, 1000),
}


@pytest.mark.parametrize("case", BAD_MAPS)
def test_a_map_that_is_none(tmp_path: Path, case: str) -> None:
    says = "map of a sparse file|size of a sparse file|form that is not supported|the offset is"

    refused(tar(member("before"), BAD_MAPS[case]), tmp_path, says, entry="holes")


def test_a_map_that_is_longer_than_a_header_may_be(tmp_path: Path) -> None:
    block = bytes(504) + b"\1" + bytes(7)
    endless = sparse("holes", [], b"", 0, [[]])[:-BLOCK] + block * 2100
    long = map_10(b"400000\n" + b"0\n" * 800_000, 1000)

    refused(tar(endless), tmp_path / "old", "--max-header")
    refused(tar(long), tmp_path / "1.0", "--max-header")


@pytest.mark.parametrize("form", FORMS)
def test_a_sparse_file_that_is_cut_off(tmp_path: Path, form: str) -> None:
    extents = [(index * 1000, 512) for index in range(30)] + [(30_000, 0)]
    whole = tar(member("before"), FORMS[form](extents, 30_000, PIECE * 30), end=b"")

    for length in range(BLOCK + 1, len(whole), 83):
        refused(whole[:length], tmp_path / str(length), "cut off|not followed|longer than its")


def test_the_name_of_a_sparse_file_is_checked(tmp_path: Path) -> None:
    evil = pax(records(name="../evil", major="1", minor="0", realsize="9000")) + PLAIN

    refused(tar(evil), tmp_path, "it leads upwards", entry="../evil")


def test_a_directory_is_not_sparse(tmp_path: Path) -> None:
    body = tar(member("before"), sparse("holes/", [(0, SIZE)], DATA, 1000))

    refused(body, tmp_path, "directory with data", entry="holes/")


def test_holes_count_as_what_they_unpack_to(tmp_path: Path) -> None:
    body = tar(FORMS["old"](EXTENTS, 200_000))

    refused(body, tmp_path, "--max-size", limits=Limits(size=150_000))


def test_a_size_that_is_beyond_all_files(tmp_path: Path) -> None:
    huge = number(1 << 80, 12)
    body = tar(member("before"), sparse("holes", [(0, SIZE)], DATA, huge))

    refused(body, tmp_path, "the size is too large", entry="holes")


@pytest.mark.parametrize("at", [41, 137, 138])
@pytest.mark.parametrize("kind", [b"0", b"2", b"5", b"7"])
def test_a_map_in_a_header_that_is_of_no_sparse_file(tmp_path: Path, at: int, kind: bytes) -> None:
    rest = b"\0" * at + b"1"
    body = tar(member("before"), header("it", kind=kind, magic=b"ustar  \0", rest=rest))

    refused(body, tmp_path, "the map of a sparse file", entry="before")


def test_a_sparse_file_with_two_maps(tmp_path: Path) -> None:
    body = tar(pax(records(name="holes", realsize="9")), old_form(EXTENTS, 200_000))

    refused(body, tmp_path, "two maps", entry="holes")


@pytest.mark.parametrize("key", ["SCHILY.realsize", "SUN.holesdata", "GNU.sparse.size"])
@pytest.mark.parametrize("kind", [b"0", b"2", b"5"])
def test_a_sparse_file_of_another_form(tmp_path: Path, key: str, kind: bytes) -> None:
    body = tar(member("before"), pax(record(key, " 0 9")), header("it", kind=kind, link="before"))

    refused(body, tmp_path, "form that is not supported|with data", entry="it")
