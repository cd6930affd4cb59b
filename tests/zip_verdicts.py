"""What there is to say of a zip archive: refused, and how; or accepted, and by whom else.

Info-ZIP and libarchive are the independent readers of what is accepted.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from cpstage import ArtifactRejected, Limits
from trees import listing, needs
from unpacking import unpack

Listing = dict[str, tuple[str, bool, bytes]]

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
    into = root / "above" / "into"
    into.parent.mkdir(parents=True)
    with pytest.raises(ArtifactRejected) as caught:
        unpack(body, into, name="app.zip", limits=limits)
    said = str(caught.value)
    assert caught.value.exit_code == 65
    assert said.isprintable()
    assert re.search(says, said, re.IGNORECASE), said
    assert entry is None or repr(entry) in said, said
    beside = [path for path in root.rglob("*") if into not in (path, *path.parents)]
    assert beside == [into.parent], "something was written outside"
    assert not planned or listing(into) == {}, "something was written before the plan was made"
    return said


def accepted(body: bytes, root: Path, *readers: str, limits: Limits | None = None) -> Listing:
    """Expect an archive to be accepted, with the tree that other readers make of it."""
    unpack(body, root / "into", name="app.zip", limits=limits)
    found: Listing = listing(root / "into")
    for reader in readers:
        other = read_by(reader, body, root)
        assert found == other, f"{reader} makes {other} of it, and not {found}"
    return found


def read_by(reader: str, body: bytes, root: Path) -> Listing:
    """Return the tree that another reader makes of an archive."""
    needs(reader)
    (root / "app.zip").write_bytes(body)
    (root / reader).mkdir()
    # Info-ZIP exits with 1 for what it only warns of.
    done = subprocess.run(
        _COMMANDS[reader],
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode in (0, 1), done.stderr
    return listing(root / reader)
