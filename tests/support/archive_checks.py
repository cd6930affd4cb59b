"""What there is to say of an archive: refused, and how; or accepted, and by whom else."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cpstage import Limits
from cpstage.errors import ArtifactRejected
from trees import listing
from unpacked_archives import unpack

Listing = dict[str, tuple[str, bool, bytes]]
Reader = Callable[[str, bytes, Path], Listing]
"""Has another program read an archive in an empty directory."""


def refusal(
    body: bytes, into: Path, name: str, says: str, entry: str | None, limits: Limits | None
) -> str:
    """Expect an archive to be refused with nothing written outside, and return the message.

    Args:
        body: The archive.
        into: Where it is unpacked to: two levels below an empty directory.
        name: The name of the archive.
        says: A pattern of the rule that the message has to name.
        entry: The name of the entry that it has to quote.
        limits: What the archive may unpack to.
    """
    into.parent.mkdir(parents=True)
    with pytest.raises(ArtifactRejected) as caught:
        unpack(body, into, name=name, limits=limits)
    said = str(caught.value)
    assert caught.value.exit_code == 65
    assert said.isprintable()
    assert re.search(says, said, re.IGNORECASE), said
    assert entry is None or repr(entry[:200])[:-1] in said, said
    root = into.parent.parent
    beside = [path for path in root.rglob("*") if into not in (path, *path.parents)]
    assert beside == [into.parent], "something was written outside"
    return said


def agreement(body: bytes, root: Path, readers: Sequence[str], read_by: Reader) -> Listing:
    """Return the tree that was made of an archive below ``into``, if others make the same."""
    found: Listing = listing(root / "into")
    for reader in readers:
        other = read_by(reader, body, root)
        assert found == other, f"{reader} makes {other} of it, and not {found}"
    return found


def run_reader(command: Sequence[str], root: Path) -> int:
    """Run another reader, in the one locale that all of them have."""
    done = subprocess.run(
        command,
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode
