"""Unpacking: members are admitted to the plan, written below a tree, and linked last."""

from __future__ import annotations

import io
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from operator import attrgetter

from cpstage.archive.blob import ReadAhead
from cpstage.archive.formats import Format
from cpstage.archive.members import Contents, Member, UnsafeLink, bytes_of
from cpstage.archive.options import FIXED_MTIME, Budget, ExtractOptions
from cpstage.archive.paths import (
    Plan,
    check_links,
    check_name,
    check_target_length,
    is_root,
    quoted,
    unsafe_links,
    without_unsafe,
)
from cpstage.archive.tar_headers import BLOCK
from cpstage.archive.unpacking_pool import Directory, UnpackingPool
from cpstage.archive.workers import ahead
from cpstage.archive.zip_format import ZipEntry
from cpstage.archive.zip_reader import EntryGroup, ZipReader, entry_chunks, link_targets
from cpstage.errors import ArtifactRejected, listing
from cpstage.filesystem.tree import DIRECTORY_MODE, RelativePath, Tree, fingerprint_of
from cpstage.progress import Advance, Progress, Silence, counted, phase_of_many

_BUFFER = 1 << 18
"""Between a decoder's many small reads and a block of the blob."""

_BATCH, _BATCHES_AHEAD = 8, 3
"""Chunks that a decoder hands over at once, and how often before one of them is written."""

_NAMES_WITHIN = 64 << 20
"""Bytes of a tar that are read for the names of its other members after an unsafe one."""

_PASSABLE = stat.S_IRWXU

_COMMON_MTIMES = FIXED_MTIME * 10**9, (10**9 << 31) - 1
"""Of 1980 to 2038, in nanoseconds since the epoch: every file system has these mtimes."""

_COMMON_DOS_TIMES = (1 << 5 | 1) << 16, (2038 - 1980) << 25
"""The same as DOS dates and times, which are local: 1980-01-01 to the end of 2037."""


@dataclass(frozen=True)
class _Extraction:
    """One archive that is being extracted, with its name in messages and the counts so far."""

    source: str
    budget: Budget
    contents: Contents
    changed_mtimes: list[str] = field(default_factory=list)

    def note_mtimes(self) -> None:
        """Note the members whose mtimes had to be changed."""
        if self.changed_mtimes:
            named = listing(map(quoted, self.changed_mtimes))
            self.contents.notes.append(
                "mtimes that the file system cannot have were changed to the nearest that it can, "
                f"of {named}"
            )


