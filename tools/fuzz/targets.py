"""What is fuzzed: each target reads untrusted bytes, and may raise nothing but our own errors.

A function here returns whether bytes were taken or refused. Anything else that it raises is a find.
Nothing here knows of the fuzzer, so that what was found can be replayed without it.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cpstage import CpstageError, Limits, parse_job
from cpstage.encryption.header import read_header
from cpstage.errors import InternalError
from cpstage.job import mask_document
from cpstage.transfer.manifest import record_of
from unpacked_archives import unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CORPUS = Path(__file__).parent / "corpus"

_LIMITS = Limits(size=1 << 20, entries=900)
"""Enough for any seed, and little enough for thousands of inputs a minute."""


def _unpack(body: bytes, name: str) -> bool:
    taken = False
    with tempfile.TemporaryDirectory(prefix="cpstage-fuzz-") as directory:
        into = Path(directory) / "into"
        try:
            unpack(body, into, name=name, limits=_LIMITS)
            taken = True
        except InternalError:
            raise
        except CpstageError as error:
            _check_message(error)
        assert set(os.listdir(directory)) <= {"into"}, "something was written outside"
        _check_tree(into)
    return taken


def _check_message(error: CpstageError) -> None:
    assert str(error).isprintable(), "a message is more than one line"


def _check_tree(root: Path) -> None:
    """Check that there are files, directories and links, and that no link leads out."""
    for directory, _, files in os.walk(root):
        for path in (Path(directory, name) for name in files):
            mode = path.lstat().st_mode
            assert stat.S_ISREG(mode) or stat.S_ISLNK(mode), "something special was made"
            assert mode & 0o7000 == 0, "a bit was kept beyond the permission bits"
            if stat.S_ISLNK(mode):
                target = os.path.realpath(path)
                assert Path(target).is_relative_to(root.resolve()), "a link leads out"


def unpack_zip(body: bytes) -> bool:
    """Unpack what is called a zip."""
    return _unpack(body, "app.zip")


def unpack_tar(body: bytes) -> bool:
    """Unpack what is called a tar."""
    return _unpack(body, "app.tar")


def unpack_gzip(body: bytes) -> bool:
    """Unpack what is called a tar.gz."""
    return _unpack(body, "app.tar.gz")


def find_message(body: bytes) -> bool:
    """Look for the header of an encrypted message, as is done with every artifact."""
    header = read_header(body)
    if header is not None:
        json.dumps(header.document())
    return header is not None


def read_job(body: bytes) -> bool:
    """Read a job document as a command does that is given one, and say all there is to say."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return False
    try:
        job = parse_job(document)
    except CpstageError as error:
        _check_message(error)
        return False
    mask_document(document)
    assert repr(job).isprintable()
    json.dumps([record_of(job), job.region, job.partition])
    for artifact in (*job.input_artifacts, *job.output_artifacts):
        assert str(artifact.location).isprintable()
        try:
            assert "/" not in artifact.location.file_name
        except CpstageError as error:
            _check_message(error)
    return True


TARGETS: Mapping[str, Callable[[bytes], bool]] = {
    "zip": unpack_zip,
    "tar": unpack_tar,
    "gzip": unpack_gzip,
    "job": read_job,
    "message": find_message,
}
