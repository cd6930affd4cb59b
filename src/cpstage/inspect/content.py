"""The content of an artifact or of a local archive, read without staging it.

The object in S3 is read where a command needs it: of a zip, the central directory and then a
member's own bytes in parallel ranges; of a tar, everything up to the member. An encrypted object is
decrypted as a whole into a temporary file first, since every frame has to be authenticated before a
byte of it is shown.
"""

from __future__ import annotations

import io
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import gettempdir
from typing import Any, NamedTuple

from cpstage._posix import require_posix
from cpstage.archive.blob import Blob, BytesBlob, FileBlob, ReadAhead
from cpstage.archive.formats import Format
from cpstage.archive.members import Member
from cpstage.archive.options import Budget, Limits
from cpstage.archive.tar_reader import tar_members
from cpstage.archive.zip_directory import read_directory, read_tail
from cpstage.archive.zip_format import ZipEntry
from cpstage.archive.zip_reader import entry_chunks
from cpstage.aws.config import DEFAULT_MAX_AGE, AwsConfig
from cpstage.aws.job_session import JobSession
from cpstage.aws.s3 import ObjectInfo
from cpstage.encryption.header import Header
from cpstage.errors import (
    AccessDenied,
    ArtifactRejected,
    LocalIOError,
    NotFound,
    UsageError,
    local_failures,
)
from cpstage.filesystem.walk import Globs
from cpstage.job import Artifact, ArtifactName, ArtifactSet, S3Location, choose
from cpstage.progress import Progress, Silence
from cpstage.transfer.artifact import (
    DecryptionKeys,
    archive_format,
    begin_checksum,
    callers_keys,
    decrypted,
    identify,
    job_keys,
    naming,
    read_head,
    refuse_s3_client,
)
from cpstage.transfer.options import Unpacking

_OUTPUT_HINT = "the credentials of a job may usually write its outputs but not read them"
_ROOM_HINT = "free some space, or set TMPDIR to a directory with enough space"
_OTHERS_HINT = "see cpstage ls for the entries that can be read"
_GLOB = re.compile(r"[*?\[]")
_BUFFER = 1 << 18

_Chunks = Iterator[bytes | memoryview]
_Members = Iterator[tuple[str, _Chunks]]


class Counted:
    """A blob that counts the bytes that are read from another one."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        self._lock = threading.Lock()
        self.size = blob.size
        self.bytes_read = 0

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes ``[offset, offset + length)``."""
        with self._lock:
            self.bytes_read += length
        return self._blob.read(offset, length)


