"""What there is to say of a tar archive: refused, and how; or accepted, and by whom else.

GNU tar and libarchive are the independent readers of what is accepted.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from archive_checks import Listing, agreement, refusal, run_reader
from cpstage import Limits
from cpstage.archive.options import Budget
from cpstage.archive.tar_reader import tar_members
from trees import listing, needs
from unpacked_archives import unpack

if TYPE_CHECKING:
    from pathlib import Path

PEERS = ("tar", "bsdtar")


def refused(
    body: bytes,
    root: Path,
    says: str,
    *,
    entry: str | None = None,
    limits: Limits | None = None,
) -> str:
    """Expect an archive to be refused, and return the message.

    Args:
        body: The archive.
        root: An empty directory; the archive is unpacked two levels below it.
        says: A pattern of the rule that the message has to name.
        entry: The name of the entry that it has to quote.
        limits: What the archive may unpack to.
    """
    return refusal(body, root / "above/into", _name(body), says, entry, limits)


def accepted(body: bytes, root: Path, *peers: str, limits: Limits | None = None) -> Listing:
    """Expect an archive to be accepted, with the tree that other readers make of it."""
    root.mkdir(exist_ok=True)
    unpack(body, root / "into", name=_name(body), limits=limits)
    return agreement(body, root, peers, read_by)


def read_by(peer: str, body: bytes, root: Path) -> Listing:
    """Return the tree that another reader makes of an archive."""
    needs(peer)
    (root / peer).mkdir()
    # GNU tar finds out by itself what a file is compressed with, but not what a pipe brings it.
    archive = root / f"for-{peer}"
    archive.write_bytes(body)
    command = [peer, "-xf", str(archive), "-C", peer, "--no-same-owner"]
    assert run_reader(command, root) == 0
    return listing(root / peer)


def members_of(body: bytes) -> list[tuple[str, str, bool, str, bytes]]:
    """Return what the reader makes of an archive: for all of its bytes in turn, this is quick."""
    compressed = body[:2] == b"\x1f\x8b"
    budget = Budget(Limits(), len(body))
    with tar_members(io.BytesIO(body), compressed=compressed, budget=budget) as members:
        return [
            (one.name, one.kind, one.executable, one.target, b"".join(one.chunks()))
            for one in members
        ]


def _name(body: bytes) -> str:
    return "app.tar.gz" if body[:2] == b"\x1f\x8b" else "app.tar"
