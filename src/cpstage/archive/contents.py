"""What an archive held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

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


def contents_document(contents: Contents | None) -> dict[str, int | None]:
    """Return contents as JSON has them: null where nothing was unpacked."""
    return {
        "files": contents.files if contents else None,
        "directories": contents.directories if contents else None,
        "links": contents.links if contents else None,
        "unpacked_size": contents.size if contents else None,
    }


def read_contents(document: Mapping[str, Any]) -> Contents | None:
    """Read contents back from JSON.

    Raises:
        KeyError, TypeError, ValueError: A member is missing, or no number.
    """
    members = [document[name] for name in contents_document(None)]
    return None if members[0] is None else Contents(*map(int, members))
