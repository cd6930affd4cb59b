"""Packing: a directory is listed and checked, and becomes one stream of bytes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, Literal

from cpstage.archive.formats import Format
from cpstage.archive.options import PackOptions
from cpstage.archive.packing_list import Begin, PackingList, PackingPool, limit_notes
from cpstage.archive.paths import check_name, leaving, unsafe_links
from cpstage.archive.workers import thread_count
from cpstage.archive.zip_writer import mtime_notes, pack_unit, zip_stream
from cpstage.errors import ArtifactRejected, listing
from cpstage.filesystem.tree import RelativePath
from cpstage.filesystem.walk import Entry, Globs, Symlinks, walk

_LOGGER = logging.getLogger("cpstage")

_NAME_HINT = "rename these entries, or leave them out with --exclude"
_LINK_HINT = (
    "pack the files that these links point to with --symlinks follow-outside, or leave the links "
    "out with --exclude"
)
_LEFT_OUT = "leave this link out with --exclude"


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

    ``listed`` is told of entries as they are found. ``begin`` is given each batch as soon as it is
    full, to begin to pack it. ``archive``, the file that is written, is left out wherever it is.

    Raises:
        ArtifactRejected: A link leads out of the tree, a name is not portable, or an entry is
            neither file, directory nor link.
        LocalIOError: Something cannot be read.
    """
    links: dict[RelativePath, str] = {}
    unsafe: list[tuple[str, str]] = []
    notes: list[str] = []

    def report(note: str) -> None:
        notes.append(note)
        _LOGGER.warning("%s: %s", root, note)

    def checked() -> Iterator[Entry]:
        left_out = str(archive) if archive else None
        for entry in walk(root, globs, symlinks, report):
            listed(1)
            if entry.source == left_out:
                continue
            if unsafe and entry.path.startswith(f"{unsafe[-1][0]}/"):
                continue  # it has the unsafe name of its directory
            try:
                check_name(entry.path)
            except ArtifactRejected as error:
                unsafe.append((entry.path, error.message))
                continue
            if entry.kind == "link":
                links[entry.path] = entry.target
            yield entry

    found = PackingList(checked(), begin)
    if unsafe:
        raise _not_packed(root, listing(why for _, why in unsafe), _NAME_HINT)
    try:
        leaving_links = unsafe_links(links)
    except ArtifactRejected as error:
        raise _not_packed(root, error.message, _LEFT_OUT) from error
    if leaving_links:
        raise _not_packed(root, leaving(leaving_links, links).message, _LINK_HINT)
    found.notes += notes
    return found


class Packer:
    """Lists directories and packs what was listed; the same entries and level give the same bytes.

    It is a context, which ends all threads, processes and streams of it.

    Args:
        options: The options of packing.
        threads: How many read and deflate; by default as many as there are processors.
        is_eager: Whether an archive is begun while its entries are still listed.
    """

    def __init__(
        self,
        options: PackOptions | None = None,
        threads: int | None = None,
        *,
        is_eager: bool = True,
    ) -> None:
        self._options = options or PackOptions()
        self._rule = self._options.mtime_rule()
        self._threads = threads or thread_count()
        self._is_eager = is_eager
        self._stack = ExitStack()
        self._pools: dict[Format, PackingPool[Any]] = {}

    def __enter__(self) -> Packer:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def list_entries(
        self,
        root: Path,
        archive_format: Format | Literal["raw"],
        listed: Callable[[int], object] = lambda _: None,
        *,
        archive: Path | None = None,
    ) -> PackingList:
        """List as :func:`list_entries` does, and begin to pack for a format where that is of use.

        LocalIOError is raised also for a file that changed since it was listed.
        """
        how = self._options
        begin: Begin = _not_yet
        if self._is_eager and archive_format != "raw":
            begin = self._pool(archive_format).begin
        found = list_entries(root, how.globs, how.symlinks, listed, archive=archive, begin=begin)
        mtimes = mtime_notes(found, self._rule) if archive_format == "zip" else []
        for note in [*limit_notes(found, archive_format), *mtimes]:
            _LOGGER.warning("%s: %s", root, note)
            found.notes.append(note)
        return found

    def pack(
        self,
        entries: Iterable[Entry],
        archive_format: Format,
        consumed: Callable[[int], object] = lambda _: None,
    ) -> Generator[bytes, None, None]:
        """Pack entries.

        Threads read and deflate ahead of the consumer of the bytes, until all are read, the
        generator is closed or the context ends. ``consumed`` is told of the bytes of files as they
        are read.

        Raises:
            LocalIOError: A file cannot be read, or changed since it was listed.
        """
        listed = entries if isinstance(entries, PackingList) else PackingList(entries)
        pool = self._pool(archive_format)
        if archive_format == "zip":
            stream = zip_stream(listed, pool, consumed, self._rule)
        else:
            # Most artifacts are zips, and need not wait for it to be loaded.
            from cpstage.archive.tar_writer import tar_stream

            stream = tar_stream(listed, pool, consumed, self._level_of(archive_format))
        # Closed before the threads that it uses; a traceback may still refer to it.
        self._stack.enter_context(closing(stream))
        return stream

    def _pool(self, archive_format: Format) -> PackingPool[Any]:
        """Return what packs units for a format: one for all lists, with its processes."""
        if archive_format not in self._pools:
            work: Callable[..., Any] = pack_unit
            if archive_format != "zip":
                from cpstage.archive.tar_writer import tar_piece as work
            how = {"level": self._level_of(archive_format), "rule": self._rule}
            pool = PackingPool(partial(work, **how), self._threads)
            self._pools[archive_format] = self._stack.enter_context(pool)
        return self._pools[archive_format]

    def _level_of(self, archive_format: Format) -> int | None:
        return None if archive_format == "tar" else self._options.level


def _not_packed(root: Path, why: str, hint: str) -> ArtifactRejected:
    return ArtifactRejected(f"cannot pack {root}: {why}", hint=f"{hint}; nothing was packed")
