"""How the entries of an archive and those of a tree differ.

Files of the tree are read where their size is the same. This module knows nothing of jobs, of S3
and of where the entries come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from cpstage._deflate import crc32_of
from cpstage.archive.paths import is_root
from cpstage.looking.listing import Listed, plain_path
from cpstage.progress import Advance, Progress
from cpstage.walk import Entry, read_file

What = Literal["missing", "added", "kind", "size", "content", "executable", "target"]
"""``missing`` is in the artifact only, ``added`` in the tree only."""


@dataclass(frozen=True)
class Difference:
    """One way in which a tree and an artifact differ.

    Attributes:
        path: Where.
        what: In what.
        remote: What the artifact has; None where it has nothing.
        local: What the tree has; None where it has nothing.
    """

    path: str
    what: What
    remote: str | int | bool | None = None
    local: str | int | bool | None = None


def with_parents(entries: Iterable[Listed]) -> dict[str, Listed]:
    """Return entries by their paths, with directories that an archive only implies.

    Of several of the same path the last is taken, as tar has it; hard links are the files that
    they stand for.
    """
    found: dict[str, Listed] = {}
    for entry in entries:
        path = plain_path(entry.name)
        if entry.kind == "directory" and is_root(entry.name):
            continue
        end = path.rfind("/")
        while end > 0 and path[:end] not in found:
            found[path[:end]] = Listed(path[:end], "directory")
            end = path.rfind("/", 0, end)
        if entry.kind == "hard link":
            found[path] = replace(found[plain_path(entry.target)], name=entry.name)
        else:
            found[path] = entry
    return found


def differences(
    name: str, remote: Mapping[str, Listed], local: Mapping[str, Entry], progress: Progress
) -> Iterator[Difference]:
    """Compare the entries of an artifact with those of a tree, in the order of their paths.

    Args:
        name: What to call it in progress.
        remote: What the artifact has, by path.
        local: What the tree has, by path.
        progress: Is told of the files that are read.

    Raises:
        LocalIOError: A file cannot be read, or changed while it was.
    """
    same = (local[path].size for path, one in remote.items() if path in local and one.size)
    with progress.phase(f"{name}: comparing", sum(same)) as advance:
        for path in sorted(remote.keys() | local.keys()):
            if path not in local:
                yield Difference(path, "missing", remote[path].kind, None)
            elif path not in remote:
                yield Difference(path, "added", None, local[path].kind)
            else:
                yield from _of_one(path, remote[path], local[path], advance)


def _of_one(path: str, remote: Listed, local: Entry, advance: Advance) -> Iterator[Difference]:
    if remote.kind != local.kind:
        yield Difference(path, "kind", remote.kind, local.kind)
    elif remote.kind == "link" and remote.target != local.target:
        yield Difference(path, "target", remote.target, local.target)
    elif remote.kind == "file":
        if remote.size != local.size:
            yield Difference(path, "size", remote.size, local.size)
        else:
            crc = crc32_of(read_file(local, advance))
            if crc != remote.crc:
                yield Difference(path, "content", f"{remote.crc or 0:08x}", f"{crc:08x}")
        if remote.executable != local.executable:
            yield Difference(path, "executable", remote.executable, local.executable)
