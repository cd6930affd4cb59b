"""The entries of an artifact, a local archive or a tree, without fetching it.

A zip is listed from its central directory, whatever its size. A tar is read from start to end. An
encrypted message is decrypted first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cpstage._deflate import crc32_of
from cpstage.archive.blob import ReadAhead
from cpstage.archive.formats import Format
from cpstage.archive.members import Member, MemberKind, printable_text
from cpstage.archive.options import Budget, Limits, UnsafeLinks
from cpstage.archive.paths import Plan, check_links, is_root, without_unsafe
from cpstage.archive.zip_reader import link_targets
from cpstage.aws.config import DEFAULT_MAX_AGE, AwsConfig
from cpstage.aws.job_session import JobSession
from cpstage.errors import ArtifactRejected, ObjectNotFound, local_failures
from cpstage.filesystem.tree import DIRECTORY_MODE, FILE_MODE, RelativePath
from cpstage.filesystem.walk import Globs, read_file, walk
from cpstage.inspect.content import (
    FileLocation,
    OpenArtifact,
    each_member,
    find_artifacts,
    members,
    naming_artifact,
    open_archive,
    open_artifact,
    plain_path,
    read_entries,
)
from cpstage.job import ArtifactSet, location_document
from cpstage.job.execution import iso
from cpstage.progress import Advance, Progress, Silence
from cpstage.transfer.options import Unpacking


@dataclass(frozen=True)
class Listed:
    """One entry as the archive describes it; its name is not validated.

    Attributes:
        name: The name; bytes that are not text as surrogates.
        kind: What it is.
        size: Bytes of its data.
        packed: Bytes of its data in the archive; None in a tar, which does not say.
        crc: CRC-32 of its data; that of a zip is what its directory says.
        executable: Whether its owner may execute it.
        target: Where a link leads, or which entry a hard link stands for.
        refused: Why the entry cannot be read or unpacked.
        mtime_ns: Its mtime, in nanoseconds since the epoch; None where the archive has none.
        mode: Its permission bits; 0 where the archive has no permission bits.
    """

    name: str
    kind: MemberKind
    size: int = 0
    packed: int | None = None
    crc: int | None = None
    executable: bool = False
    target: str = ""
    refused: str | None = None
    mtime_ns: int | None = None
    mode: int = 0

    @property
    def permissions(self) -> int:
        """The permission bits that extraction gives it under a umask of 0."""
        if self.kind == "link":
            return 0o777
        return self.mode or (DIRECTORY_MODE if self.kind == "directory" else FILE_MODE)

    @property
    def mtime(self) -> str | None:
        """Its mtime in UTC, as ISO 8601; None if it is missing or outside the calendar."""
        if self.mtime_ns is None:
            return None
        try:
            return iso(datetime.fromtimestamp(self.mtime_ns // 10**9, timezone.utc))
        except (OverflowError, OSError, ValueError):
            return None

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it; what is not text in a name as an escape."""
        return {
            "name": printable_text(self.name),
            "kind": self.kind,
            "size": self.size,
            "packed_size": self.packed,
            "crc32": None if self.crc is None else f"{self.crc:08x}",
            "executable": self.executable,
            "target": printable_text(self.target) or None,
            "refused": self.refused,
            "mtime": self.mtime,
        }


