"""Packing: a directory is listed and checked, and becomes one stream of bytes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from functools import cached_property
from pathlib import Path
from typing import Literal

from cpstage._deflate import DEFAULT_LEVEL
from cpstage.archive.formats import Format
from cpstage.archive.packing_list import Begin, PackingList
from cpstage.archive.paths import check_links, check_name
from cpstage.archive.workers import thread_count
from cpstage.archive.zip_writer import ZipPacker, zip_stream
from cpstage.errors import ArtifactRejected
from cpstage.filesystem import RelativePath
from cpstage.globs import Globs
from cpstage.walk import Entry, Symlinks, walk


def _not_yet(_: object) -> None:
    """Begin with nothing before all is listed."""


def list_entries(
    root: Path,
    globs: Globs,
    symlinks: Symlinks,
    listed: Callable[[int], object] = lambda _: None,
    *,
    archive: Path | None = None,
    begin: Begin = _not_yet,
) -> PackingList:
    """List what is to be packed, and check that it can be unpacked again.

    Args:
        root: The directory.
        globs: What of it goes in.
        symlinks: Whether links are kept, or replaced by what they point to.
        listed: Is told of entries as they are found.
        archive: A file that is left out wherever it stands: what is packed goes there.
        begin: Is given groups of entries as soon as they are full, to begin to pack them.

    Raises:
        ArtifactRejected: A link leads out of the tree, a name is not portable, or an entry is
            neither file, directory nor link.
        LocalIOError: Something cannot be read.
    """
    links: dict[RelativePath, str] = {}

    def checked() -> Iterator[Entry]:
        left_out = str(archive) if archive else None
        for entry in walk(root, globs, symlinks):
            listed(1)
            if entry.source == left_out:
                continue
            try:
                check_name(entry.path)
            except ArtifactRejected as error:
                raise _not_packed(root, error) from error
            if entry.kind == "link":
                links[entry.path] = entry.target
            yield entry

    found = PackingList(checked(), begin)
    try:
        check_links(links)
    except ArtifactRejected as error:
        raise _not_packed(root, error) from error
    return found


class Packer:
    """Lists directories and packs what was listed; the same entries and level give the same bytes.

    It is a context, which ends with nothing at work: no thread, no process, no stream.

    Args:
        level: From 0 (not compressed) to 9.
        threads: How many read and deflate; as many as there are processors where none is given.
        is_eager: Whether a zip is begun while its entries are still listed.
    """

    def __init__(
        self, level: int = DEFAULT_LEVEL, threads: int | None = None, *, is_eager: bool = True
    ) -> None:
        self._level = level
        self._threads = threads or thread_count()
        self._is_eager = is_eager
        self._stack = ExitStack()

    def __enter__(self) -> Packer:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def _zip(self) -> ZipPacker:
        return self._stack.enter_context(ZipPacker(self._level, self._threads))

    def list_entries(
        self,
        root: Path,
        globs: Globs,
        symlinks: Symlinks,
        archive_format: Format | Literal["raw"],
        listed: Callable[[int], object] = lambda _: None,
        *,
        archive: Path | None = None,
    ) -> PackingList:
        """List as :func:`list_entries` does, and begin to pack for a format where that is of use.

        Raises:
            ArtifactRejected, LocalIOError: As there; the latter also for what changed meanwhile.
        """
        begin = self._zip.begin if self._is_eager and archive_format == "zip" else _not_yet
        return list_entries(root, globs, symlinks, listed, archive=archive, begin=begin)

    def pack(
        self,
        entries: Iterable[Entry],
        archive_format: Format,
        consumed: Callable[[int], object] = lambda _: None,
    ) -> Generator[bytes, None, None]:
        """Pack entries.

        Threads read and deflate ahead of whoever takes the bytes, until there are no more, the
        generator is closed or the context ends.

        Args:
            entries: What to pack, as it was listed.
            archive_format: What to make of it.
            consumed: Is told of the bytes of files as they are read.

        Raises:
            LocalIOError: A file cannot be read, or changed since it was listed.
        """
        listed = entries if isinstance(entries, PackingList) else PackingList(entries)
        stream = self._stream(listed, archive_format, consumed)
        # Before what it works with, whoever still holds it, as the traceback of a failure does.
        self._stack.enter_context(closing(stream))
        return stream

    def _stream(
        self, listed: PackingList, archive_format: Format, consumed: Callable[[int], object]
    ) -> Generator[bytes, None, None]:
        if archive_format == "zip":
            return zip_stream(listed, self._zip, consumed)
        # Most artifacts are zips, and need not wait for it to be loaded.
        from cpstage.archive.tar_writer import gzip_stream, tar_stream

        if archive_format == "tar":
            return tar_stream(listed, consumed)
        return gzip_stream(listed, self._level, consumed, self._threads)


def _not_packed(root: Path, error: ArtifactRejected) -> ArtifactRejected:
    """Say what to do about a tree that could not be unpacked again."""
    return ArtifactRejected(
        f"cannot pack {root}: {error.message}",
        hint="leave it out with --exclude, or pack what links point to with --symlinks follow; "
        "nothing was uploaded",
    )
