"""Flame graphs of cpstage's fetch and push: where the processor time of 20,000 files goes.

Run it with `python tools/benchmarks/flame.py [--rounds N]`, from an environment that cpstage and
its extra `local` are installed in. It installs py-spy beside the other tools, takes samples of all
processes in several runs of each command, and writes a page and a graph for each into
`docs/benchmarks`. Idle processes count for nothing. A sample is not free: figures of time are
those of `transfer.py`, and only shares are given here.
"""

from __future__ import annotations

import argparse
import linecache
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

sys.path.extend(str(Path(__file__).parents[2] / one) for one in ("tools", "tests/support"))

from typing import TYPE_CHECKING

from benchmarks import peers, places, rounds, testbed
from benchmarks.artifacts import KINDS
from benchmarks.fetchers import FETCHERS, Fetch
from benchmarks.machine import conditions
from benchmarks.pushers import OUTPUT, PUSHERS, Push
from pictures.drawing import Point, card, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.measure import Step
    from benchmarks.rounds import Prepared
    from benchmarks.testbed import Testbed

_RATE = 100
"""Samples a second of each process."""

_FRAME = re.compile(r"(?P<name>.*) \((?P<file>.*?)(?::(?P<line>\d+))?\)")
_SERVE = "_serve ("
"""The function of a worker process; above it are those that its parent was in."""
_ROW, _WIDTH, _MARGIN, _LETTER = 18, 1000, 14, 6.3
_LEAST = 0.004
"""The share of all samples below which a frame is not drawn."""

_INTRODUCTION = """\
# Where the processor time goes

After this page you know which parts of `fetch` and `push` use the processor, for the 20,000 source
files of kind A in [the comparison with other tools](transfer.md).

Each box is a function, and the boxes below it are those that it calls; the width is the share of
all processor time. The lowest boxes are lines of cpstage, or the library that such a line calls.
The main process and the worker processes work at the same time, so that the time by the clock is
less than the sum. Boxes below 0.4% are left out.

Run it again with `python tools/benchmarks/flame.py`."""

_WITHOUT_GAIN = """\
## What was tried without gain

- Threads in place of worker processes: two threads take 1.4 times as long as one to create the
  files, two processes 0.6 times.
- More work on its way to each process: the same time.
- Chunks of 1 MiB from the decoder to a file, in place of 256 KiB: twice the time in the kernel, for
  new memory pages.
- ISA-L at level 3 for `push`: two thirds more time for archives that are 3% smaller.

io_uring, fallocate and one decompressor for all members were not tried: others measured no gain for
files of this size."""


@dataclass
class Node:
    """A function, with the samples in it and in what it calls."""

    samples: int = 0
    below: dict[str, Node] = field(default_factory=dict)

    def add(self, frames: Sequence[str], count: int) -> None:
        """Count a stack from here on."""
        self.samples += count
        if frames:
            self.below.setdefault(frames[0], Node()).add(frames[1:], count)

    @property
    def depth(self) -> int:
        """How many rows it takes."""
        return 1 + max((one.depth for one in self.below.values()), default=0)


def readable(stack: str, package: Path) -> list[str]:
    """Return a stack of py-spy as a reader needs it: cpstage's functions, and what they call.

    Args:
        stack: Frames with semicolons between them, the outermost first.
        package: Where the sources of cpstage are.
    """
    frames = stack.split(";")
    found = ["main process"]
    served = [number for number, frame in enumerate(frames) if frame.startswith(_SERVE)]
    if served:
        found, frames = ["worker processes"], frames[served[-1] + 1 :]
    last = ("", 0)
    for match in filter(None, map(_FRAME.fullmatch, frames)):
        name, file, line = match["name"], match["file"], int(match["line"] or 0)
        _, is_ours, path = file.rpartition("cpstage/")
        if "importlib" in file or (name == "<module>" and path != "__main__.py"):
            return [*found, "import of modules"]
        if not is_ours and len(found) > 1:
            return [*found, _library(file)]
        if is_ours and not path.startswith(("cli/", "__main__")):
            found.append(f"{Path(path).stem}.{name.rpartition('.')[2]}")
            last = (path, line)
    return [*found, _source(package, *last)] if len(found) > 1 else [*found, "command line"]


def _library(file: str) -> str:
    """Return the name of the package that a file outside cpstage belongs to."""
    package = file.lstrip("<").split("/")[0].split(".")[0]
    return f"{package}: boto3" if package in ("botocore", "urllib3") else f"{package} (Python)"


def _source(package: Path, path: str, line: int) -> str:
    return linecache.getline(str(package / path), line).strip().removesuffix(":")


