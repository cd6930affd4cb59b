"""Packing: entries that were listed and checked become one stream of bytes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path

from cpstage.archive.compression import DEFAULT_LEVEL
from cpstage.archive.flow.ordered import thread_count
from cpstage.archive.formats import Format
from cpstage.archive.names import check_links, check_name
from cpstage.archive.portions import PackingList
from cpstage.errors import ArtifactRejected
from cpstage.globs import Globs
from cpstage.tree import RelativePath
from cpstage.walk import Entry, Symlinks, walk


def list_entries(
    root: Path,
    globs: Globs,
    symlinks: Symlinks,
    listed: Callable[[int], object] = lambda _: None,
    *,
    archive: Path | None = None,
) -> PackingList:
    """List what is to be packed, and check that it can be unpacked again.

    Args:
        root: The directory.
        globs: What of it goes in.
        symlinks: Whether links are kept, or replaced by what they point to.
        listed: Is told of entries as they are found.
        archive: A file that is left out wherever it stands: what is packed goes there.

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

    found = PackingList(checked())
    try:
        check_links(links)
    except ArtifactRejected as error:
        raise _not_packed(root, error) from error
    return found


def pack(
    entries: Iterable[Entry],
    archive_format: Format,
    level: int = DEFAULT_LEVEL,
    consumed: Callable[[int], object] = lambda _: None,
    threads: int | None = None,
) -> Generator[bytes, None, None]:
    """Pack entries; the same entries and level give the same bytes.

    Threads read and deflate ahead of whoever takes the bytes, until there are no more or the
    generator is closed.

    Args:
        entries: What to pack, as :func:`list_entries` found it.
        archive_format: What to make of it.
        level: From 0 (not compressed) to 9.
        consumed: Is told of the bytes of files as they are read.
        threads: How many; as many as there are processors where none is given.

    Raises:
        LocalIOError: A file cannot be read, or changed since it was listed.
    """
    many = threads or thread_count()
    listed = entries if isinstance(entries, PackingList) else PackingList(entries)
    # A fetch has no use for writers, and should not wait for them to be loaded.
    if archive_format == "zip":
        from cpstage.archive.zip.writer import zip_stream

        return zip_stream(listed, level, consumed, many)
    from cpstage.archive.tar.writer import gzip_stream, tar_stream

    if archive_format == "tar":
        return tar_stream(listed, consumed)
    return gzip_stream(listed, level, consumed, many)


def _not_packed(root: Path, error: ArtifactRejected) -> ArtifactRejected:
    """Say what to do about a tree that could not be unpacked again."""
    return ArtifactRejected(
        f"cannot pack {root}: {error.message}",
        hint="leave it out with --exclude, or pack what links point to with --symlinks follow; "
        "nothing was uploaded",
    )