class Slice(NamedTuple):
    """A part of a blob as a blob: so many bytes from a start."""

    blob: Blob
    start: int
    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes ``[offset, offset + length)`` of the part."""
        return self.blob.read(self.start + offset, length)


@dataclass(frozen=True)
class OpenArtifact:
    """An artifact's object, open for random access.

    Attributes:
        artifact: The job's artifact.
        info: The metadata of the object.
        format: The archive format; None for any other file.
        blob: The bytes; the plaintext, where the object was decrypted.
        counted: The object, with the number of bytes that were read.
        envelope: The header of the encrypted message as JSON has it.
        decrypted: Whether the message was decrypted.
    """

    artifact: Artifact
    info: ObjectInfo
    format: Format | None
    blob: Blob
    counted: Counted
    envelope: Mapping[str, Any] | None = None
    decrypted: bool = False


@contextmanager
def open_artifact(
    session: JobSession, artifact: Artifact, options: Unpacking, progress: Progress
) -> Iterator[OpenArtifact]:
    """Ask S3 about an artifact's object, and read its start; decrypt all of an encrypted one.

    Raises:
        ObjectNotFound, AccessDenied, ServiceUnavailable: As S3 and KMS say.
        ArtifactRejected: It cannot be decrypted, or lacks the format that its name announces.
        LocalIOError: The disk is too small for the plaintext.
    """
    try:
        info = session.store.head(artifact)
    except AccessDenied as error:
        if session.job.read_with == "caller" or artifact in session.job.input_artifacts:
            raise
        raise AccessDenied(error.message, hint=_OUTPUT_HINT) from error
    refuse_s3_client(artifact, info.metadata, options)
    counted = Counted(session.store.open(artifact, info))
    with naming_artifact(artifact):
        head = read_head(counted)
        found = identify(head, options, name=artifact.location.key, content_type=info.content_type)
    blob = BytesBlob(head) if len(head) == info.size else counted
    opened = OpenArtifact(artifact, info, found.format, blob, counted, found.message)
    keys = partial(job_keys, session.job, artifact, session.kms, options)
    with _decrypted(opened, found.header, keys, options, progress) as plain:
        yield plain


class FileLocation(S3Location):
    """A local file in the place of an S3 location; the key is its path."""

    def __str__(self) -> str:
        return self.key


class LocalFile(Artifact):
    """A local file in the place of an artifact."""

    @property
    def title(self) -> str:
        """The path, for messages."""
        return self.location.key


def naming_artifact(artifact: Artifact) -> AbstractContextManager[None]:
    """Name an artifact, or a local file, in a rejection of what was to be read and not staged."""
    is_local = isinstance(artifact, LocalFile)
    hint = "copy it again, or make it anew" if is_local else "check the action that made it"
    return naming(artifact.title, hint, is_local=is_local)


@contextmanager
def open_archive(
    file: Path | str, options: Unpacking, config: AwsConfig, progress: Progress
) -> Iterator[OpenArtifact]:
    """Open a local archive, or any other file, as an artifact; see :func:`open_artifact`.

    KMS is reached with the caller's own credentials.

    Raises:
        NotFound: The file does not exist.
        ArtifactRejected: It is not a regular file, cannot be decrypted, or lacks the format that
            its name announces.
        LocalIOError: It cannot be read, or the disk is too small for the plaintext.
    """
    path = Path(file)
    artifact = LocalFile(ArtifactName(path.name), FileLocation("", str(path)))
    with local_failures(path, "read"):
        if not path.exists():
            raise NotFound(f"{path} does not exist", hint="give an archive")
        if not path.is_file():
            raise ArtifactRejected(f"{path} is not a regular file", hint="give an archive")
    with closing(FileBlob(path)) as blob:
        counted = Counted(blob)
        with naming_artifact(artifact):
            found = identify(read_head(counted), options, name=path.name, content_type="")
        info = ObjectInfo(blob.size, "", None, "", None, None)
        opened = OpenArtifact(artifact, info, found.format, counted, counted, found.message)
        keys = partial(callers_keys, config, options)
        with _decrypted(opened, found.header, keys, options, progress) as plain:
            yield plain


@contextmanager
def _decrypted(
    opened: OpenArtifact,
    header: Header | None,
    keys: Callable[[], DecryptionKeys],
    options: Unpacking,
    progress: Progress,
) -> Iterator[OpenArtifact]:
    """Give random access to an artifact; to its plaintext, unless messages are kept.

    ``keys`` is called for encrypted messages only: it loads the code for KMS keys.
    """
    if header is None or options.encrypted_messages == "keep":
        yield opened
        return
    artifact, info = opened.artifact, opened.info
    checksum = begin_checksum(artifact, info)
    hints = {"name": artifact.location.key, "content_type": info.content_type}
    with ExitStack() as stack:
        with naming_artifact(artifact):
            with (
                progress.phase(f"{artifact.name}: decrypting", info.size) as advance,
                ReadAhead(opened.counted, advance, checksum) as stream,
            ):
                directory = _temporary_directory(info.size)
                plain = stack.enter_context(decrypted(stream, keys(), directory))
                stream.finish()
            found = archive_format(read_head(plain), options, **hints)
        yield replace(opened, format=found, blob=plain, decrypted=True)


def _temporary_directory(size: int) -> Path:
    """Return the directory for temporary files, with room for so many bytes."""
    require_posix()
    try:
        directory = Path(gettempdir())
    except OSError as error:
        raise LocalIOError("there is no directory for temporary files", hint=_ROOM_HINT) from error
    free = shutil.disk_usage(directory).free
    if size > free:
        raise LocalIOError(
            f"cannot decrypt {size:,} bytes in {directory}: it has {free:,} bytes left",
            hint=_ROOM_HINT,
        )
    return directory


def find_artifacts(job: ArtifactSet, globs: Sequence[str]) -> list[Artifact]:
    """Return the artifacts of some names; without a name, all inputs, or all of an execution.

    Raises:
        UsageError: A name or glob matches nothing.
    """
    if not globs:
        return [*job.input_artifacts, *job.made_artifacts]
    every = [*job.input_artifacts, *job.output_artifacts]
    whose = "the job" if job.read_with == "job" else "the execution"
    return choose(every, globs, f"artifact of {whose}", whose)


def plain_path(name: str) -> str:
    """Return a name as people write it: without ``./`` before it and a slash behind it."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def read_entries(remote: OpenArtifact, limits: Limits) -> list[ZipEntry]:
    """Read the central directory of a zip; entries that cannot be read have a ``fault``."""
    tail = read_tail(remote.blob, Budget(limits, remote.blob.size))
    return read_directory(remote.blob, tail, is_tolerant=True)


