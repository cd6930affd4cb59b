"""How the cost of cpstage's fetch and push grows with the number of files, and with their size.

Run it with `python tools/benchmarks/growth.py [--most-files N] [--largest-size MB]`, from an
environment that cpstage and its extra `local` are installed in. Every artifact is pushed, and what
was pushed is fetched. The largest ones need 12 GiB of memory; those for which there is no room are
left out, which is said.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

sys.path.extend(str(Path(__file__).parents[2] / one) for one in ("tools", "tests/support"))

from typing import TYPE_CHECKING

from benchmarks import peers, places, report, testbed
from benchmarks.artifacts import small_files, write_file
from benchmarks.fetchers import FETCHERS, INPUT, Fetch
from benchmarks.machine import Conditions, conditions
from benchmarks.measure import Failed, Sample, Series
from benchmarks.pushers import OUTPUT, PUSHERS, Push
from benchmarks.source_text import SourceText, blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.testbed import Testbed

_FILES = (100, 1_000, 10_000, 100_000)
_MEGABYTES = (10, 100, 1_000, 10_000)
_SMALL_FILE = 2_000
_MB = 1_000_000
_KEY = f"Benchmark/{OUTPUT}/JG0Py6O"
_INTRODUCTION = """\
# How the cost of `fetch` and `push` grows

After this page you know how time and memory grow with the number and size of files.

Whole processes of cpstage, against SeaweedFS on the same machine, with its data beside the files:
seconds by the clock, processor seconds, and peak memory of all processes. Every artifact was
pushed, and what was pushed was fetched; all of it is text that deflates to about a fifth.

