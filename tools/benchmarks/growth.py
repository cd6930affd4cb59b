"""How the cost of cpstage's fetch and push grows with files, with their size, and with artifacts.

Run it with `python tools/benchmarks/growth.py [--most-files N] [--largest-size MB]
[--most-artifacts N]`, from an environment that cpstage and its extra `local` are installed in.
Every artifact is pushed, and what was pushed is fetched. The largest ones need 12 GiB of memory;
those for which there is no room are left out, which is said.
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
from benchmarks.machine import Conditions, conditions
from benchmarks.measure import Failed, Sample, Series, Step
from benchmarks.source_text import SourceText, blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.testbed import Testbed

_FILES = {100: 2_000, 1_000: 2_000, 10_000: 2_000, 100_000: 2_000, 1_000_000: 200}
"""Numbers of files, and the bytes of each: a million of 2,000 have no room in memory."""
_MEGABYTES = (10, 100, 1_000, 10_000)
_ARTIFACTS = (1, 20, 200)
_SMALL_ARTIFACT = {"files": 10, "size": 20_000}
_BLOCK = 4_096
"""What a small file takes up."""
_MB = 1_000_000
_INTRODUCTION = """\
# How the cost of `fetch` and `push` grows

After this page you know how time and memory grow with the number and size of files, and with the
number of artifacts of one job.

Whole processes of cpstage, against SeaweedFS on the same machine, with its data beside the files:
seconds by the clock, processor seconds, and peak memory of all processes. Every artifact was
pushed, and what was pushed was fetched; all of it is text that deflates to about a fifth. A million
files are fetched with a higher `--max-entries`.

