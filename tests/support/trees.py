"""Directory trees to pack, and what there is to compare of them."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

_DEBIAN = {"unzip": "unzip", "zipinfo": "unzip", "zip": "zip", "bsdtar": "libarchive-tools"}


def needs(*programs: str) -> None:
    """Skip a test where an independent reader or packer is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing (Debian package {_DEBIAN.get(program, program)})")


def awkward_tree(root: Path) -> Path:
    """A tree with everything that archives are known to lose."""
    root.mkdir(parents=True)
    _file(root / "bin" / "run.sh", "#!/bin/sh\necho run\n", executable=True)
    _file(root / "src" / "main.c", "int main(void) { return 0; }\n" * 500)
    _file(root / ".hidden", "dot")
    _file(root / ".config" / ".nested", "dot in dot")
    _file(root / "empty.txt", "")
    _file(root / "größe" / "日本語 name.txt", "ünï")
    _file(root / "with space" / 'it\'s "quoted" & $odd;.txt', "x")
    _file(root / ("d" * 98) / ("f" * 98) / "x", "deep and long")
    _file(root / "noise.bin", "").write_bytes(os.urandom(300_000))
    (root / "empty" / "inside").mkdir(parents=True)
    (root / "bin" / "latest").symlink_to("run.sh")
    (root / "src" / "up").symlink_to("../bin/run.sh")
    (root / "dangling").symlink_to("not/there")
    (root / "to-directory").symlink_to("src")
    return root


def listing(root: Path) -> dict[str, tuple[str, bool, bytes]]:
    """What is below a directory: kind, execute bit, and content or target."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = ("link", False, os.fsencode(os.readlink(path)))
        elif path.is_dir():
            found[name] = ("directory", False, b"")
        else:
            executable = bool(path.stat().st_mode & 0o100)
            found[name] = ("file", executable, path.read_bytes())
    return found


def names(root: Path) -> list[str]:
    """The paths below a directory, less the workspace's own state."""
    paths = (path.relative_to(root).as_posix() for path in root.rglob("*"))
    return sorted(path for path in paths if not path.startswith(".cpstage"))


def _file(path: Path, text: str, *, executable: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755 if executable else 0o644)
    return path