@contextmanager
def members(remote: OpenArtifact, limits: Limits, progress: Progress) -> Iterator[Iterator[Member]]:
    """Read a tar from its start as far as members are asked for, and within the limits."""
    budget = Budget(limits, remote.blob.size)

    def counted(member: Member) -> Member:
        budget.spend_entry()
        return member._replace(chunks=lambda: budget.counted(member.chunks()))

    with (
        progress.phase(f"{remote.artifact.name}: reading", remote.blob.size) as advance,
        ReadAhead(remote.blob, advance) as stream,
        tar_members(
            io.BufferedReader(stream, _BUFFER),
            compressed=remote.format == "tar.gz",
            budget=budget,
            is_tolerant=True,
        ) as found,
    ):
        yield map(counted, found)


def read_member(
    job: ArtifactSet,
    artifact: str,
    path: str | Sequence[str],
    *,
    unpacking: Unpacking | None = None,
    config: AwsConfig | None = None,
    credentials_max_age: float = DEFAULT_MAX_AGE,
) -> Iterator[bytes | memoryview]:
    """Return the data of one member, or of several members one after the other, as it comes.

    A path is the name of a member, or else a glob, which takes all files that it matches. Members
    of a zip come in the order of the paths, those of a tar in the order of the archive.

    The CRC-32 of a zip's member is compared after its last byte: the bytes are good only if the
    iterator ends without an error. The same holds for the checksum of an object that is a plain
    file. A tar has no checksum; its first member of the name is returned, and the rest of the
    archive is not read. An encrypted message is authenticated before its first byte is returned.

    Args:
        job: The job, with its session credentials; or a past execution.
        artifact: The name of an input, or of an output that may be read.
        path: The name of the member, or names and globs.
        unpacking: Limits, and the keys that may decrypt.
        config: The configuration of the AWS clients.
        credentials_max_age: Seconds after which the job's session is renewed ahead of time.

    Raises:
        UsageError: The job does not have the artifact, or the member is a directory or a link.
        NotFound: The archive does not have the member.
        ArtifactRejected: The archive or the member is damaged, or a message cannot be decrypted.
        ObjectNotFound, AccessDenied, ServiceUnavailable, OutOfSync: As S3 and KMS say.
        LocalIOError: The disk is too small for the plaintext.
    """
    found = find_artifacts(job, [artifact])
    if len(found) > 1:
        names = ", ".join(one.name for one in found)
        raise UsageError(f"{artifact!r} matches several artifacts", hint=f"give one of {names}")
    session = JobSession(job, config or AwsConfig(), credentials_max_age)
    how = unpacking or Unpacking()
    with open_artifact(session, found[0], how, Silence()) as remote:
        for _, chunks in each_member(remote, [path] if isinstance(path, str) else path, how.limits):
            yield from chunks


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


