"""What an archive held."""

from __future__ import annotations

from dataclasses import dataclass

from cpstage.archive.member import MemberKind


@dataclass
class Contents:
    """What came out of one archive."""

    files: int = 0
    directories: int = 0
    links: int = 0
    size: int = 0

    def count(self, kind: MemberKind, size: int, *, there: bool) -> None:
        """Count a member, unless it is in the place of another one."""
        self.size += size
        if not there:
            self.directories += kind == "directory"
            self.links += kind == "link"
            self.files += kind in ("file", "hard link")
