"""What goes wrong while a tree is packed is noticed and named, and nothing is left at work."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from cpstage._deflate import DEFAULT_LEVEL
from cpstage.archive.pack import Packer
from cpstage.archive.packing_list import UNIT_SIZE
from cpstage.archive.workers import in_order
from cpstage.errors import ArtifactRejected, LocalIOError
from cpstage.filesystem.walk import single
from packed_trees import FORMATS, entries_of, hole, pack, stream, text, tree_of_sizes

if TYPE_CHECKING:
    from cpstage.archive.formats import Format

Change = Callable[[Path], object]


def _rewrite(path: Path) -> None:
    """Write other bytes of the same length, as a build does that runs a second time."""
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def _replace(path: Path) -> None:
    """Put another file into its place, as alike as can be."""
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


def _become_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _become_a_link(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to("other")


CHANGES: list[Change] = [
    lambda path: os.truncate(path, 1),
    lambda path: os.truncate(path, path.stat().st_size + 1),
    Path.unlink,
    _rewrite,
    _replace,
    _become_a_fifo,
    _become_a_link,
]
CHANGE_NAMES = ["shrinks", "grows", "vanishes", "rewritten", "replaced", "fifo", "link"]


@pytest.mark.parametrize("size", [1000, UNIT_SIZE + 1000])
@pytest.mark.parametrize("kind", [*FORMATS, "raw"])
@pytest.mark.parametrize("change", CHANGES, ids=CHANGE_NAMES)
def test_a_file_that_changed_since_it_was_listed_is_named(
    tmp_path: Path, change: Change, kind: Format | Literal["raw"], size: int
) -> None:
    file = tmp_path / "tree" / "changing"
    file.parent.mkdir()
    file.write_bytes(text(size))
    entries = entries_of(file.parent)

    change(file)

    with pytest.raises(LocalIOError, match="tree/changing") as caught:
        list(stream(entries, kind))
    assert caught.value.exit_code == 74


@pytest.mark.parametrize("kind", [*FORMATS, "raw"])
@pytest.mark.parametrize("change", CHANGES, ids=CHANGE_NAMES)
def test_a_file_that_changes_while_it_is_read_is_named(
    tmp_path: Path, change: Change, kind: Format | Literal["raw"]
) -> None:
    """It has more blocks than are read before the first bytes come: a zip holds 16 MiB back."""
    file = tmp_path / "changing"
    if kind == "zip":
        file.write_bytes(os.urandom(UNIT_SIZE) * 40)
    else:
        hole(file, 64 * UNIT_SIZE)
    chunks = stream([single(file)], kind)

    next(chunks)
    change(file)

    with pytest.raises(LocalIOError, match="changing"):
        for _ in chunks:
            pass


@pytest.mark.usefixtures("no_process_left")
@pytest.mark.parametrize("change", CHANGES, ids=CHANGE_NAMES)
def test_a_file_that_changes_while_others_are_listed_is_named(
    tmp_path: Path, change: Change
) -> None:
    """Child processes are at work on the first of many files by then."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(2000):
        (tree / f"{number:04}").write_bytes(text(100))
    found = 0

    def listed(count: int) -> None:
        nonlocal found
        found += count
        if found == 1300:
            change(tree / "1290")

    with pytest.raises(LocalIOError, match="tree/1290"), Packer() as packer:
        _pack_as_it_is_listed(tree, packer, listed)


def _pack_as_it_is_listed(tree: Path, packer: Packer, listed: Callable[[int], object]) -> None:
    entries = packer.list_entries(tree, "zip", listed)
    for _ in packer.pack(entries, "zip"):
        pass


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.open(path.parent, os.O_RDONLY)  # the path of a socket has 107 bytes at most
        listening.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)


@pytest.mark.parametrize("make", [_fifo, _socket])
def test_sockets_and_fifos_are_left_out(tmp_path: Path, make: Change) -> None:
    tree = tree_of_sizes(tmp_path / "tree", 10)
    make(tree / "special")

    assert {entry.path for entry in entries_of(tree)} == {"noise-10", "text-10"}
    assert len(entries_of(tree, "special")) == 2


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_cannot_be_read_is_named_when_it_is_listed(kind: str) -> None:
    is_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        secret = Path(directory) / "secret"
        secret.mkdir() if kind == "directory" else secret.touch()
        secret.chmod(0o700 if is_root else 0)

        with _nobody() if is_root else nullcontext(), pytest.raises(LocalIOError) as caught:
            entries_of(Path(directory))

    assert caught.value.message == f"cannot read {secret}: Permission denied"


