"""Options and limits of unpacking and packing, and the defaults of both.

Limits are counted on real output while it streams.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from cpstage._deflate import DEFAULT_LEVEL
from cpstage.errors import ArtifactRejected, ConfigurationError

if TYPE_CHECKING:
    from cpstage.filesystem.walk import Globs, Symlinks

UnsafeLinks = Literal["reject", "skip", "keep"]

RATIO_FREE = 64 << 20
"""Bytes of output below which no ratio is refused."""

MOST_DEPTH = 500
"""Components of a path: the highest limit that the commands take."""

ZIP_RECORD_BYTES, ZIP_RECORD_ROOM = 64, 512
"""Bytes of a central directory record of ours besides its name, and bytes that the central
directory may have for each entry besides the limit of headers."""

FIXED_MTIME = 315_532_800
"""1980-01-01, the first time that zip can express; GNU tar warns of older ones."""


@dataclass(frozen=True)
class Limits:
    """The limits of one artifact; each is an option of the commands that unpack.

    Attributes:
        size: Bytes of all files together.
        ratio: Bytes that may come out for each byte of the archive, above 64 MiB of output.
        entries: Members of the archive.
        depth: Components of a path.
        header: Bytes of one extended header of a tar, and of the directory of a zip above 512
            for each entry.
    """

    size: int = 20 << 30
    ratio: int = 200
    entries: int = 200_000
    depth: int = 128
    header: int = 1 << 20


@dataclass(frozen=True)
class ExtractOptions:
    """How archives are unpacked.

    Attributes:
        limits: What one archive may unpack to.
        mtime: ``archive`` restores mtimes, ``now`` gives every file and directory the time at
            which unpacking begins.
        unsafe_links: What happens to symlinks that leave the tree: ``reject`` refuses the archive,
            ``skip`` leaves them out, ``keep`` creates them unchanged, after all files.
    """

    limits: Limits = field(default_factory=Limits)
    mtime: Literal["archive", "now"] = "archive"
    unsafe_links: UnsafeLinks = "reject"


class MtimeRule(NamedTuple):
    """Which mtimes are written into an archive.

    Attributes:
        fixed: Seconds since the epoch that all entries get; None keeps the mtime of each.
        latest: Seconds since the epoch that none is after: ``SOURCE_DATE_EPOCH``.
    """

    fixed: int | None = None
    latest: int | None = None

    @property
    def is_reproducible(self) -> bool:
        """Whether an archive must not depend on the time zone."""
        return self.fixed is not None or self.latest is not None

    def apply(self, mtime_ns: int) -> int:
        """Return the mtime to write for one, in nanoseconds since the epoch."""
        chosen = mtime_ns if self.fixed is None else self.fixed * 10**9
        return chosen if self.latest is None else min(chosen, self.latest * 10**9)


def _all() -> Globs:
    from cpstage.filesystem.walk import Globs  # which a fetch need not load

    return Globs()


@dataclass(frozen=True)
class PackOptions:
    """How archives are made of directories.

    Attributes:
        globs: What of a directory is packed.
        symlinks: Whether symlinks are kept, or replaced by what they point to: ``follow`` inside
            the directory, ``follow-outside`` everywhere.
        level: How hard to compress, from 0 (not at all) to 9.
        mtime: ``keep`` writes the mtimes of the files, ``fixed`` 1980-01-01, a number those
            seconds since the epoch.
    """

    globs: Globs = field(default_factory=_all)
    symlinks: Symlinks = "keep"
    level: int = DEFAULT_LEVEL
    mtime: Literal["keep", "fixed"] | int = "keep"

    def mtime_rule(self) -> MtimeRule:
        """Return which mtimes are written, with ``SOURCE_DATE_EPOCH`` (reproducible-builds.org).

        Raises:
            ConfigurationError: The variable is not a number of seconds.
        """
        fixed = FIXED_MTIME if self.mtime == "fixed" else self.mtime
        epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
        if epoch and not (epoch.isascii() and epoch.isdigit() and len(epoch) <= 12):
            raise ConfigurationError(
                f"SOURCE_DATE_EPOCH is not a number of seconds: {epoch[:200]!r}",
                hint="set it to seconds since 1970, as of date +%s, or unset it",
            )
        latest = int(epoch) if epoch else None
        return MtimeRule(None if fixed == "keep" else fixed, latest)


class Budget:
    """How much of its limits an archive has used; ``packed`` is its size in bytes.

    Each check raises ArtifactRejected where a limit is exceeded.
    """

    def __init__(self, limits: Limits, packed: int) -> None:
        self._limits = limits
        self._packed = packed
        self.size = 0
        self.entries = 0

    def spend_entry(self) -> None:
        """Count one member."""
        self.expect_entries(1)
        self.entries += 1

    def expect_entries(self, count: int) -> None:
        """Check how many more members an archive says it has, before they are read."""
        if self.entries + count > self._limits.entries:
            raise _over("entries", f"{self._limits.entries:,} entries", "--max-entries")

    def check_header(self, size: int) -> None:
        """Check how long a header is, before it is read."""
        if size > self._limits.header:
            raise _over("headers", f"{self._limits.header:,} bytes of a header", "--max-header")

    def check_depth(self, path: str) -> None:
        """Check how deep a path is."""
        if path.count("/") >= self._limits.depth:
            raise self._too_deep(path.count("/") + 1)

    def _too_deep(self, components: int) -> ArtifactRejected:
        if components <= MOST_DEPTH:
            return _over("depth", f"{self._limits.depth} components in a path", "--max-depth")
        return ArtifactRejected(
            f"a path of the archive has {components:,} components, and {MOST_DEPTH} are the most",
            hint="pack fewer levels of directories",
        )

    def spend_bytes(self, count: int) -> None:
        """Count bytes of output, before they are written; check also their ratio to the archive."""
        self.size += count
        if self.size > self._limits.size:
            raise _over("size", f"{self._limits.size:,} bytes unpacked", "--max-size")
        if self.size > max(RATIO_FREE, self._packed * self._limits.ratio):
            raise _over("ratio", f"{self._limits.ratio} bytes for each byte packed", "--max-ratio")

    def counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Hand chunks on, and count the bytes of each before."""
        for chunk in chunks:
            self.spend_bytes(len(chunk))
            yield chunk


def _over(limit: str, bound: str, option: str) -> ArtifactRejected:
    return ArtifactRejected(
        f"the archive is over the limit of {limit} ({bound})",
        hint=f"if you trust it, raise the limit with {option}",
    )
