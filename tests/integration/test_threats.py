"""What is refused and what is accepted, from S3 and from a local file, row by row.

The tests of each format go through every case; here each kind of hostile archive goes through both
doors that archives come in by, as zip, tar and tar.gz, and must leave nothing behind.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

import cpstage
from cpstage import AwsConfig, Limits, Unpacking
from cpstage.errors import ArtifactRejected
from cpstage.local import Input, LocalAWS
from tar_bytes import FIFO, directory, gzip, hard_link, link, member, pax, record, tar
from trees import listing, names
from zip_bytes import DEFLATED, Entry, zip_bytes

pytestmark = pytest.mark.slow

LINK = stat.S_IFLNK | 0o777
LIMITS = Limits(size=1_000_000, entries=50, depth=20, header=2000)

Door = Callable[[bytes, Path], Path]
"""Takes an archive and a directory of the test's own; returns where it was unpacked, or raises."""


def zipped(*entries: Entry, **fields: object) -> bytes:
    return zip_bytes(Entry("good", b"good"), *entries, **fields)  # type: ignore[arg-type]


def tarred(*members: bytes) -> bytes:
    return tar(member("good", b"good"), *members)


HOSTILE: dict[str, tuple[bytes, bytes | None]] = {
    "a name that leads upwards": (zipped(Entry("../evil", b"x")), tarred(member("../evil", b"x"))),
    "an absolute name": (zipped(Entry("/tmp/evil", b"x")), tarred(member("/tmp/evil", b"x"))),
    "a drive letter": (zipped(Entry("C:/evil", b"x")), tarred(member("C:/evil", b"x"))),
    "a name of another host": (zipped(Entry("\\\\h\\evil", host=0)), None),
    "a backslash upwards": (zipped(Entry("a\\..\\..\\evil")), tarred(member("..\\evil"))),
    "a NUL": (zipped(Entry("a\0evil", b"x")), tarred(pax(record("path", "a\0evil")), member())),
    "an empty name": (zipped(Entry("", b"x")), tarred(member("", b"x"))),
    "a name of dots": (zipped(Entry("./.", b"x")), tarred(member("./.", b"x"))),
    "a name that is no text": (
        zipped(Entry(b"\xff\xfe", flags=0x800)),
        None,
    ),
    "a link upwards": (zipped(Entry("l", b"../evil", mode=LINK)), tarred(link("l", "../evil"))),
    "an absolute link": (zipped(Entry("l", b"/etc", mode=LINK)), tarred(link("l", "/etc"))),
    "a chain of links": (
        zipped(Entry("a", b".", mode=LINK), Entry("b", b"a/..", mode=LINK)),
        tarred(link("a", "."), link("b", "a/..")),
    ),
    "a member below a link": (
        zipped(Entry("l", b".", mode=LINK), Entry("l/evil", b"x")),
        tarred(link("l", "."), member("l/evil", b"x")),
    ),
    "a hard link outside": (b"", tarred(hard_link("h", "/etc/passwd"))),
    "a hard link to a link": (b"", tarred(link("l", "good"), hard_link("h", "l"))),
    "a fifo": (zipped(Entry("f", mode=stat.S_IFIFO | 0o644)), tarred(member("f", kind=FIFO))),
    "a device": (zipped(Entry("d", mode=stat.S_IFCHR | 0o644)), tarred(member("d", kind=b"3"))),
    "an unknown type": (zipped(Entry("u/", b"x", mode=0o150644)), tarred(member("u", kind=b"Q"))),
    "several volumes": (zipped(end={"disk": 1}), tarred(member("m", b"x", kind=b"M"))),
    "a name twice": (zipped(Entry("./good", b"2")), tarred(link("good", "x"))),
    "a file below a file": (zipped(Entry("good/evil")), tarred(member("good/evil"))),
    "too many bytes": (
        zipped(Entry("zeros", bytes(2_000_000), DEFLATED)),
        tarred(member("zeros", bytes(2_000_000))),
    ),
    "too many entries": (
        zipped(*(Entry(f"f{n}") for n in range(60))),
        tarred(*(member(f"f{n}") for n in range(60))),
    ),
    "too deep a path": (zipped(Entry("d/" * 30 + "f")), tarred(member("d/" * 30 + "f"))),
    "too long a header": (b"", tarred(pax(record("comment", "x" * 3000)), member("f"))),
    "overlapping entries": (zipped(Entry("a", b"xx", central={"offset": 0})), None),
    "a size that lies": (
        zipped(Entry("f", b"1234", DEFLATED, central={"size": 3}, local={"size": 3})),
        tarred(member("f", b"1234", size=b"-0000000004\0")),
    ),
    "a wrong CRC": (zipped(Entry("f", b"x", central={"crc": 1}, local={"crc": 1})), None),
    "a stream that ends early": (zipped(Entry("f", b"x" * 99, DEFLATED, b"\x4b")), None),
    "an encrypted entry": (zipped(Entry("f", b"x", flags=1)), None),
    "an unknown method": (zipped(Entry("f", b"x", 99, b"x")), None),
    "headers that disagree": (zipped(Entry("f", b"x", local={"name": b"g"})), None),
    "a hidden entry": (zipped(Entry("evil", b"x", hidden=True)), None),
    "data after the end": (zipped() + b"more", tarred().ljust(10_240, b"\0") + b"more"),
    "two archives": (zipped() + zipped(), None),
    "a wrong count": (zipped(end={"count": 2, "here": 2}), None),
    "a damaged header": (zipped(Entry("f", central={"signature": b"PK\0\0"})), tarred(b"x" * 512)),
    "the end cut off": (zipped()[:-1], tarred(member("f", b"x"))[:-1100]),
    "a sparse file of negative size": (b"", tarred(member("s", kind=b"S", size=b"-1"))),
}
"""For each row: a zip, where zip has such a thing, and a tar, where tar has."""

