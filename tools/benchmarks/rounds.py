"""All tools on one kind of artifact, in turn, round after round.

Before the first round there is one that is not timed: in that round the trees and the archives of
the tools are verified, and the memory of all their processes is read.
"""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from benchmarks import limits, verify
from benchmarks.fetchers import INPUT, Fetch, Fetcher
from benchmarks.measure import Failed, Sample, Series
from benchmarks.pushers import OUTPUT, Push, Pusher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks.artifacts import Kind
    from benchmarks.limits import Limits
    from benchmarks.testbed import Testbed

_INPUT_KEY = f"Benchmark/{INPUT}/UUWPDJm.zip"
_OUTPUT_KEY = f"Benchmark/{OUTPUT}/JG0Py6O"
_MANY = 1_000
_Tool = TypeVar("_Tool", Fetcher, Pusher)


@dataclass(frozen=True)
class Prepared:
    """One kind of artifact on disk: the tree, and the zip that is fetched, with its bytes."""

    kind: Kind
    tree: Path
    archive: Path
    archive_size: int
    digests: Mapping[str, str]
    contents: verify.Contents

    @property
    def many_files(self) -> bool:
        return len(self.digests) > _MANY


@dataclass(frozen=True)
class Stored:
    """An artifact in the object store, and the job that has it as input."""

    artifact: Prepared
    bucket: str
    key: str
    job_id: str


@dataclass
class Results:
    """What was measured with one kind of artifact.

    Attributes:
        kind: Its letter.
        title: What it stands for.
        files: How many.
        size: Their bytes.
        archive: The bytes of the zip that is fetched.
        limits: The parts of a fetch, each alone; None if no fetch was measured.
        fetch: The runs of the tools that fetch, by their names.
        push: The runs of the tools that push, by their names.
        failures: The errors of the tools that failed, by their names.
    """

    kind: str
    title: str
    files: int
    size: int
    archive: int
    limits: Limits | None = None
    fetch: dict[str, Series] = field(default_factory=dict)
    push: dict[str, Series] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@contextmanager
def prepared(bed: Testbed, kind: Kind) -> Iterator[Prepared]:
    """Write the files of a kind, and the zip of them."""
    with bed.directory(many_files=True) as directory:
        tree, archive = directory / "tree", directory / "input.zip"
        kind.write(tree)
        subprocess.run(["zip", "-r", "-6", "-q", str(archive), "."], cwd=tree, check=True)
        size, digests = archive.stat().st_size, verify.tree_digests(tree)
        yield Prepared(kind, tree, archive, size, digests, verify.zip_contents(archive))


def describe(artifact: Prepared) -> Results:
    size = sum(size for size, _ in artifact.contents.values())
    kind = artifact.kind
    return Results(kind.name, kind.title, len(artifact.contents), size, artifact.archive_size)


@contextmanager
def stored(bed: Testbed, artifact: Prepared) -> Iterator[Stored]:
    """Put the input zip into a bucket, and make a job that has it as input."""
    with bed.store.bucket() as bucket:
        bed.store.put(bucket, _INPUT_KEY, artifact.archive)
        outputs = {OUTPUT: f"{_OUTPUT_KEY}-unused"}
        job_id = bed.jobs.add(bucket, bed.store.key_arn, {INPUT: _INPUT_KEY}, outputs)
        yield Stored(artifact, bucket, _INPUT_KEY, job_id)


def measure_parts(bed: Testbed, source: Stored, rounds: int) -> Limits:
    """Measure the parts of a fetch, each alone."""
    return limits.measure(
        source.artifact.archive,
        bed.store.url(source.bucket, source.key),
        lambda: bed.directory(many_files=source.artifact.many_files),
        rounds,
        bed.store.cpu_seconds,
    )


def measure_fetch(
    bed: Testbed,
    source: Stored,
    tools: Sequence[Fetcher],
    rounds: int,
    results: Results,
    *,
    check: bool = True,
) -> None:
    """Measure the tools that fetch; without `check` there is no round that is not timed."""
    artifact = source.artifact

    def once(tool: Fetcher, first: bool) -> Sample:
        with bed.directory(many_files=artifact.many_files) as directory:
            fetch = Fetch(source.bucket, source.key, source.job_id, directory)
            sample = bed.run(tool.steps(bed.programs, fetch), watch=first)
            if first:
                verify.check_tree(directory / tool.tree, artifact.digests)
        return sample

    what = f"{results.kind} fetch"
    _in_turn(tools, rounds, once, results.fetch, what, results.failures, check)


def measure_push(
    bed: Testbed,
    artifact: Prepared,
    tools: Sequence[Pusher],
    rounds: int,
    results: Results,
    *,
    check: bool = True,
) -> None:
    """Measure the tools that push; without `check` there is no round that is not timed."""
    sizes: dict[str, int] = {}

    def once(tool: Pusher, first: bool) -> Sample:
        with bed.store.bucket() as bucket, bed.directory(many_files=False) as directory:
            key_arn = bed.store.key_arn
            job_id = bed.jobs.add(bucket, key_arn, {}, {OUTPUT: _OUTPUT_KEY})
            push = Push(artifact.tree, bucket, _OUTPUT_KEY, key_arn, job_id, directory)
            sample = bed.run(tool.steps(bed.programs, push), watch=first)
            if first:
                Path(push.archive).unlink(missing_ok=True)
                stored = verify.check_object(
                    bed.store, bucket, _OUTPUT_KEY, directory, tool.format, artifact.contents
                )
                sizes[tool.name] = stored.size
        return sample

    what = f"{results.kind} push"
    _in_turn(tools, rounds, once, results.push, what, results.failures, check)
    for name, series in results.push.items():
        series.archive = sizes.get(name)


def _in_turn(
    tools: Sequence[_Tool],
    rounds: int,
    once: Callable[[_Tool, bool], Sample],
    series: dict[str, Series],
    what: str,
    failures: dict[str, str],
    check: bool,
) -> None:
    """Run every tool once per round; a tool that fails is reported, and left out from then on."""
    left = list(tools)
    for number in range(0 if check else 1, rounds + 1):
        for tool in list(left):
            try:
                sample = once(tool, number == 0)
            except Failed as failure:
                left.remove(tool)
                series.pop(tool.name, None)
                failures[f"{what}: {tool.name}"] = str(failure)
                print(f"{what}: {tool.title} FAILED: {failure}", flush=True)
                continue
            runs = series.setdefault(tool.name, Series())
            (runs.samples if number else runs.watched).append(sample)
            print(
                f"{what}, round {number}: {tool.title:28} {sample.wall:8.2f} s "
                f"{sample.cpu:8.2f} CPU s {(sample.peak or sample.largest) / 1e6:6.0f} MB",
                flush=True,
            )
