"""What there is to say of a zip archive: refused, and how; or accepted, and by whom else.

Info-ZIP and libarchive are the independent readers of what is accepted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archive_checks import Listing, agreement, refusal, run_reader
from trees import listing, needs
from unpacked_archives import unpack

if TYPE_CHECKING:
    from pathlib import Path

    from cpstage import Limits

_COMMANDS = {
    "unzip": ["unzip", "-q", "-o", "app.zip", "-d", "unzip"],
    "bsdtar": ["bsdtar", "-xf", "app.zip", "-C", "bsdtar"],
}


def refused(
    body: bytes,
    root: Path,
    says: str,
    *,
    entry: str | None = None,
    planned: bool = True,
    limits: Limits | None = None,
) -> str:
    """Expect an archive to be refused, and return the message.

    Args:
        body: The archive.
        root: An empty directory; the archive is unpacked two levels below it.
        says: A pattern of the rule that the message has to name.
        entry: The name of the entry that it has to quote.
        planned: Whether the directory of the archive gives it away, so that nothing is written.
        limits: What the archive may unpack to.
    """
    into = root / "above/into"
    said = refusal(body, into, "app.zip", says, entry, limits)
    assert not planned or listing(into) == {}, "something was written before the plan was made"
    return said


def accepted(body: bytes, root: Path, *readers: str, limits: Limits | None = None) -> Listing:
    """Expect an archive to be accepted, with the tree that other readers make of it."""
    unpack(body, root / "into", name="app.zip", limits=limits)
    return agreement(body, root, readers, read_by)


def read_by(reader: str, body: bytes, root: Path) -> Listing:
    """Return the tree that another reader makes of an archive."""
    needs(reader)
    (root / "app.zip").write_bytes(body)
    (root / reader).mkdir()
    run_reader(_COMMANDS[reader], root)  # Info-ZIP exits with 1 for what it only warns of
    return listing(root / reader)
