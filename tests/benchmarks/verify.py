"""That a tool did what it was timed for: the trees it unpacked, and the archives it uploaded."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from benchmarks.measure import Failed
from benchmarks.object_store import ObjectStore, Stored

_PIECE = 1 << 20
Contents = Mapping[str, tuple[int, int]]
"""The files of an archive: size and CRC-32 by their paths."""


def tree_digests(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a directory, by its path there."""
    digests = {}
    for parent, _, names in os.walk(directory):
        for name in names:
            path = Path(parent, name)
            digest = hashlib.sha256()
            with path.open("rb", buffering=0) as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
            digests[str(path.relative_to(directory))] = digest.hexdigest()
    return digests


def tar_contents(archive: Path) -> Contents:
    """Return the files of a tar.gz, read to the end of the gzip stream."""
    contents = {}
    with tarfile.open(archive, "r|gz") as opened:
        for member in opened:
            file = opened.extractfile(member) if member.isreg() else None
            if file is not None:
                crc = 0
                while piece := file.read(_PIECE):
                    crc = zlib.crc32(piece, crc)
                contents[member.name.removeprefix("./")] = (member.size, crc)
    return contents


def archive_contents(archive: Path) -> Contents:
    """Return what the directory of a zip says of its files."""
    with zipfile.ZipFile(archive) as opened:
        return {
            info.filename.removeprefix("./"): (info.file_size, info.CRC)
            for info in opened.infolist()
            if not info.is_dir()
        }


def check_tree(directory: Path, expected: Mapping[str, str]) -> None:
    """Compare a tree with the digests of the one that was packed.

    Raises:
        Failed: It has other files, or other bytes in them.
    """
    found = tree_digests(directory)
    if found != expected:
        names = {*found.items()} ^ {*expected.items()}
        raise Failed(f"{len(found)} files instead of {len(expected)}: {sorted(names)[:3]}")


def check_object(
    store: ObjectStore, bucket: str, key: str, scratch: Path, expected: Contents, kind: str
) -> Stored:
    """Download an object, and test the archive, a zip or a tar.gz, against what was packed.

    Raises:
        Failed: It is damaged, has other files, or is not encrypted as it should be.
    """
    stored = store.look_at(bucket, key)
    if (stored.encryption, stored.kms_key_id) != ("aws:kms", store.key_arn):
        raise Failed(f"stored with {stored.encryption} under {stored.kms_key_id}")
    archive = scratch / "downloaded.zip"
    store.get(bucket, key, archive)
    if kind == "zip":
        _test(archive)
    contents = archive_contents(archive) if kind == "zip" else tar_contents(archive)
    archive.unlink()
    if contents != expected:
        names = {*contents.items()} ^ {*expected.items()}
        raise Failed(f"{len(contents)} files instead of {len(expected)}: {sorted(names)[:3]}")
    return stored


def _test(archive: Path) -> None:
    """Inflate all members, and compare their checksums: by unzip, where it is installed."""
    if shutil.which("unzip"):
        command = ["unzip", "-tq", str(archive)]
        tested = subprocess.run(command, capture_output=True, text=True, check=False)
        damage = (tested.stdout + tested.stderr)[-500:] if tested.returncode else None
    else:
        with zipfile.ZipFile(archive) as opened:
            damage = opened.testzip()
    if damage:
        raise Failed(f"the archive is damaged: {damage}")
