"""What is in an artifact, without fetching it; in a local archive or tree too.

A zip is listed from the directory at its end, whatever its size. A tar has none: it is read from
its start to its end. An encrypted message is decrypted first.
"""

from __future__ import annotations

import io
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from cpstage._deflate import crc32_of
from cpstage.archive.blob import ReadAhead
from cpstage.archive.formats import Format
from cpstage.archive.members import (
    Budget,
    Limits,
    Member,
    MemberKind,
    UnsafeLinks,
    printable_text,
)
from cpstage.archive.paths import Plan, check_links, is_root, without_unsafe
from cpstage.archive.tar_reader import tar_members
from cpstage.archive.zip_directory import read_directory, read_tail
from cpstage.archive.zip_format import ZipEntry
from cpstage.archive.zip_reader import link_targets
from cpstage.aws.config import DEFAULT_MAX_AGE, AwsConfig
from cpstage.aws.job_session import JobSession
from cpstage.errors import ArtifactRejected, ObjectNotFound
from cpstage.filesystem.tree import RelativePath
from cpstage.filesystem.walk import Globs, read_file, walk
from cpstage.inspect.opened import OpenArtifact, open_archive, open_artifact
from cpstage.job import Artifact, ArtifactSet, choose, location_document
from cpstage.job.execution import iso
from cpstage.progress import Progress, Silence
from cpstage.transfer.artifact import naming
from cpstage.transfer.options import Unpacking

_BUFFER = 1 << 18


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
    """What is in one artifact.

    Attributes:
        remote: The artifact.
        entries: In the order of the archive.
        refused: Why fetch would refuse the archive, as far as its names and links tell.
    """

    remote: OpenArtifact
    entries: tuple[Listed, ...]
    refused: tuple[str, ...] = ()

    @property
    def read(self) -> Literal["directory", "stream", "object"]:
        """What of it had to be read: a zip's directory, all of it, or next to nothing."""
        if self.remote.decrypted:
            return "stream"
        if self.remote.format is None:
            return "object"
        return "directory" if self.remote.format == "zip" else "stream"

    @property
    def is_remote(self) -> bool:
        """Whether the artifact is in S3, and not a local file."""
        return bool(self.remote.artifact.location.bucket)

    def only(self, members: Globs) -> Listing:
        """Return it with the entries that any of the globs matches."""
        if not members.include:
            return self
        kept = (one for one in self.entries if members.takes(plain_path(one.name)))
        return replace(self, entries=tuple(kept))

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "name": self.remote.artifact.name,
            "location": location_document(self.remote.artifact) if self.is_remote else None,
            "path": None if self.is_remote else self.remote.artifact.location.key,
            "size": self.remote.info.size,
            "format": self.remote.format,
            "envelope": self.remote.envelope,
            "read": self.read,
            "bytes_read": self.remote.counted.bytes_read,
            "entries": [entry.document() for entry in self.entries],
            "refused": [*self.refused],
        }


def find_artifacts(job: ArtifactSet, globs: Sequence[str]) -> list[Artifact]:
    """Return the job's inputs and outputs of some names; without a name, all inputs.

    Of a past execution, all artifacts are returned without a name.

    Raises:
        UsageError: A name or glob matches nothing.
    """
    if not globs:
        return [*job.input_artifacts, *job.made_artifacts]
    every = [*job.input_artifacts, *job.output_artifacts]
    whose = "the job" if job.read_with == "job" else "the execution"
    return choose(every, globs, f"artifact of {whose}", whose)


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
        config: How to reach AWS.
        credentials_max_age: Seconds after which the job's session is renewed ahead of time.
        progress: Is told of what is read as a whole.

    Raises:
        UsageError: A glob matches nothing.
        ArtifactRejected: An archive is damaged, ambiguous or over a limit; a message cannot be
            decrypted.
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
        yield listing.only(members or Globs())


def list_remote(
    remote: OpenArtifact, options: Unpacking, progress: Progress | None = None
) -> Listing:
    """List what is in an artifact that has been opened.

    Entries that cannot be read are listed too. Symlinks that leave the tree are refused, left out
    or listed like others, as the options say.
    """
    limits = options.limits
    if remote.format is None:
        name, size = remote.artifact.location.file_name, remote.blob.size
        return Listing(remote, (Listed(name, "file", size, size),))
    with naming(remote.artifact.title):
        if remote.format == "zip":
            entries = [*_zip_entries(remote, limits)]
        else:
            with members(remote, limits, progress or Silence()) as found:
                entries = [_listed(member) for member in found]
        budget = Budget(limits, remote.blob.size)
        refused, skipped = _validated(entries, remote.format, budget, options.unsafe_links)
    shown = (one for one in entries if one.name not in skipped)
    return Listing(remote, tuple(shown), refused)


def read_entries(remote: OpenArtifact, limits: Limits) -> list[ZipEntry]:
    """Read the central directory of a zip; entries that cannot be read have a ``fault``.

    Raises:
        ArtifactRejected: It is damaged, ambiguous or over a limit.
    """
    blob = remote.blob
    tail = read_tail(blob, Budget(limits, blob.size))
    return read_directory(blob, tail, is_tolerant=True)


@contextmanager
def members(remote: OpenArtifact, limits: Limits, progress: Progress) -> Iterator[Iterator[Member]]:
    """Read a tar from its start, as far as its members are taken.

    Raises:
        ArtifactRejected: It is damaged, or over a limit.
    """
    budget = Budget(limits, remote.blob.size)
    doing = f"{remote.artifact.name}: reading"
    with (
        progress.phase(doing, remote.blob.size) as advance,
        ReadAhead(remote.blob, advance) as stream,
        tar_members(
            io.BufferedReader(stream, _BUFFER),
            compressed=remote.format == "tar.gz",
            budget=budget,
            is_tolerant=True,
        ) as found,
    ):
        yield (_within(member, budget) for member in found)


def plain_path(name: str) -> str:
    """Return a name as people write it: without ``./`` before it and a slash behind it."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _within(member: Member, budget: Budget) -> Member:
    """Count a member, and its data as it is read, against the limits."""
    budget.spend_entry()

    def chunks() -> Iterator[bytes]:
        yield from budget.counted(member.chunks())

    return member._replace(chunks=chunks)


def _zip_entries(remote: OpenArtifact, limits: Limits) -> Iterator[Listed]:
    entries = read_entries(remote, limits)
    found = link_targets(remote.blob, entries, is_tolerant=True)
    targets = {entry.offset: target for entry, target in found}
    for one in entries:
        target = targets.get(one.offset, "")
        data = (one.size, one.packed, one.crc, one.executable)
        yield Listed(one.name, one.kind, *data, target, one.fault or None, one.mtime)


def _listed(member: Member) -> Listed:
    if member.fault:
        return Listed(member.name, member.kind, member.size, refused=member.fault)
    if member.kind != "file":
        return Listed(member.name, member.kind, target=member.target, mtime_ns=member.mtime_ns)
    crc = crc32_of(member.chunks())
    facts = (member.size, None, crc, member.executable)
    return Listed(member.name, "file", *facts, mtime_ns=member.mtime_ns)


def _validated(
    entries: list[Listed], found: Format, budget: Budget, unsafe: UnsafeLinks
) -> tuple[tuple[str, ...], set[str]]:
    """Say in each entry why fetch would refuse it, as far as names and links show it.

    Returns:
        The reasons of all entries, and the names of the links that fetch would leave out.
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
        return list_remote(opened, how, shown).only(members or Globs())


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
