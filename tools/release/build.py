"""Build what a release consists of: ``python tools/release/build.py --into dist``.

- the wheel and the source distribution (``build``);
- one executable file for agents without pip (``pex``), for this Python version and platform;
- the container image, where Docker or Podman is there and answers;
- ``SHA256SUMS`` of the files.

``nox -s release`` runs it in a separate environment.

The executable is a pex and not a shiv: both unpack themselves at the first start. Later starts of
the pex take 1.05 times as long as those of a virtual environment (``--version``; 1.2 with boto3),
because a few lines of sh find the unpacked files. Those of a shiv take 2 times as long.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ("wheel", "sdist", "executable", "image")


def main() -> None:
    """Build the parts that the command line names, by default all of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--into", type=Path, default=ROOT / "dist", metavar="DIR")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    given = parser.parse_args()
    given.into.mkdir(parents=True, exist_ok=True)
    built: list[Path] = []
    if {"wheel", "sdist", "executable"} & {*given.only}:
        built.append(_wheel(given.into))
    if "sdist" in given.only:
        built.append(_sdist(given.into))
    if "executable" in given.only:
        built.append(_executable(built[0], given.into))
    if built:
        _write_checksums(built, given.into / "SHA256SUMS")
    if "image" in given.only:
        _image()


def _wheel(into: Path) -> Path:
    _run("-m", "build", "--no-isolation", "--wheel", "--outdir", str(into), str(ROOT))
    return into / f"cpstage-{version()}-py3-none-any.whl"


def _sdist(into: Path) -> Path:
    _run("-m", "build", "--no-isolation", "--sdist", "--outdir", str(into), str(ROOT))
    return into / f"cpstage-{version()}.tar.gz"


def _executable(wheel: Path, into: Path) -> Path:
    """Pack the wheel and its dependencies into one file that needs Python, and no pip."""
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    platform = sysconfig.get_platform().replace("-", "_")
    file = into / f"cpstage-{version()}-{python}-{platform}.pex"
    _run(
        *("-m", "pex", str(wheel), "--console-script", "cpstage", "--output-file", str(file)),
        *("--venv", "--sh-boot", "--compile"),  # what makes later starts fast
    )
    return file


def _image() -> None:
    for engine in ("docker", "podman"):
        answers = shutil.which(engine) and subprocess.run([engine, "info"], capture_output=True)
        if answers and answers.returncode == 0:
            for tag in (f"cpstage:{version()}", "cpstage:latest"):
                subprocess.run(
                    [engine, "build", "-f", str(ROOT / "packaging/Dockerfile"), "-t", tag, ROOT],
                    check=True,
                )
            return
    print("no image: neither Docker nor Podman answers", file=sys.stderr)


def _write_checksums(files: list[Path], into: Path) -> None:
    lines = (f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)
    into.write_text("".join(lines))
    print(into.read_text(), end="")


def version() -> str:
    """Return the version of the checkout."""
    found = re.search(r'__version__ = "(.+)"', (ROOT / "src/cpstage/_version.py").read_text())
    if not found:
        raise SystemExit("src/cpstage/_version.py holds no version")
    return found[1]


def _run(*arguments: str) -> None:
    """Run a module of Python; the time of the last commit makes repeated builds the same."""
    epoch = subprocess.run(
        ["git", "-C", ROOT, "log", "-1", "--format=%ct"], capture_output=True, text=True
    ).stdout.strip()
    environment = {**({"SOURCE_DATE_EPOCH": epoch} if epoch else {}), **os.environ}
    done = subprocess.run([sys.executable, *arguments], env=environment, stdout=sys.stderr)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(arguments[:2])} failed with exit code {done.returncode}")


if __name__ == "__main__":
    main()
