"""One member of a remote artifact, read without the rest of it.

Of a zip, its directory is read, and then the member's own bytes in parallel ranges; of a tar,
everything up to the member. An encrypted message is decrypted as a whole first.
"""

from __future__ import annotations

from collections.abc import Iterator

from cpstage.archive.blob import Blob, ReadAhead
from cpstage.archive.options import Limits
from cpstage.archive.zip_directory import ZipEntry
from cpstage.archive.zip_reader import entry_chunks
from cpstage.aws.config import DEFAULT_MAX_AGE, AwsConfig
from cpstage.aws.job_session import JobSession
from cpstage.errors import ArtifactRejected, NotFound, UsageError
from cpstage.inspect.listing import find_artifacts, members, plain_path, read_entries
from cpstage.job import Job
from cpstage.progress import Silence
from cpstage.transfer.artifact import OpenArtifact, naming, open_artifact
from cpstage.transfer.options import Unpacking

_OTHERS_HINT = "see cpstage ls for the entries that can be read"


class Slice:
    """A part of a blob, as a blob.

    Args:
        blob: The whole.
        start: Where the part begins.
        size: How long it is.
    """

    def __init__(self, blob: Blob, start: int, size: int) -> None:
        self._blob = blob
        self._start = start
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes ``[offset, offset + length)`` of the part."""
        return self._blob.read(self._start + offset, length)


def read_member(
    job: Job,
    artifact: str,
    path: str,
    *,
    unpacking: Unpacking | None = None,
    config: AwsConfig | None = None,
    credentials_max_age: float = DEFAULT_MAX_AGE,
) -> Iterator[bytes | memoryview]:
    """Return the data of one member, as it comes.

    The CRC-32 of a zip's member is compared after its last byte: what was returned is good only if
    the iterator ends without an error. The same holds for the checksum of an object that is a plain
    file. A tar has none; its first member of the name is taken, and
    what stands behind it is not looked at. Of an envelope, all is authentic before anything is
    returned.

    Args:
        job: The job, with its session credentials.
        artifact: The name of an input, or of an output that may be read.
        path: The name of the member.
        unpacking: Limits, and the keys that may decrypt.
        config: How to reach AWS.
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
    with open_artifact(session, found[0], how, Silence()) as remote, naming(remote.artifact.title):
        if remote.format is None:
            yield from _whole(remote, path)
        elif remote.format == "zip":
            yield from _zip_member(remote, path, how.limits)
        else:
            yield from _tar_member(remote, path, how.limits)


def _whole(remote: OpenArtifact, path: str) -> Iterator[memoryview]:
    if plain_path(path) != remote.artifact.location.file_name:
        raise _missing(remote, path)
    kept = remote.checksum
    with ReadAhead(remote.blob, digest=kept.begin() if kept else None) as stream:
        yield from stream.pieces(remote.blob.size)
        stream.finish()


def _zip_member(remote: OpenArtifact, path: str, limits: Limits) -> Iterator[bytes | memoryview]:
    entry = _entry(remote, path, limits)
    part = Slice(remote.blob, entry.offset, entry.end - entry.offset)
    with ReadAhead(part) as stream:
        yield from entry_chunks(stream, entry)


def _entry(remote: OpenArtifact, path: str, limits: Limits) -> ZipEntry:
    for entry in read_entries(remote, limits):
        if plain_path(entry.name) == plain_path(path):
            if entry.fault:
                raise ArtifactRejected(entry.fault, hint=_OTHERS_HINT)
            _require_file(path, entry.kind)
            return entry
    raise _missing(remote, path)


def _tar_member(remote: OpenArtifact, path: str, limits: Limits) -> Iterator[bytes]:
    with members(remote, limits, Silence()) as found:
        for member in found:
            if plain_path(member.name) == plain_path(path):
                if member.fault:
                    raise ArtifactRejected(member.fault, hint=_OTHERS_HINT)
                _require_file(path, member.kind, member.target)
                yield from member.chunks()
                return
    raise _missing(remote, path)


def _require_file(path: str, kind: str, target: str = "") -> None:
    if kind != "file":
        leads = f" to {target!r}" if target else ""
        raise UsageError(f"{path!r} is a {kind}{leads}, and no file", hint="see cpstage ls")


def _missing(remote: OpenArtifact, path: str) -> NotFound:
    return NotFound(f"there is no {path!r} in {remote.artifact.title}", hint="see cpstage ls")