def each_member(remote: OpenArtifact, paths: Sequence[str], limits: Limits) -> _Members:
    """Return the names and the data of members; paths and errors as those of :func:`read_member`.

    Read the data of one member before you ask for the next one.
    """
    with naming_artifact(remote.artifact):
        found: _Members = ((path, _whole(remote, path)) for path in paths)
        if remote.format:
            read = _zip_members if remote.format == "zip" else _tar_members
            found = read(remote, paths, limits)
        for path, chunks in found:
            yield path, _named(chunks, remote.artifact)


def _named(chunks: _Chunks, artifact: Artifact) -> _Chunks:
    """Return data that is read outside of the function that returned it."""
    with naming_artifact(artifact):
        yield from chunks


def _whole(remote: OpenArtifact, path: str) -> _Chunks:
    """Read an object that is not an archive, under its own name."""
    name = remote.artifact.location.file_name
    if plain_path(path) != name and not _is_glob_of(path, name):
        raise _missing(remote, path)
    digest = None if remote.decrypted else begin_checksum(remote.artifact, remote.info)
    with ReadAhead(remote.blob, digest=digest) as stream:
        yield from stream.pieces(remote.blob.size)
        stream.finish()


def _zip_members(remote: OpenArtifact, paths: Sequence[str], limits: Limits) -> _Members:
    entries = read_entries(remote, limits)
    # Nothing is returned where one of the paths leads nowhere.
    for entry in [one for path in paths for one in _entries(entries, remote, path)]:
        part = Slice(remote.blob, entry.offset, entry.end - entry.offset)
        with ReadAhead(part) as stream:
            yield entry.name, entry_chunks(stream, entry)


def _entries(entries: Sequence[ZipEntry], remote: OpenArtifact, path: str) -> list[ZipEntry]:
    """Return the entry of a name, or else the files that a glob matches."""
    for entry in entries:
        if plain_path(entry.name) == plain_path(path):
            _require_file(path, entry)
            return [entry]
    found = [one for one in entries if one.kind == "file" and _is_glob_of(path, one.name)]
    if not found:
        raise _missing(remote, path)
    return found


def _tar_members(remote: OpenArtifact, paths: Sequence[str], limits: Limits) -> _Members:
    """Read a tar as far as is needed: to its end only for a glob, and for a missing name."""
    names = {plain_path(path): path for path in paths}
    globs = [path for path in paths if _GLOB.search(path)]
    seen: set[str] = set()
    with members(remote, limits, Silence()) as found:
        for member in found:
            name = plain_path(member.name)
            named = name in names and name not in seen
            matched = [path for path in globs if _is_glob_of(path, name)]
            if not named and not (matched and member.kind == "file"):
                continue
            _require_file(names.get(name, name), member, member.target)
            seen.update([name] if named else [], map(plain_path, matched))
            yield member.name, iter(member.chunks())
            if not globs and seen == names.keys():
                return
    for name, path in names.items():
        if name not in seen:
            raise _missing(remote, path)


def _is_glob_of(path: str, name: str) -> bool:
    """Whether a path is a glob, and matches a name."""
    return bool(_GLOB.search(path)) and Globs((path,)).takes(plain_path(name))


def _require_file(path: str, entry: ZipEntry | Member, target: str = "") -> None:
    if entry.fault:
        raise ArtifactRejected(entry.fault, hint=_OTHERS_HINT)
    if entry.kind != "file":
        leads = f" to {target!r}" if target else ""
        raise UsageError(f"{path!r} is a {entry.kind}{leads} and not a file", hint="see cpstage ls")


def _missing(remote: OpenArtifact, path: str) -> NotFound:
    return NotFound(f"{remote.artifact.title} does not contain {path!r}", hint="see cpstage ls")