ACCEPTED: dict[str, tuple[bytes, bytes]] = {
    "a leading ./": (zipped(Entry("./x", b"1")), tarred(member("./x", b"1"))),
    "a literal backslash": (zipped(Entry("a\\b", b"1")), tarred(member("a\\b", b"1"))),
    "links inside": (
        zipped(Entry("l", b"good", mode=LINK), Entry("d/l", b"../l", mode=LINK)),
        tarred(link("l", "good"), link("d/l", "../l")),
    ),
    "a dangling link": (zipped(Entry("l", b"none", mode=LINK)), tarred(link("l", "none"))),
    "special permissions": (
        zipped(Entry("s", b"1", mode=stat.S_IFREG | 0o6755)),
        tarred(member("s", b"1", mode=0o6755)),
    ),
    "empty directories": (
        zipped(Entry("d/", mode=stat.S_IFDIR | 0o755), Entry("e/f/", mode=stat.S_IFDIR | 0o755)),
        tarred(directory("d/"), directory("e/f/")),
    ),
    "a self-extractor": (zip_bytes(Entry("good", b"good", before=b"#!/bin/sh\nexit\n")), tarred()),
    "a descriptor": (zipped(Entry("d", b"x", DEFLATED, descriptor="bare64")), tarred()),
    "zeros after the end": (zipped() + bytes(99), tarred() + bytes(4096)),
    "the time zero": (
        zipped(Entry("t", b"1", local={"time": 0, "date": 0}, central={"time": 0, "date": 0})),
        tarred(member("t", b"1", mtime=0)),
    ),
}

FORMS = ["zip", "tar", "tar.gz"]


def _cases(table: dict[str, tuple[bytes, bytes | None]]) -> list[object]:
    return [
        pytest.param(_as(form, *bodies), id=f"{name}, {form}")
        for name, bodies in table.items()
        for form in FORMS
        if bodies[form != "zip"]
    ]


def _as(form: str, zipped_body: bytes, tarred_body: bytes | None) -> bytes:
    if form == "zip":
        return zipped_body
    assert tarred_body is not None
    return tarred_body if form == "tar" else gzip(tarred_body)


@pytest.fixture(params=["S3", "file"])
def door(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Door:
    if request.param == "file":
        return _from_a_file
    aws: LocalAWS = request.getfixturevalue("aws")
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    return lambda body, place: _from_s3(aws, body, place)


def _from_a_file(body: bytes, place: Path) -> Path:
    archive = place / "App.zip"
    archive.write_bytes(body)
    try:
        cpstage.unpack(archive, place / "into", unpacking=Unpacking(limits=LIMITS))
    finally:
        archive.unlink()
    return place / "into"


def _from_s3(aws: LocalAWS, body: bytes, place: Path) -> Path:
    config = AwsConfig()
    job = cpstage.get_job(aws.add_job([Input("App", body)]), config=config)
    cpstage.fetch(
        job, place, cpstage.FetchOptions(unpacking=Unpacking(limits=LIMITS)), config=config
    )
    return place / "in/App"


@pytest.mark.parametrize("body", _cases(HOSTILE))
def test_a_hostile_archive_is_refused_and_leaves_nothing(
    tmp_path: Path, door: Door, body: bytes
) -> None:
    place = tmp_path / "place"
    place.mkdir()

    with pytest.raises(ArtifactRejected) as caught:
        door(body, place)

    assert caught.value.exit_code == 65
    assert "App" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert names(place) == []
    assert not (place / ".cpstage/staging").exists() or names(place / ".cpstage/staging") == []
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize("body", _cases({**ACCEPTED}))
def test_an_unusual_archive_is_accepted(tmp_path: Path, door: Door, body: bytes) -> None:
    found = listing(door(body, tmp_path))

    assert found["good"] == ("file", False, b"good")
    assert all(b"evil" not in name.encode() for name in found)
