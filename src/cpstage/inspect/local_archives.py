"""Local archives and trees, looked into with the code that looks into artifacts in S3."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

from cpstage._deflate import crc32_of
from cpstage.archive.blob import FileBlob
from cpstage.aws.config import AwsConfig
from cpstage.aws.job_session import ObjectInfo
from cpstage.errors import ArtifactRejected, NotFound
from cpstage.filesystem.tree import local_failures
from cpstage.filesystem.walk import Globs, read_file, walk
from cpstage.inspect.content import each_member
from cpstage.inspect.listing import Listed, Listing, list_remote
from cpstage.inspect.opened import Counted, OpenArtifact, open_message
from cpstage.job import Artifact, ArtifactName, S3Location
from cpstage.progress import Progress, Silence
from cpstage.transfer.artifact import DecryptionKeys, identify, naming, read_head
from cpstage.transfer.options import Unpacking


class FileLocation(S3Location):
    """A local file in the place of an S3 location; the key is its path."""

    def __str__(self) -> str:
        return self.key


@contextmanager
def open_archive(
    file: Path | str, options: Unpacking, config: AwsConfig, progress: Progress
) -> Iterator[OpenArtifact]:
    """Open a local archive as an artifact; decrypt all of an encrypted message.

    Args:
        file: The archive, or any other file.
        options: Whether archives and encrypted messages are opened, and with which keys.
        config: How to reach KMS, with the caller's own credentials.
        progress: Is told of messages that are decrypted.

    Raises:
        NotFound: The file does not exist.
        ArtifactRejected: It is not a regular file, cannot be decrypted, or lacks the format that
            its name announces.
        LocalIOError: It cannot be read, or the disk is too small for the plaintext.
    """
    path = Path(file)
    artifact = Artifact(ArtifactName(path.name), FileLocation("", str(path)))
    with local_failures(path, "read"):
        if not path.exists():
            raise NotFound(f"{path} does not exist", hint="give an archive")
        if not path.is_file():
            raise ArtifactRejected(f"{path} is not a regular file", hint="give an archive")
    blob = FileBlob(path)
    try:
        counted = Counted(blob)
        with naming(str(path)):
            found = identify(read_head(counted), options, name=path.name, content_type="")
        info = ObjectInfo(blob.size, "", None, "", None, None)
        if found.header is None or options.envelopes == "keep":
            yield OpenArtifact(artifact, info, found.format, counted, counted, found.message)
            return
        kms = cache(partial(config.kms, None))  # a client for each region
        keys = DecryptionKeys(
            kms,
            key_ids=options.key_ids,
            requires_commitment=options.requires_commitment,
            context=options.context,
        )
        with open_message(
            artifact, info, counted, found.header, keys=keys, options=options, progress=progress
        ) as opened:
            yield opened
    finally:
        blob.close()


def list_archive(
    file: Path | str,
    *,
    members: Globs | None = None,
    unpacking: Unpacking | None = None,
    config: AwsConfig | None = None,
    progress: Progress | None = None,
) -> Listing:
    """List what is in a local archive; arguments and errors as those of ``list_artifacts``.

    Raises:
        NotFound: The file does not exist.
        ArtifactRejected, LocalIOError: As :func:`open_archive`.
    """
    how, shown = unpacking or Unpacking(), progress or Silence()
    with open_archive(file, how, config or AwsConfig(), shown) as opened:
        return list_remote(opened, how, shown).only(members or Globs())


def read_archive(
    file: Path | str,
    paths: Sequence[str],
    *,
    unpacking: Unpacking | None = None,
    config: AwsConfig | None = None,
) -> Iterator[bytes | memoryview]:
    """Return the data of members of a local archive; paths and errors as in ``read_member``."""
    how = unpacking or Unpacking()
    with open_archive(file, how, config or AwsConfig(), Silence()) as opened:
        for _, chunks in each_member(opened, paths, how.limits):
            yield from chunks


def list_tree(directory: Path) -> list[Listed]:
    """List a local tree as an archive is listed; every file is read for its CRC-32.

    Raises:
        LocalIOError: It cannot be read.
    """
    found = []
    for entry in walk(directory, Globs()):
        is_file = entry.kind == "file"
        found.append(
            Listed(
                str(entry.path),
                entry.kind,
                entry.size if is_file else 0,
                None,
                crc32_of(read_file(entry)) if is_file else None,
                is_file and bool(entry.mode & stat.S_IXUSR),
                entry.target,
                mtime_ns=entry.mtime_ns,
            )
        )
    return found
