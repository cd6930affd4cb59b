"""One member of an artifact or of a local archive, read without the rest of it.

Of a zip, its directory is read, and then the member's own bytes in parallel ranges; of a tar,
everything up to the member. An encrypted message is decrypted as a whole first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from cpstage.archive.blob import Blob, ReadAhead
from cpstage.archive.members import Limits
from cpstage.archive.zip_format import ZipEntry
from cpstage.archive.zip_reader import entry_chunks
from cpstage.aws.config import DEFAULT_MAX_AGE, AwsConfig
from cpstage.aws.job_session import JobSession
from cpstage.errors import ArtifactRejected, NotFound, UsageError
from cpstage.filesystem.walk import Globs
from cpstage.inspect.listing import find_artifacts, members, plain_path, read_entries
from cpstage.inspect.opened import OpenArtifact, open_archive, open_artifact
from cpstage.job import ArtifactSet
from cpstage.progress import Silence
from cpstage.transfer.artifact import begin_checksum, naming
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

    The CRC-32 of a zip's member is compared after its last byte: what was returned is good only if
    the iterator ends without an error. The same holds for the checksum of an object that is a plain
    file. A tar has none; its first member of the name is taken, and
    what stands behind it is not looked at. Of an envelope, all is authentic before anything is
    returned.

    Args:
        job: The job, with its session credentials; or a past execution.
        artifact: The name of an input, or of an output that may be read.
        path: The name of the member, or names and globs.
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


def each_member(
    remote: OpenArtifact, paths: Sequence[str], limits: Limits
) -> Iterator[tuple[str, Iterator[bytes | memoryview]]]:
    """Return the names and the data of members; errors as those of :func:`read_member`.

    The data of one has to be taken before the next one is asked for.

    Args:
        remote: An artifact that has been opened.
        paths: Names of members, or globs.
        limits: Limits of what is read.
    """
    with naming(remote.artifact.title):
        if remote.format is None:
            for path in paths:
                yield path, _whole(remote, path)
        elif remote.format == "zip":
            yield from _zip_members(remote, paths, limits)
        else:
            yield from _tar_members(remote, paths, limits)


def _whole(remote: OpenArtifact, path: str) -> Iterator[memoryview]:
    name = remote.artifact.location.file_name
    if plain_path(path) != name and not _is_glob_of(path, name):
        raise _missing(remote, path)
    digest = None if remote.decrypted else begin_checksum(remote.artifact, remote.info)
    with ReadAhead(remote.blob, digest=digest) as stream:
        yield from stream.pieces(remote.blob.size)
        stream.finish()


def _zip_members(
    remote: OpenArtifact, paths: Sequence[str], limits: Limits
) -> Iterator[tuple[str, Iterator[bytes | memoryview]]]:
    entries = read_entries(remote, limits)
    # Nothing is returned where one of the paths leads nowhere.
    for entry in [one for path in paths for one in _entries(entries, remote, path)]:
        yield entry.name, _zip_member(remote, entry)


def _zip_member(remote: OpenArtifact, entry: ZipEntry) -> Iterator[bytes | memoryview]:
    part = Slice(remote.blob, entry.offset, entry.end - entry.offset)
    with ReadAhead(part) as stream:
        yield from entry_chunks(stream, entry)


def _entries(entries: Sequence[ZipEntry], remote: OpenArtifact, path: str) -> list[ZipEntry]:
    """Return the entry of a name, or else the files that a glob matches."""
    for entry in entries:
        if plain_path(entry.name) == plain_path(path):
            if entry.fault:
                raise ArtifactRejected(entry.fault, hint=_OTHERS_HINT)
            _require_file(path, entry.kind)
            return [entry]
    found = [one for one in entries if one.kind == "file" and _is_glob_of(path, one.name)]
    if not found:
        raise _missing(remote, path)
    return found


def _tar_members(
    remote: OpenArtifact, paths: Sequence[str], limits: Limits
) -> Iterator[tuple[str, Iterator[bytes]]]:
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
            if member.fault:
                raise ArtifactRejected(member.fault, hint=_OTHERS_HINT)
            if named:
                _require_file(names[name], member.kind, member.target)
                seen.add(name)
            seen.update(map(plain_path, matched))
            yield member.name, iter(member.chunks())
            if not globs and seen == names.keys():
                return
    for name, path in names.items():
        if name not in seen:
            raise _missing(remote, path)


_GLOB = re.compile(r"[*?\[]")


def _is_glob_of(path: str, name: str) -> bool:
    """Whether a path is a glob, and matches a name."""
    return bool(_GLOB.search(path)) and Globs((path,)).takes(plain_path(name))


def _require_file(path: str, kind: str, target: str = "") -> None:
    if kind != "file":
        leads = f" to {target!r}" if target else ""
        raise UsageError(f"{path!r} is a {kind}{leads} and not a file", hint="see cpstage ls")


def _missing(remote: OpenArtifact, path: str) -> NotFound:
    return NotFound(f"{remote.artifact.title} does not contain {path!r}", hint="see cpstage ls")