class Unpacker:
    """Unpacks one or more archives into one tree; a context, which ends with nothing at work.

    Args:
        tree: An empty directory that no other process uses.
        options: How each archive is unpacked.
        progress: Shows what takes long besides reading the archives: work on very many entries.
    """

    def __init__(
        self, tree: Tree, options: ExtractOptions, progress: Progress | None = None
    ) -> None:
        self._progress = progress or Silence()
        self._tree = tree
        self._options = options
        self._now = time.time_ns() if options.mtime == "now" else None
        self._pool = UnpackingPool(tree, self._now)
        self._link_times: dict[RelativePath, int | None] = {}
        self._unsafe: set[RelativePath] = set()
        self._plan = Plan(folds_names=tree.folds_names())

    def __enter__(self) -> Unpacker:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def add(self, stream: ReadAhead, archive_format: Format, source: str) -> Contents:
        """Unpack an archive, all but its symbolic links; messages call it by its source.

        Raises:
            ArtifactRejected: The archive is unsafe, damaged or over a limit.
            WorkspaceUnavailable: It collides with another archive of the same tree.
            LocalIOError: The disk is full, or failed.
        """
        extraction = _Extraction(source, Budget(self._options.limits, stream.blob.size), Contents())
        if archive_format == "zip":
            self._add_zip(stream, extraction)
        else:
            self._add_tar(stream, extraction, compressed=archive_format == "tar.gz")
        return extraction.contents

    def keep(self, stream: ReadAhead, name: str, source: str) -> None:
        """Write a file that is not an archive.

        Raises:
            WorkspaceUnavailable: It collides with another artifact of the same tree.
            LocalIOError: The disk is full, or failed.
        """
        budget = Budget(self._options.limits, stream.blob.size)
        path, _ = self._plan.admit(name, "file", source, budget)
        self._tree.write_file(path, stream.pieces(stream.left), mtime_ns=self._now)

    def finish(self) -> None:
        """Create the symlinks, and give directories their permission bits and mtimes.

        Nothing is written through the tree afterwards.
        """
        self._finish(self._plan.directories, hashes=False)

    def finish_and_hash(self) -> str:
        """Finish, and return the fingerprint of the tree."""
        return fingerprint_of(self._finish(self._plan.all_directories(), hashes=True))

    def _finish(self, directories: Iterable[RelativePath], *, hashes: bool) -> int:
        plan = self._plan
        for path, target in plan.links.items():
            self._tree.make_link(path, target, self._link_times.get(path))
        soon: list[Directory] = []
        late: list[Directory] = []
        for path in sorted(directories):
            mode, mtime_ns = plan.directories.get(path, (0, None))
            found = (path, mode or DIRECTORY_MODE, self._pool.time(mtime_ns))
            (soon if found[1] & _PASSABLE == _PASSABLE else late).append(found)
        label, entries = "finishing directories", plan.count
        with phase_of_many(self._progress, label, len(soon), among=entries) as advance:
            total = self._pool.finish(soon, hashes=hashes, advance=advance)
        # What is inside comes first: their owner cannot enter them afterwards.
        return total + self._pool.finish_here(reversed(late), hashes=hashes)

    def _settle_links(self, contents: Contents) -> None:
        """Reject, leave out or keep the symlinks that leave the tree."""
        links, handling = self._plan.links, self._options.unsafe_links
        if handling == "reject":
            check_links(links)
        elif handling == "skip":
            kept = without_unsafe(links)
            for path in [one for one in links if one not in kept]:
                contents.links -= 1
                contents.unsafe_links.append(UnsafeLink(path, links.pop(path), "skipped"))
        else:
            new = [path for path in unsafe_links(links) if path not in self._unsafe]
            self._unsafe.update(new)
            contents.unsafe_links += [UnsafeLink(path, links[path], "kept") for path in new]
        contents.notes += map(_unsafe_note, contents.unsafe_links)

    def _add_zip(self, stream: ReadAhead, extraction: _Extraction) -> None:
        """Plan the whole archive before the first of it is written, then let others write it."""
        reader = ZipReader(stream, extraction.budget)
        self._pool.expect(reader.count)
        source, count = extraction.source, reader.count
        with phase_of_many(self._progress, f"{source}: reading the directory", count) as advance:
            entries = reader.read_directory(advance)
        with phase_of_many(self._progress, f"{source}: checking the names", count) as advance:
            self._fit_mtimes(entries, extraction)
            self._admit_entries(entries, extraction, advance)
        targets = link_targets(stream.blob, entries)
        self._plan.links.update((one.place, target) for one, target in targets if one.place)
        self._settle_links(extraction.contents)

        def groups() -> Iterator[EntryGroup]:
            for found in reader.groups():
                if isinstance(found, EntryGroup):
                    yield found
                else:
                    self._write_large(found, entry_chunks(stream, found))

        self._pool.write_groups(groups())

    def _write_large(self, entry: ZipEntry, chunks: Iterator[bytes | memoryview]) -> None:
        """Decode in one thread and write in another: either takes as long as the other."""
        # In lists: to hand each chunk over by itself would cost more than to write it.
        batched = iter(lambda: list(islice(chunks, _BATCH)), [])
        with ahead(batched, _BATCHES_AHEAD) as batches:
            decoded = chain.from_iterable(batches)
            # The local file header, which is read with the first chunk, may have an mtime.
            self._pool.write_entry(entry, chain((next(decoded, b""),), decoded))

    def _admit_entries(
        self, entries: Sequence[ZipEntry], extraction: _Extraction, advance: Advance | None
    ) -> None:
        """Admit all entries to the plan, and give each its place."""
        admit, budget, contents = self._plan.admit, extraction.budget, extraction.contents
        budget.spend_bytes(sum(entry.size for entry in entries))
        earlier: dict[RelativePath, ZipEntry] = {}

        def is_equal(path: RelativePath) -> bool:
            """Whether the entry that is being admitted is the same as the one at a path."""
            if not earlier:  # duplicates are rare: most archives need no such table
                earlier.update({one.place: one for one in entries if one.place})
            first = earlier[path]
            return (first.size, first.crc) == (entry.size, entry.crc)

        if any(b"\\" in (one.other_name or b"") and "\\" not in one.name for one in entries):
            contents.notes.append("backslashes in names were made by a Windows tool: read as /")
        for entry in counted(entries, advance):
            if entry.kind == "directory" and is_root(entry.name):
                continue
            try:
                path, there = admit(
                    entry.name, entry.kind, extraction.source, budget, is_equal=is_equal
                )
            except ArtifactRejected as error:
                raise _with_others(error, map(attrgetter("name"), entries)) from error
            if there and entry.kind != "directory":
                continue
            entry.place = path
            if earlier:
                earlier[path] = entry
            contents.count(entry.kind, 0 if entry.kind == "link" else entry.size, there=there)
            if entry.kind == "directory":
                self._plan.directories[path] = (entry.mode, entry.mtime)
            elif entry.kind == "link":
                self._link_times[path] = self._pool.time(entry.mtime)

    def _fit_mtimes(self, entries: Iterable[ZipEntry], extraction: _Extraction) -> None:
        """Change mtimes that the file system cannot have."""
        if self._now is not None:  # no file gets an mtime of the archive
            return
        (oldest, newest), (oldest_dos, newest_dos) = _COMMON_MTIMES, _COMMON_DOS_TIMES
        for entry in entries:
            if entry.mtime_ns is None:  # the DOS time takes longer to read than to compare
                is_common = oldest_dos <= entry.dos_time < newest_dos
            else:
                is_common = oldest <= entry.mtime_ns <= newest
            if not is_common:
                fitting = self._fitting_mtime(entry.mtime, entry.name, extraction)
                if fitting != entry.mtime:  # else that of the local file header may come
                    entry.mtime_ns = fitting
        extraction.note_mtimes()

    def _fitting_mtime(
        self, mtime_ns: int | None, name: str, extraction: _Extraction
    ) -> int | None:
        """Return the mtime of a member, or the nearest one that the file system can have."""
        oldest, newest = _COMMON_MTIMES
        if mtime_ns is None or oldest <= mtime_ns <= newest or self._now is not None:
            return mtime_ns
        nearest = self._tree.nearest_mtime(mtime_ns)
        if nearest != mtime_ns:
            extraction.changed_mtimes.append(name)
        return nearest

    def _add_tar(self, stream: ReadAhead, extraction: _Extraction, *, compressed: bool) -> None:
        # Most artifacts are zips, and need not wait for it to be loaded.
        from cpstage.archive.tar_reader import tar_members

        file, note = io.BufferedReader(stream, _BUFFER), extraction.contents.notes.append
        opened = tar_members(file, compressed=compressed, budget=extraction.budget, note=note)
        with opened as members:
            self._add_members(members, extraction)
        self._settle_links(extraction.contents)

    def _add_members(self, members: Iterable[Member], extraction: _Extraction) -> None:
        """Admit and write member by member, as they come."""
        for member in members:
            if member.kind == "directory" and is_root(member.name):
                continue
            try:
                path, there = self._plan.admit(
                    member.name, member.kind, extraction.source, extraction.budget, last_wins=True
                )
            except ArtifactRejected as error:
                raise _with_others(error, chain([member.name], _names_near(members))) from error
            self._write_member(path, there, member, extraction)
        self._pool.settle()
        extraction.note_mtimes()

    def _write_member(
        self, path: RelativePath, there: bool, member: Member, extraction: _Extraction
    ) -> None:
        size = 0
        mtime_ns = self._fitting_mtime(member.mtime_ns, member.name, extraction)
        if mtime_ns != member.mtime_ns:
            member = member._replace(mtime_ns=mtime_ns)
        if member.kind == "directory":  # made with the first file in it, or when it is finished
            self._plan.directories[path] = (member.mode, member.mtime_ns)
        elif member.kind == "link":
            check_target_length(member.name, len(bytes_of(member.target)))
            self._plan.links[path] = member.target
            self._link_times[path] = self._pool.time(member.mtime_ns)
        else:
            if there:
                self._pool.settle()
                size -= self._tree.remove_file(path)
            size += self._write_file(path, member, extraction)
        extraction.contents.count(member.kind, size, there=there)

    def _write_file(self, path: RelativePath, member: Member, extraction: _Extraction) -> int:
        if member.kind == "hard link":
            existing = self._plan.regular_file(member, extraction.source)
            self._pool.settle()
            self._tree.make_hard_link(path, existing)
            return 0
        attributes = (member.mode, member.mtime_ns)
        self._pool.expect(self._plan.count)
        if self._pool.takes_file(member.size):
            content = b"".join(member.chunks())
            extraction.budget.spend_bytes(len(content))
            self._pool.send_file(path, content, *attributes)
            return len(content)
        chunks = extraction.budget.counted(member.chunks())
        return self._pool.write_file(path, chunks, *attributes)


def _with_others(error: ArtifactRejected, names: Iterable[str]) -> ArtifactRejected:
    """Add other unsafe names of the archive to the error about one, up to a number."""
    found: list[str] = []
    for name in names:
        if is_root(name):
            continue
        try:
            check_name(name)
        except ArtifactRejected as other:
            found.append(other.message)
    if error.message not in found:
        return error
    return ArtifactRejected(listing(found), hint=error.hint)


def _names_near(members: Iterable[Member]) -> Iterator[str]:
    """Return the names of the members that follow, as far as little has to be read for them."""
    left = _NAMES_WITHIN
    try:
        for member in members:
            left -= BLOCK + member.size
            if left < 0:
                return
            yield member.name
    except ArtifactRejected:
        return  # the unsafe names are what the error is about


def _unsafe_note(link: UnsafeLink) -> str:
    did = "was left out" if link.handling == "skipped" else "was created unchanged"
    return f"the symlink {quoted(link.path)} to {quoted(link.target)} leaves the tree and {did}"