@dataclass(frozen=True)
class Listing:
    """The entries of one artifact, in the order of the archive.

    Attributes:
        remote: The artifact.
        entries: The entries.
        refused: Why fetch would refuse the archive, as far as its names and links tell.
    """

    remote: OpenArtifact
    entries: tuple[Listed, ...]
    refused: tuple[str, ...] = ()

    @property
    def read(self) -> Literal["directory", "stream", "object"]:
        """How much had to be read: the central directory, all of it, or next to nothing."""
        if self.remote.decrypted:
            return "stream"
        if self.remote.format is None:
            return "object"
        return "directory" if self.remote.format == "zip" else "stream"

    def only(self, members: Globs | None) -> Listing:
        """Return it with the entries that any of the globs matches; all without globs."""
        if members is None:
            return self
        kept = (one for one in self.entries if members.takes(plain_path(one.name)))
        return replace(self, entries=tuple(kept))

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it; a local file has a path in place of a location."""
        remote, artifact = self.remote, self.remote.artifact
        is_local = isinstance(artifact.location, FileLocation)
        return {
            "name": artifact.name,
            "location": None if is_local else location_document(artifact),
            "path": artifact.location.key if is_local else None,
            "size": remote.info.size,
            "format": remote.format,
            "envelope": remote.envelope,
            "read": self.read,
            "bytes_read": remote.counted.bytes_read,
            "entries": [entry.document() for entry in self.entries],
            "refused": [*self.refused],
        }


def list_artifacts(
    job: ArtifactSet,
    artifacts: Sequence[str] = (),
    *,
    members: Globs | None = None,
    missing: Callable[[str], object] | None = None,
    unpacking: Unpacking | None = None,
    config: AwsConfig | None = None,
    credentials_max_age: float = DEFAULT_MAX_AGE,
    progress: Progress | None = None,
) -> Iterator[Listing]:
    """List what is in a job's artifacts, one after the other.

    Args:
        job: The job, with its session credentials; or a past execution.
        artifacts: Names or globs of inputs and outputs; all inputs where none is given.
        members: Which entries to list; all where none is given.
        missing: Is called with a line for each object that does not exist any more; None makes it
            an error.
        unpacking: Limits, and the keys that may decrypt.
        config: The configuration of the AWS clients.
        credentials_max_age: Seconds after which the job's session is renewed ahead of time.
        progress: Shows what is read as a whole.

    Raises:
        UsageError: A glob matches nothing.
        ArtifactRejected: An archive is damaged, ambiguous or over a limit, or cannot be decrypted.
        ObjectNotFound, AccessDenied, ServiceUnavailable, OutOfSync: As S3 and KMS say.
        LocalIOError: The disk is too small for the plaintext.
    """
    chosen = find_artifacts(job, artifacts)
    how, shown = unpacking or Unpacking(), progress or Silence()
    session = JobSession(job, config or AwsConfig(), credentials_max_age)
    for artifact in chosen:
        try:
            with open_artifact(session, artifact, how, shown) as remote:
                listing = list_remote(remote, how, shown)
        except ObjectNotFound as error:
            if missing is None:
                raise
            missing(error.message)
            continue
        yield listing.only(members)


def list_remote(
    remote: OpenArtifact, options: Unpacking, progress: Progress | None = None
) -> Listing:
    """List what is in an artifact that has been opened.

    Entries that cannot be read are listed too. Symlinks that leave the tree are refused, left out
    or listed like others, as the options say.
    """
    if remote.format is None:
        name, size = remote.artifact.location.file_name, remote.blob.size
        return Listing(remote, (Listed(name, "file", size, size),))
    with naming_artifact(remote.artifact):
        if remote.format == "zip":
            entries = [*_zip_entries(remote, options.limits)]
        else:
            with members(remote, options.limits, progress or Silence()) as found:
                entries = [*map(_listed, found)]
        budget = Budget(options.limits, remote.blob.size)
        refused, skipped = _validated(entries, remote.format, budget, options.unsafe_links)
    shown = (one for one in entries if one.name not in skipped)
    return Listing(remote, tuple(shown), refused)


def _zip_entries(remote: OpenArtifact, limits: Limits) -> Iterator[Listed]:
    entries = read_entries(remote, limits)
    found = link_targets(remote.blob, entries, is_tolerant=True)
    targets = {entry.offset: target for entry, target in found}
    for one in entries:
        target = targets.get(one.offset, "")
        data = (one.size, one.packed, one.crc, one.executable)
        yield Listed(one.name, one.kind, *data, target, one.fault or None, one.mtime, one.mode)


def _listed(member: Member) -> Listed:
    name, kind, when = member.name, member.kind, member.mtime_ns
    if member.fault:
        return Listed(name, kind, member.size, refused=member.fault)
    if kind != "file":
        return Listed(name, kind, target=member.target, mtime_ns=when, mode=member.mode)
    data = (member.size, None, crc32_of(member.chunks()), member.executable)
    return Listed(name, kind, *data, mtime_ns=when, mode=member.mode)


def _validated(
    entries: list[Listed], found: Format, budget: Budget, unsafe: UnsafeLinks
) -> tuple[tuple[str, ...], set[str]]:
    """Say in each entry why fetch would refuse it, as far as names and links show it.

    Return the reasons of all entries, and the names of the links that fetch would leave out.
    """
    plan = Plan()
    refused: list[str] = []
    skipped: set[str] = set()
    names: dict[RelativePath, str] = {}
    for at, entry in enumerate(entries):
        if entry.kind == "directory" and is_root(entry.name):
            continue
        try:
            path, _ = plan.admit(entry.name, entry.kind, "", budget, last_wins=found != "zip")
        except ArtifactRejected as error:
            entries[at] = replace(entry, refused=entry.refused or error.message)
        else:
            names[path] = entry.name
            if entry.kind == "link" and not entry.refused:
                plan.links[path] = entry.target
        if why := entries[at].refused:
            refused.append(why)
    try:
        if unsafe == "reject":
            check_links(plan.links)
        if unsafe == "skip":
            kept = without_unsafe(plan.links)
            skipped = {names[path] for path in plan.links if path not in kept}
    except ArtifactRejected as error:
        refused.append(error.message)
    return tuple(refused), skipped


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
        return list_remote(opened, how, shown).only(members)


class Entries(NamedTuple):
    """The entries of an archive or a tree by their paths, and how its files are read.

    Attributes:
        listed: The entries.
        read: Returns paths and data of some files; of a tree, only the start of a large file.
        read_crc: Returns the CRC-32 of a file of a tree.
        refused: Why fetch would refuse the archive, as far as its names and links tell.
    """

    listed: Mapping[str, Listed] = {}
    read: Callable[[Sequence[str]], Iterator[tuple[str, bytes]]] = lambda _: iter(())
    read_crc: Callable[[str, Advance], int] | None = None
    refused: tuple[str, ...] = ()

    def crc(self, path: str, advance: Advance) -> int:
        """Return the CRC-32 of a file; ``advance`` is told of the bytes that are read for it."""
        return self.read_crc(path, advance) if self.read_crc else self.listed[path].crc or 0

    def has_file(self, path: str) -> bool:
        """Whether there is a file, or a hard link to one, at a path."""
        return path in self.listed and self.listed[path].kind in ("file", "hard link")


def archive_entries(remote: OpenArtifact, options: Unpacking, progress: Progress) -> Entries:
    """Return the entries of an artifact; an object that is not an archive is read for its CRC-32.

    Directories that an archive only implies are added. Of several entries of the same path the last
    one counts, as in tar; hard links are the files that they stand for.
    """
    listing = list_remote(remote, options, progress)
    found: dict[str, Listed] = {}
    for entry in listing.entries:
        path = plain_path(entry.name)
        if entry.kind == "directory" and is_root(entry.name):
            continue
        end = path.rfind("/")
        while end > 0 and path[:end] not in found:
            found[path[:end]] = Listed(path[:end], "directory")
            end = path.rfind("/", 0, end)
        if remote.format is None:
            found[path] = replace(entry, crc=_crc_of_object(remote, progress))
        elif entry.kind == "hard link":
            origin = found.get(plain_path(entry.target))
            found[path] = replace(origin, name=entry.name) if origin else entry
        else:
            found[path] = entry

    def read(paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        if paths:
            for name, chunks in each_member(remote, paths, options.limits):
                yield plain_path(name), b"".join(chunks)

    return Entries(found, read, refused=listing.refused)


def _crc_of_object(remote: OpenArtifact, progress: Progress) -> int:
    label, size = f"{remote.artifact.name}: reading", remote.blob.size
    with progress.phase(label, size) as advance, ReadAhead(remote.blob, advance) as stream:
        return crc32_of(stream.pieces(size))


def tree_entries(root: Path, most: int = 0) -> Entries:
    """Return the entries of a local tree, of whose files at most so many bytes are read.

    Raises:
        LocalIOError: It cannot be read.
    """
    found = {str(entry.path): entry for entry in walk(root, Globs())}
    listed = {}
    for path, one in found.items():
        executable = one.kind == "file" and one.executable
        listed[path] = Listed(path, one.kind, one.size, executable=executable, target=one.target)

    def read(paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        for path in paths:
            with local_failures(root / path, "read"), (root / path).open("rb") as file:
                yield path, file.read(most)

    def read_crc(path: str, advance: Advance) -> int:
        return crc32_of(read_file(found[path], advance))

    return Entries(listed, read, read_crc)
