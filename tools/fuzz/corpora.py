"""Archives of other projects' tests, unpacked by cpstage and by other readers, and compared.

    python tools/fuzz/corpora.py DIRECTORY… [--show VERDICT] [--json FILE]

Each DIRECTORY is a corpus: every file below it is tried. The readers are unzip, bsdtar, 7z, GNU tar
and Python, as far as they are installed. Run it as a user who may not write much: a reader may
follow a hostile archive out of its directory.

It fails if cpstage hangs, shows a traceback, or leaves anything behind after a refusal. The other
verdicts are to be looked at: an archive that cpstage alone refuses, or reads in its own way.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

SECONDS, MEMORY, SIZE = 60, 4 << 30, 1 << 30
"""Limits of each process: seconds, bytes of memory, and bytes of a file."""

CLEAN = 2
"""So many readers without a complaint count as proof that an archive is sound."""

_ZIPFILE = "import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])"
_TARFILE = "import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2], filter='data')"
_PLAIN = "--no-same-owner --no-same-permissions"
_TAR = {
    "tar": f'tar {_PLAIN} --delay-directory-restore -xf "$1" -C "$2"',
    "bsdtar": f'bsdtar {_PLAIN} -xf "$1" -C "$2"',
    "7z": '7z x -y -snld20 -o"$2" -ttar "$1"',
    "tarfile": f'"$PYTHON" -c "{_TARFILE}" "$1" "$2"',
}
READERS: Mapping[str, Mapping[str, str]] = {
    "zip": {
        "unzip": 'unzip -qq -o -P x "$1" -d "$2"',
        "bsdtar": f'bsdtar {_PLAIN} --passphrase x -xf "$1" -C "$2"',
        "7z": '7z x -y -px -snld20 -o"$2" -tzip "$1"',
        "zipfile": f'"$PYTHON" -c "{_ZIPFILE}" "$1" "$2"',
    },
    "tar": _TAR,
    "tar.gz": _TAR | {"7z": '7z x -so -tgzip "$1" | 7z x -y -snld20 -o"$2" -ttar -si'},
}
"""For each format, shell commands that unpack the archive $1 into the directory $2."""

_CPSTAGE = f'"$PYTHON" -m cpstage unpack "$1" --into "$2" --quiet --max-size {SIZE}'

Tree = Mapping[str, str]
"""What is at each path: a directory, the hash of a file, or the target of a link."""


@dataclass
class Verdict:
    """What cpstage and the other readers did with one archive."""

    corpus: str
    path: str
    format: str
    verdict: str
    reason: str = ""
    readers: dict[str, str] = field(default_factory=dict)


def main() -> int:
    """Judge all corpora, and print a table of verdicts and reasons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIRECTORY")
    parser.add_argument("--show", help="print each archive whose verdict begins so")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path(os.devnull),
        help="write verdicts to this file, line by line",
    )
    given = parser.parse_args()
    archives = [
        (directory.name, path)
        for directory in given.directories
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.is_symlink()
    ]
    verdicts = []
    with ThreadPoolExecutor(os.cpu_count()) as pool, given.json.open("w") as lines:
        for one in filter(None, pool.map(_judge, *zip(*archives, strict=True))):
            verdicts.append(one)
            print(json.dumps(asdict(one)), file=lines, flush=True)
            if given.show is not None and one.verdict.startswith(given.show):
                print(f"{one.corpus}/{one.path}: {one.verdict}: {one.reason} {one.readers}")
    _print_tables(verdicts)
    return int(any(one.verdict.startswith("fault") for one in verdicts))


def _print_tables(verdicts: Sequence[Verdict]) -> None:
    corpora = Counter((one.corpus, one.verdict) for one in verdicts)
    reasons = Counter((one.verdict, one.reason) for one in verdicts if "refused" in one.verdict)
    for table in (corpora, reasons, Counter(("total", one.verdict) for one in verdicts)):
        for (first, second), count in sorted(table.items()):
            print(f"{count:6}  {first}: {second}")
        print()


