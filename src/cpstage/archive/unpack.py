"""Unpacking: members are admitted to the plan, written below a tree, and linked last."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from cpstage.archive.blob import Blob
from cpstage.archive.formats import Format
from cpstage.archive.limits import Budget, Limits
from cpstage.archive.member import CHUNK, Member
from cpstage.archive.names import is_root, refused
from cpstage.archive.plan import Plan
from cpstage.archive.readahead import ReadAhead
from cpstage.archive.tarreader import tar_members
from cpstage.archive.zipreader import zip_members
from cpstage.tree import RelativePath, Tree

_BUFFER = 1 << 18
"""Between a decoder's many small reads and a block of the blob."""

_LONGEST_TARGET = 4096
"""Bytes: more cannot be a target, and need not be read."""


@dataclass
class Contents:
    """What came out of one archive."""

    files: int = 0
    directories: int = 0
    links: int = 0
    size: int = 0


@dataclass(frozen=True)
class _Intake:
    """One archive on its way into the tree."""

    source: str
    budget: Budget
    contents: Contents


class Unpacker:
    """Unpacks one or more archives into one tree.

    Args:
        tree: An empty directory that nobody else sees.
        limits: What each archive may unpack to.
    """

    def __init__(self, tree: Tree, limits: Limits) -> None:
        self._tree = tree
        self._limits = limits
        self._plan = Plan()

    def add(
        self,
        blob: Blob,
        archive_format: Format,
        source: str,
        consumed: Callable[[int], object] = lambda _: None,
    ) -> Contents:
        """Unpack an archive, all but its symbolic links.

        Args:
            blob: The archive.
            archive_format: Its format.
            source: What to call it in messages.
            consumed: Is told of the bytes of the archive as they are read.

        Raises:
            ArtifactRejected: The archive is unsafe, damaged or over a limit.
            WorkspaceUnavailable: It collides with another archive of the same tree.
            LocalIOError: The disk is full, or failed.
        """
        intake = _Intake(source, Budget(self._limits, blob.size), Contents())
        with ReadAhead(blob, consumed) as raw:
            file = io.BufferedReader(raw, _BUFFER)
            if archive_format == "zip":
                with zip_members(file) as listed:
                    self._write_listed(listed, intake)
            else:
                compressed, drained = archive_format == "tar.gz", intake.budget.spend_bytes
                with tar_members(file, compressed=compressed, drained=drained) as streamed:
                    self._write_streamed(streamed, intake)
        return intake.contents

    def keep(
        self,
        blob: Blob,
        name: str,
        source: str,
        consumed: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Write something that is no archive, as the file it is.

        Args:
            blob: The content of the file.
            name: The name of the file.
            source: What to call it in messages.
            consumed: Is told of the bytes as they are read.

        Raises:
            WorkspaceUnavailable: It collides with another artifact of the same tree.
            LocalIOError: The disk is full, or failed.
        """
        with ReadAhead(blob, consumed) as file:
            chunks = iter(partial(file.read, CHUNK), b"")
            member = Member(name, "file", lambda: chunks, blob.size)
            budget = Budget(replace(self._limits, size=blob.size), blob.size)
            self._write_listed([member], _Intake(source, budget, Contents()))

    def finish(self) -> None:
        """Create the symbolic links, now that nothing more is written through the tree.

        Raises:
            ArtifactRejected: One of them leads out of the tree; then none is created.
        """
        self._plan.check_links()
        for path, target in self._plan.links.items():
            self._tree.make_link(path, target)

    def _write_listed(self, members: list[Member], intake: _Intake) -> None:
        """Admit all members before the first of them is written."""
        admit, source, budget = self._plan.admit, intake.source, intake.budget
        below = _below_root(members)
        admitted = [(*admit(member, source, budget), member) for member in below]
        for path, there, member in admitted:
            self._write(path, there, member, intake)

    def _write_streamed(self, members: Iterable[Member], intake: _Intake) -> None:
        """Admit and write member by member, as they come."""
        for member in _below_root(members):
            path, there = self._plan.admit(member, intake.source, intake.budget, last_wins=True)
            self._write(path, there, member, intake)

    def _write(self, path: RelativePath, there: bool, member: Member, intake: _Intake) -> None:
        contents = intake.contents
        if member.kind == "directory":
            self._tree.make_directory(path)
            contents.directories += not there
        elif member.kind == "link":
            self._plan.links[path] = _target(member)
            contents.links += not there
        else:
            if there:
                self._tree.remove_file(path)
            contents.files += not there
            contents.size += self._write_file(path, member, intake)

    def _write_file(self, path: RelativePath, member: Member, intake: _Intake) -> int:
        if member.kind == "hard link":
            existing = self._plan.regular_file(member, intake.source)
            self._tree.make_hard_link(path, existing)
            return 0
        chunks = _counted(member.chunks(), intake.budget)
        return self._tree.write_file(path, chunks, executable=member.executable)


def _below_root(members: Iterable[Member]) -> Iterator[Member]:
    """Pass over the tree's own directory, which is there already."""
    return (one for one in members if not (one.kind == "directory" and is_root(one.name)))


def _counted(chunks: Iterator[bytes], budget: Budget) -> Iterator[bytes]:
    for chunk in chunks:
        budget.spend_bytes(len(chunk))
        yield chunk


def _target(member: Member) -> str:
    target = b""
    for chunk in member.chunks():
        target += chunk
        if len(target) > _LONGEST_TARGET:
            raise refused(member.name, f"is a link with a target over {_LONGEST_TARGET:,} bytes")
    return target.decode("utf-8", "surrogateescape")