Run it again with `python tools/benchmarks/growth.py`."""


@dataclass(frozen=True)
class Case:
    """One job: so many artifacts, each of so many files of so many bytes in all."""

    files: int
    size: int
    artifacts: int = 1

    @property
    def title(self) -> str:
        size = f"{self.size / _MB:,.0f} MB" if self.size >= _MB else f"{self.size / 1000:.0f} KB"
        files = f"{self.files:,} files, {size}" if self.files > 1 else size
        return f"{self.artifacts} artifacts of {files}" if self.artifacts > 1 else files

    @property
    def room(self) -> int:
        """How many bytes the trees and objects take, and SeaweedFS's own memory."""
        trees = 2 if self.files > 1 else 1
        tree = max(self.size, self.files * _BLOCK)
        return self.artifacts * (trees * tree + self.size // 3) + (1 << 30)

    @property
    def keys(self) -> dict[str, str]:
        """The object keys of the artifacts, by their names."""
        return {f"Part{n}": f"Benchmark/Part{n}/JG0Py6O" for n in range(self.artifacts)}

    def write(self, directory: Path) -> None:
        """Write the trees of all artifacts, which are equal, each below its name."""
        directory.mkdir(parents=True)
        first, *others = (directory / name for name in self.keys)
        self._write_one(first)
        for other in others:
            shutil.copytree(first, other)

    def _write_one(self, tree: Path) -> None:
        rng = random.Random(f"growth {self.files} {self.size}")
        tree.mkdir()
        if self.files > 1:
            small_files(tree, rng, files=self.files, directories=self.files // 10, size=self.size)
        else:
            text = SourceText(rng)
            write_file(tree / "large.txt", (text.take(part) for part in blocks(self.size, 1 << 20)))


@dataclass
class Growth:
    """What was measured with one job."""

    case: Case
    push: Series = field(default_factory=Series)
    fetch: Series = field(default_factory=Series)


def measure(bed: Testbed, case: Case, rounds: int) -> Growth:
    """Push and fetch all artifacts of one job.

    Raises:
        Failed: cpstage failed, or what was fetched is not as large as what was pushed.
    """
    growth = Growth(case)
    for _ in range(rounds):
        with ExitStack() as stack:
            bucket = stack.enter_context(bed.store.bucket())
            directory = stack.enter_context(bed.directory(many_files=case.files > 1))
            source, target = directory / "push", directory / "fetch"
            target.mkdir()
            case.write(source / "out")
            before = _extent(source / "out")
            job_id = bed.jobs.add(bucket, bed.store.key_arn, {}, case.keys)
            growth.push.samples.append(_run(bed, source, "push", job_id))
            sizes = [bed.store.look_at(bucket, key).size for key in case.keys.values()]
            growth.push.archive = sum(sizes)
            # There is not always room for both trees; on a disk only a large file goes quickly.
            if case.files == 1 or bed.in_memory:
                shutil.rmtree(source)
            job_id = bed.jobs.add(bucket, bed.store.key_arn, case.keys, {})
            limit = ["--max-entries", str(2 * case.files + 1_000)]
            growth.fetch.samples.append(_run(bed, target, "fetch", job_id, *limit))
            after = _extent(target / "in")
            if before != after:
                raise Failed(f"pushed {before} and fetched {after} (files, bytes)")
    return growth


def _run(bed: Testbed, workspace: Path, *arguments: str) -> Sample:
    command = [bed.programs.cpstage, "-m", "cpstage", *arguments, "-w", str(workspace)]
    return bed.run([Step("cpstage", [command], workspace)], watch=True)


def _extent(tree: Path) -> tuple[int, int]:
    """Return the number of files and of bytes below a directory."""
    sizes = [
        os.lstat(os.path.join(parent, name)).st_size
        for parent, _, names in os.walk(tree)
        for name in names
    ]
    return len(sizes), sum(sizes)


def _cases(most_files: int, largest: int, most_artifacts: int) -> Iterator[Case]:
    yield from (Case(files, files * each) for files, each in _FILES.items() if files <= most_files)
    yield from (Case(1, size * _MB) for size in _MEGABYTES if size <= largest)
    numbers = (count for count in _ARTIFACTS if count <= most_artifacts)
    yield from (Case(**_SMALL_ARTIFACT, artifacts=count) for count in numbers)


def _measure_all(
    bed: Testbed, cases: Iterator[Case], rounds: int, save: Callable[[list[Growth]], None]
) -> None:
    measured: list[Growth] = []
    for case in cases:
        if bed.free_bytes() < case.room:
            print(f"{case.title}: left out, there is no room for it", flush=True)
            continue
        growth = measure(bed, case, rounds)
        push, fetch = growth.push.wall, growth.fetch.wall
        print(f"{case.title}: push {push:.2f} s, fetch {fetch:.2f} s", flush=True)
        measured.append(growth)
        save(measured)


def markdown(measured: list[Growth], under: Conditions) -> str:
    """Return the page with all tables."""
    small = Case(**_SMALL_ARTIFACT)
    parts = [_INTRODUCTION]
    for title, shown in (
        ("## Number of files", [one for one in measured if one.case.files > small.files]),
        ("## Size of one file", [one for one in measured if one.case.files == 1]),
        ("## Number of artifacts", [one for one in measured if one.case.files == small.files]),
    ):
        if shown:
            parts += [title, report.table(_HEAD, [_row(one) for one in shown]), under.line]
    return "\n\n".join(parts) + "\n"


_HEAD = (
    *("", "archives, MB", "push, s", "CPU, s", "memory, MB"),
    *("fetch, s", "CPU, s", "memory, MB"),
)


def _row(growth: Growth) -> list[str]:
    cells = [growth.case.title, f"{(growth.push.archive or 0) / _MB:,.1f}"]
    for series in (growth.push, growth.fetch):
        cells += [f"{series.wall:.2f}", f"{series.cpu:.2f}", f"{series.peak / _MB:.0f}"]
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    places.add_options(parser, rounds=1)
    parser.add_argument("--most-files", type=int, default=max(_FILES), help="stop there (1000000)")
    parser.add_argument(
        "--largest-size", type=int, metavar="MB", default=_MEGABYTES[-1], help="stop there (10000)"
    )
    parser.add_argument(
        "--most-artifacts", type=int, default=_ARTIFACTS[-1], help="stop there (200)"
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

        cases = _cases(options.most_files, options.largest_size, options.most_artifacts)
        _measure_all(bed, cases, options.rounds, save)
    print((options.output / "growth.md").read_text())


if __name__ == "__main__":
    main()