def boxes(node: Node, total: int, left: float, row: int) -> Iterator[str]:
    """Draw what a node calls, the largest first, row by row."""
    for name, below in sorted(node.below.items(), key=lambda one: -one[1].samples):
        width = _WIDTH * below.samples / total
        if below.samples < total * _LEAST:
            continue
        top = _MARGIN + _ROW * row
        kind = "ours" if "." in name and " " not in name else "box"
        share = f"{below.samples / total:.1%}"
        yield (
            f'<g><title>{escape(name)}: {share}</title><rect class="{kind}" x="{left:.1f}" '
            f'y="{top}" width="{width:.1f}" height="{_ROW - 1}"/>'
        )
        letters = int((width - 6) / _LETTER)
        if letters >= 3:
            shown = f"{name} {share}" if len(name) + 7 <= letters else name[:letters]
            yield text(Point(left + 3, top + 12.5), shown, "frame")
        yield "</g>"
        yield from boxes(below, total, left, row + 1)
        left += width


def graph(root: Node, title: str) -> str:
    """Return the drawing of all samples of a command."""
    style = "<style>.frame{font:10.5px ui-monospace,Menlo,Consolas,monospace}</style>"
    parts = [style, *boxes(root, root.samples, _MARGIN, 0)]
    return card(_WIDTH + 2 * _MARGIN, _ROW * (root.depth - 1) + 2 * _MARGIN, title, parts)


def sampled(bed: Testbed, step: Step, stacks: Path) -> Counter[str]:
    """Run cpstage once, and return how often each stack was found."""
    sampler = str(Path(bed.programs.cpstage).with_name("py-spy"))
    options = ["--subprocesses", "--nonblocking", "--rate", str(_RATE), "--format", "raw"]
    command = [sampler, "record", *options, "--output", str(stacks), "--", *step.commands[0]]
    with (bed.work / "tool.log").open("wb") as log:
        subprocess.run(
            command, env=bed.environment, cwd=step.cwd, stdout=log, stderr=log, check=True
        )
    found: Counter[str] = Counter()
    for line in stacks.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        found[stack] += int(count)
    return found


def fetched(bed: Testbed, artifact: Prepared, times: int) -> Iterator[Counter[str]]:
    """Fetch an artifact some times."""
    cpstage = next(one for one in FETCHERS if one.name == "cpstage")
    with rounds.stored(bed, artifact) as source:
        for _ in range(times):
            with bed.directory(many_files=True) as directory:
                fetch = Fetch(source.bucket, source.key, source.job_id, directory)
                (step,) = cpstage.steps(bed.programs, fetch)
                yield sampled(bed, step, bed.work / "stacks")


def pushed(bed: Testbed, artifact: Prepared, times: int) -> Iterator[Counter[str]]:
    """Push an artifact some times."""
    cpstage = next(one for one in PUSHERS if one.name == "cpstage")
    for number in range(times):
        with bed.store.bucket() as bucket, bed.directory(many_files=False) as directory:
            key, key_arn = f"Benchmark/{number}", bed.store.key_arn
            job_id = bed.jobs.add(bucket, key_arn, {}, {OUTPUT: key})
            push = Push(artifact.tree, bucket, key, key_arn, job_id, directory)
            (step,) = cpstage.steps(bed.programs, push)
            yield sampled(bed, step, bed.work / "stacks")


def tree_of(runs: Iterator[Counter[str]], package: Path) -> Node:
    """Return the samples of some runs as one tree."""
    root = Node()
    for stacks in runs:
        for stack, count in stacks.items():
            root.add(readable(stack, package), count)
    return root


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    places.add_options(parser, rounds=10)
    options = parser.parse_args()
    places.get_ready(options.output)
    programs = peers.install(options.tools_dir.resolve(), options.checkout.resolve())
    subprocess.run([programs.cpstage, "-m", "pip", "install", "--quiet", "py-spy"], check=True)
    package = options.checkout.resolve() / "src" / "cpstage"
    with (
        testbed.running(programs, options.work, options.credentials) as bed,
        rounds.prepared(bed, KINDS["A"]) as artifact,
    ):
        under = conditions(bed.file_system, options.rounds, programs.versions, options.credentials)
        page = [_INTRODUCTION]
        for command, runs in (("fetch", fetched), ("push", pushed)):
            title = f"Where the processor time of {command} goes"
            root = tree_of(runs(bed, artifact, options.rounds), package)
            (options.output / f"flame-{command}.svg").write_text(graph(root, title))
            page += [f"## {command}", f"![{title}](flame-{command}.svg)"]
        page += [_WITHOUT_GAIN, under.line]
    (options.output / "flame.md").write_text("\n\n".join(page) + "\n")


if __name__ == "__main__":
    main()
