"""Hostile tars cost a bounded amount of work; counted in members and headers, not in seconds."""

from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from cpstage import Limits
from cpstage.archive.options import Budget
from cpstage.archive.tar_headers import count_members
from cpstage.archive.tar_reader import tar_members
from cpstage.errors import ArtifactRejected
from tar_bytes import directory, gzip, hard_link, header, link, member, padded, pax, record, tar
from unpacked_archives import unpack

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 12_000


def _empty_files(count: int) -> list[bytes]:
    one = header("AAAAAAAA")
    sums = sum(one[:148] + b" " * 8 + one[156:])
    found = []
    for number in range(count):
        name = b"%08d" % number
        total = sums - sum(b"AAAAAAAA") + sum(name)
        found.append(name + one[8:148] + b"%06o\0 " % total + one[156:])
    return found


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_a_tar_over_the_limit_of_entries_is_refused_before_all_of_them_are_written(
    tmp_path: Path, kind: str
) -> None:
    body = tar(*_empty_files(LIMIT + 1))

    with pytest.raises(ArtifactRejected, match="limit of entries"):
        unpack(
            gzip(body) if kind == "tar.gz" else body, tmp_path / "d", limits=Limits(entries=LIMIT)
        )

    assert len(os.listdir(tmp_path / "d")) < LIMIT - 1000


def test_a_tar_at_the_limit_of_entries_is_accepted(tmp_path: Path) -> None:
    body = tar(directory("./"), *_empty_files(LIMIT))

    assert unpack(body, tmp_path / "d", limits=Limits(entries=LIMIT)).files == LIMIT


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_members_are_counted_as_python_counts_them(form: int) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as archive:
        for number in range(50):
            info = tarfile.TarInfo(f"{'é' * (number % 3)}{'d' * 60}/{'n' * (number + 30)}")
            info.size, info.mtime = number * 37, 1.5 if form == tarfile.PAX_FORMAT else 1
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    body = made.getvalue()

    assert count_members(memoryview(body)) == 50
    assert all(count_members(memoryview(body)[:cut]) <= 50 for cut in range(0, len(body), 512))


def test_links_directories_and_roots_are_counted_right() -> None:
    others = [directory("d", size=5), link("l", "d"), hard_link("h", "f"), directory("./")]
    skipped = [header("label", kind=b"V"), header("acl", kind=b"A", size=3) + padded(b"acl")]

    body = tar(member("f", "x" * 700), *others, *skipped, member("last"))

    assert count_members(memoryview(body)) == 5


def test_counting_ends_where_a_size_is_elsewhere() -> None:
    body = tar(member("a"), pax(record("size", "512")), header("b"), member("c"))

    assert count_members(memoryview(body)) == 1


def _records(count: int) -> bytes:
    return pax(record("x", "") * count)


def _read_all(body: bytes, read: list[int]) -> None:
    """Read an archive, and take down the lengths of the headers that are read."""

    class Headers(Budget):
        def check_header(self, size: int) -> None:
            read.append(size)

    budget = Headers(Limits(), len(body))
    with tar_members(io.BytesIO(body), compressed=False, budget=budget) as found:
        for one in found:
            list(one.chunks())


def test_pax_headers_with_very_many_records_are_refused_after_a_few() -> None:
    read: list[int] = []
    members = [part for number in range(60) for part in (_records(80_000), member(f"f{number}"))]

    with pytest.raises(ArtifactRejected, match="over 250,000 records"):
        _read_all(tar(*members), read)

    assert len(read) <= 4


def test_maps_of_sparse_files_with_very_many_pieces_are_refused_after_a_few() -> None:
    read: list[int] = []
    sparse_map = ",".join(["0,0"] * 80_000)
    headers = pax(record("GNU.sparse.map", sparse_map), record("GNU.sparse.size", "0"))
    members = [part for number in range(60) for part in (headers, member(f"f{number}"))]

    with pytest.raises(ArtifactRejected, match="sparse files"):
        _read_all(tar(*members), read)

    assert len(read) <= 4


def test_an_archive_of_many_members_may_have_many_records(tmp_path: Path) -> None:
    members = [part for n in range(300) for part in (_records(20), member(f"f{n}"))]

    assert unpack(tar(*members), tmp_path / "d").files == 300