@contextmanager
def _nobody() -> Iterator[None]:
    """Do without root's right to read everything."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_name_that_is_not_utf8_can_be_left_out(tmp_path: Path) -> None:
    tree = tree_of_sizes(tmp_path / "tree", 10)
    Path(os.fsdecode(os.fsencode(tree) + b"/caf\xe9")).touch()

    with pytest.raises(ArtifactRejected, match="is not UTF-8"):
        entries_of(tree)
    assert len(entries_of(tree, "caf*")) == 2


def test_the_order_is_that_of_the_bytes_of_names(tmp_path: Path) -> None:
    for name in ("B", "a", "a.b", "a-/z", "\ue000", "\U0001f600", "é"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    listed = [entry.path for entry in entries_of(tmp_path / "tree")]

    assert listed == ["B", "a", "a-", "a-/z", "a.b", "é", "\ue000", "\U0001f600"]


def _threads() -> set[threading.Thread]:
    return set(threading.enumerate())


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_fails_stops_all(tmp_path: Path, kind: Format) -> None:
    before = _threads()
    tree = tree_of_sizes(tmp_path / "tree", *range(UNIT_SIZE // 2, UNIT_SIZE, UNIT_SIZE // 64))
    entries = entries_of(tree)
    (tree / entries[10].path).unlink()
    taken: list[int] = []

    with pytest.raises(LocalIOError, match=entries[10].path):
        for _ in pack(entries, kind, DEFAULT_LEVEL, taken.append):
            pass

    assert sum(taken) == sum(entry.size for entry in entries[:10])
    assert _threads() == before


@pytest.mark.parametrize("end", ["close", "forget"])
@pytest.mark.parametrize("kind", FORMATS)
def test_no_thread_is_left_of_a_stream_that_nobody_takes(
    tmp_path: Path, kind: Format, end: str
) -> None:
    before = _threads()
    chunks = pack([single(hole(tmp_path / "hole", 64 * UNIT_SIZE))], kind)

    next(chunks)  # of a tar.gz the header, for which there is nothing to do
    next(chunks)
    assert _threads() != before
    if end == "close":
        chunks.close()
    else:
        del chunks

    assert _threads() == before


def _children() -> set[str]:
    return {
        pid for one in Path("/proc/self/task").glob("*/children") for pid in one.read_text().split()
    }


@pytest.mark.usefixtures("no_process_left")
@pytest.mark.parametrize("kind", FORMATS)
def test_nothing_is_at_work_any_more_after_the_packer(tmp_path: Path, kind: Format) -> None:
    """Not for a stream either that is still held, as by the traceback of who failed to take it."""
    before, tree = (_threads(), _children()), tmp_path / "tree"
    tree.mkdir()
    for number in range(3000):
        (tree / f"{number:04}").write_bytes(text(100))

    with Packer() as packer:
        chunks = packer.pack(entries_of(tree), kind)
        next(chunks)
        next(chunks)
        assert _children() > before[1]

    assert (_threads(), _children()) == before
    assert list(chunks) == []


def test_a_packer_ends_while_another_one_is_at_work(tmp_path: Path) -> None:
    """Its child processes end when its pipes do, of which those of the other have no copies."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(1200):
        (tree / f"{number:04}").touch()
    first, second = Packer(), Packer()
    for packer in (first, second):
        packer.list_entries(tree, "zip")

    ending = threading.Thread(target=first.__exit__, args=(None, None, None))
    ending.start()
    ending.join(30)
    has_ended = not ending.is_alive()
    second.__exit__(None, None, None)
    ending.join()

    assert has_ended


def test_work_is_done_in_parallel_and_taken_in_order() -> None:
    both = threading.Barrier(2, timeout=60)

    def work(number: int) -> int:
        both.wait()  # comes back only when another thread is here, too
        return number

    assert list(in_order(work, range(10), threads=2, ahead=4)) == list(range(10))


def test_units_are_taken_no_further_ahead_than_is_said() -> None:
    taken = []

    def units() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    with closing(in_order(lambda unit: unit, units(), threads=2, ahead=5)) as results:
        assert (next(results), len(taken)) == (0, 5)
        assert (next(results), len(taken)) == (1, 6)


def test_a_path_that_the_system_does_not_take_is_named_by_its_ends(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(40):
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)

    with pytest.raises(LocalIOError, match=r"cannot read .*d…d.*--exclude") as caught:
        entries_of(tmp_path)

    assert len(str(caught.value)) < 700
    assert entries_of(tmp_path, "d*") == []


def test_what_is_not_an_exception_stops_the_work_too() -> None:
    before = _threads()

    def units() -> Iterator[int]:
        yield from range(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(in_order(lambda unit: unit, units(), threads=2, ahead=2))
    assert _threads() == before


def test_no_work_goes_on_after_a_stop_in_the_start_of_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signal's handler may raise there, so that the pool never hears of the thread."""
    begun, may_end = threading.Event(), threading.Event()
    done = []

    def work(unit: int) -> None:
        begun.set()
        assert may_end.wait(60)
        done.append(unit)

    def start(thread: threading.Thread) -> None:
        original_start(thread)
        if thread.name.startswith("cpstage-work"):
            assert begun.wait(60)
            threading.Timer(0.2, may_end.set).start()
            raise KeyboardInterrupt

    original_start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(KeyboardInterrupt):
        list(in_order(work, range(9), threads=2, ahead=3))

    assert done == [0]
