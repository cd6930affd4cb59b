"""What only a kernel does to a run: a separate file system, and modes that hold for root."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


def without_privileges() -> list[str]:
    """What to begin a command line with, so that permission bits hold for root as well."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is missing (Debian package util-linux), and root may do anything")
    prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"root may do anything, and cannot lay that down: {tried.stderr.strip()}")
    return prefix


def with_processes(most: int) -> list[str]:
    """What to begin a command line with, so that its user has no more than some processes."""
    prefix = ["prlimit", f"--nproc={most}"]
    if os.geteuid() == 0:  # whom no limit of processes concerns
        kept = "+dac_override,+dac_read_search"
        nobody = ["setpriv", "--reuid=65534", "--clear-groups"]
        prefix = [*nobody, f"--inh-caps={kept}", f"--ambient-caps={kept}", *prefix]
    if shutil.which(prefix[0]) is None or shutil.which("prlimit") is None:
        pytest.skip("prlimit or setpriv is missing (Debian package util-linux)")
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"the number of processes cannot be limited: {tried.stderr.strip()}")
    return prefix


_HOLD = 'mount -t tmpfs -o "$1" tmpfs "$2" && echo mounted && exec cat'


@dataclass(frozen=True)
class Mounted:
    """A tmpfs that only those who enter its namespace see.

    Attributes:
        place: Where it is mounted.
        prefix: What to begin a command line with that is to see it.
        view: Where everybody else sees what is in it.
    """

    place: Path
    prefix: tuple[str, ...]
    view: Path

    def make_read_only(self) -> None:
        options = ("-o", "remount,bind,ro")
        subprocess.run([*self.prefix, "mount", *options, str(self.place)], check=True)

    def names(self) -> list[str]:
        """What is in it, the workspace's own state included."""
        return sorted(path.relative_to(self.view).as_posix() for path in self.view.rglob("*"))


@contextmanager
def mounted(place: Path, options: str) -> Iterator[Mounted]:
    """Mount a tmpfs, and unmount it in the end; a test is skipped where that cannot be done."""
    for program in ("unshare", "nsenter", "mount"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing (Debian packages util-linux and mount)")
    place.mkdir()
    is_root = os.geteuid() == 0
    new = ["--mount"] if is_root else ["--user", "--map-root-user", "--mount"]
    with subprocess.Popen(
        ["unshare", *new, "sh", "-c", _HOLD, "sh", options, str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline() != "mounted\n":
            pytest.skip(f"no mount namespace to be had: {holder.stderr.read().strip()}")
        target = str(holder.pid)
        try:
            entered = ["--mount"] if is_root else ["--user", "--preserve-credentials", "--mount"]
            prefix = ("nsenter", f"--target={target}", *entered)
            yield Mounted(place, prefix, Path(f"/proc/{target}/root{place}"))
        finally:
            holder.communicate()