Run it again with `python tools/benchmarks/growth.py`."""


@dataclass(frozen=True)
class Case:
    """One artifact: so many files of so many bytes in all."""

    files: int
    size: int

    def write(self, directory: Path) -> None:
        rng = random.Random(f"growth {self}")
        directory.mkdir()
        if self.files > 1:
            small_files(
                directory, rng, files=self.files, directories=self.files // 10, size=self.size
            )
        else:
            text = SourceText(rng)
            write_file(
                directory / "large.txt", (text.take(part) for part in blocks(self.size, 1 << 20))
            )


@dataclass
class Growth:
    """What was measured with one artifact."""

    case: Case
    push: Series = field(default_factory=Series)
    fetch: Series = field(default_factory=Series)


def measure(bed: Testbed, case: Case, rounds: int) -> Growth:
    """Push and fetch one artifact.

    Raises:
        Failed: cpstage failed, or what was fetched is not as large as what was pushed.
    """
    growth = Growth(case)
    for _ in range(rounds):
        with ExitStack() as stack:
            bucket = stack.enter_context(bed.store.bucket())
            directory = stack.enter_context(bed.directory(many_files=case.files > 1))
            tree = directory / "tree"
            case.write(tree)
            before = _extent(tree)
            growth.push.samples.append(_push(bed, bucket, tree, directory / "push"))
            growth.push.archive = bed.store.look_at(bucket, _KEY).size
            # There is not always room for both trees; and on a disk a large file goes quickly.
            if case.files == 1:
                shutil.rmtree(tree)
            growth.fetch.samples.append(_fetch(bed, bucket, directory / "fetch"))
            after = _extent(directory / "fetch" / "in" / INPUT)
            if before != after:
                raise Failed(f"pushed {before} and fetched {after} (files, bytes)")
    return growth


def _push(bed: Testbed, bucket: str, tree: Path, workspace: Path) -> Sample:
    workspace.mkdir()
    key_arn = bed.store.key_arn
    job_id = bed.jobs.add(bucket, key_arn, {}, {OUTPUT: _KEY})
    push = Push(tree, bucket, _KEY, key_arn, job_id, workspace)
    return bed.run(PUSHERS[0].steps(bed.programs, push), watch=True)


def _fetch(bed: Testbed, bucket: str, workspace: Path) -> Sample:
    workspace.mkdir()
    job_id = bed.jobs.add(bucket, bed.store.key_arn, {INPUT: _KEY}, {})
    fetch = Fetch(bucket, _KEY, job_id, workspace)
    return bed.run(FETCHERS[0].steps(bed.programs, fetch), watch=True)


def _extent(tree: Path) -> tuple[int, int]:
    """Return the number of files and of bytes below a directory."""
    sizes = [
        os.lstat(os.path.join(parent, name)).st_size
        for parent, _, names in os.walk(tree)
        for name in names
    ]
    return len(sizes), sum(sizes)


def _cases(most_files: int, largest: int) -> Iterator[Case]:
    yield from (Case(files, files * _SMALL_FILE) for files in _FILES if files <= most_files)
    yield from (Case(1, size * _MB) for size in _MEGABYTES if size <= largest)


def _measure_all(
    bed: Testbed, cases: Iterator[Case], rounds: int, save: Callable[[list[Growth]], None]
) -> None:
    measured: list[Growth] = []
    for case in cases:
        what = f"{case.files:,} files, {case.size / _MB:,.0f} MB"
        # The tree, the object, and SeaweedFS's own memory.
        if bed.free_bytes() < case.size * 1.3 + (1 << 30):
            print(f"{what}: left out, there is no room for it", flush=True)
            continue
        growth = measure(bed, case, rounds)
        print(f"{what}: push {growth.push.wall:.2f} s, fetch {growth.fetch.wall:.2f} s", flush=True)
        measured.append(growth)
        save(measured)


def markdown(measured: list[Growth], under: Conditions) -> str:
    """Return the page with both tables."""
    parts = [_INTRODUCTION]
    for title, shown in (
        ("## Number of files", [one for one in measured if one.case.files > 1]),
        ("## Size of one file", [one for one in measured if one.case.files == 1]),
    ):
        if shown:
            parts += [title, report.table(_HEAD, [_row(one) for one in shown]), under.line]
    return "\n\n".join(parts) + "\n"


_HEAD = (
    *("", "archive, MB", "push, s", "CPU, s", "memory, MB"),
    *("fetch, s", "CPU, s", "memory, MB"),
)


def _row(growth: Growth) -> list[str]:
    case = growth.case
    size = f"{case.size / _MB:,.0f}" if case.size >= _MB else f"{case.size / _MB:.1f}"
    name = f"{case.files:,} files, {size} MB" if case.files > 1 else f"{size} MB"
    cells = [name, f"{(growth.push.archive or 0) / _MB:,.1f}"]
    for series in (growth.push, growth.fetch):
        cells += [f"{series.wall:.2f}", f"{series.cpu:.2f}", f"{series.peak / _MB:.0f}"]
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    places.add_options(parser, rounds=1)
    parser.add_argument("--most-files", type=int, default=_FILES[-1], help="stop there (100000)")
    parser.add_argument(
        "--largest-size", type=int, metavar="MB", default=_MEGABYTES[-1], help="stop there (10000)"
    )
    options = parser.parse_args()
    places.get_ready(options.output)
    programs = peers.install(options.tools_dir.resolve(), options.checkout.resolve())

    with testbed.running(programs, options.work, options.credentials) as bed:
        under = conditions(bed.file_system, options.rounds, programs.versions, options.credentials)

        def save(measured: list[Growth]) -> None:
            (options.output / "growth.md").write_text(markdown(measured, under))
            document = {
                "conditions": dataclasses.asdict(under),
                "results": [dataclasses.asdict(one) for one in measured],
            }
            (options.output / "growth.json").write_text(json.dumps(document, indent=1) + "\n")

        cases = _cases(options.most_files, options.largest_size)
        _measure_all(bed, cases, options.rounds, save)
    print((options.output / "growth.md").read_text())


if __name__ == "__main__":
    main()