def _judge(corpus: str, path: Path) -> Verdict | None:
    """Unpack an archive with cpstage and all readers, and compare the trees."""
    archive_format = _format(path)
    if archive_format is None:
        return None
    judged = Verdict(corpus, path.name, archive_format, "")
    directory = Path(tempfile.mkdtemp())
    try:
        trees: dict[str, Tree] = {}
        for reader, command in READERS[archive_format].items():
            if shutil.which(reader) or reader in ("zipfile", "tarfile"):
                place = directory / reader / "d"
                place.mkdir(parents=True)
                code, said = _run(command, path, place)
                judged.readers[reader] = "" if code == 0 else f"{code}: {said[-200:]}"
                if code == 0:
                    trees[reader] = _tree(place)
        _judge_ours(path, directory / "cpstage", trees, judged)
    finally:
        # Trees may be deeper than shutil.rmtree can go, and have directories without any mode.
        subprocess.run(["chmod", "-R", "u+rwx", directory], stderr=subprocess.DEVNULL)
        subprocess.run(["rm", "-rf", directory], stderr=subprocess.DEVNULL)
    return judged


def _judge_ours(path: Path, directory: Path, trees: Mapping[str, Tree], judged: Verdict) -> None:
    directory.mkdir()
    target = directory / "d"
    code, said = _run(_CPSTAGE, path, target)
    judged.reason = _reason(said.replace(str(path), "FILE")) if code else ""
    left = os.listdir(directory)
    if code not in (0, 65) or "Traceback" in said:
        judged.verdict = f"fault: exit code {code}"
    elif left != (["d"] if code == 0 else []):
        judged.verdict, judged.reason = "fault: leaves files behind", str(left)
    elif code == 0:
        judged.verdict = _compared(_tree(target), trees, len(judged.readers))
    else:
        judged.verdict = "refused alone" if len(trees) >= CLEAN else "refused"


def _compared(ours: Tree, trees: Mapping[str, Tree], readers: int) -> str:
    """Compare a tree with what each of the readers made that did not complain."""
    others = sorted(name for name, tree in trees.items() if not _is_same(ours, tree, name))
    if others:
        return f"accepted, unlike {' '.join(others)}"
    if readers - len(trees) >= CLEAN:
        return f"accepted, like {' '.join(sorted(trees)) or 'nobody'} alone"
    return "accepted"


def _is_same(ours: Tree, theirs: Tree, reader: str) -> bool:
    if reader == "zipfile":  # writes a link as a file that has the target as content
        ours = {
            path: _hash(os.fsencode(what[5:])) if what.startswith("link ") else what
            for path, what in ours.items()
        }
    return ours == theirs


def _run(command: str, archive: Path, place: Path) -> tuple[int, str]:
    """Run a command under limits, and return its exit code and what it printed."""
    limited = f"set -o pipefail; ulimit -v {MEMORY >> 10} -f {SIZE >> 10}; {command}"
    environment = {**os.environ, "TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHON": sys.executable}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            ["bash", "-c", limited, "bash", str(archive), str(place)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )
        try:
            code = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
        output.seek(0)
        return code, output.read().decode(errors="replace")


def _tree(directory: Path) -> Tree:
    """Return what is below a directory, as deep as paths can be named."""
    found, left = {}, [os.fsencode(directory)]
    while left:
        with suppress(OSError):
            at = left.pop()
            os.chmod(at, 0o700)
            for entry in os.scandir(at):
                name = os.fsdecode(os.path.relpath(entry.path, os.fsencode(directory)))
                found[name] = _content(entry)
                if found[name] == "directory":
                    left.append(entry.path)
    return found


def _content(entry: os.DirEntry[bytes]) -> str:
    mode = entry.stat(follow_symlinks=False).st_mode
    if stat.S_ISLNK(mode):
        return f"link {os.fsdecode(os.readlink(entry.path))}"
    if stat.S_ISDIR(mode):
        return "directory"
    if not stat.S_ISREG(mode):
        return "special"
    os.chmod(entry.path, 0o600)
    return _hash(Path(os.fsdecode(entry.path)).read_bytes())


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _format(path: Path) -> str | None:
    """Return the format that the bytes suggest, or the suffix."""
    with path.open("rb") as file:
        start = file.read(512)
        file.seek(max(0, path.stat().st_size - 66_000))
        end = file.read()
    if start.startswith(b"\x1f\x8b"):
        return "tar.gz"
    if start[257:262] == b"ustar" or path.suffix == ".tar":
        return "tar"
    is_zip = start.startswith(b"PK") or b"PK\5\6" in end or path.suffix in (".zip", ".jar")
    return "zip" if is_zip else None


def _reason(said: str) -> str:
    """Return an error without what differs from archive to archive."""
    text = said.replace("\n", " ").removeprefix("cpstage: error: ")
    text = re.sub(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", "NAME", text)
    return re.sub(r"\d[\d,.]*", "N", re.sub(r"^\S+: ", "", text))[:160]


if __name__ == "__main__":
    sys.exit(main())
