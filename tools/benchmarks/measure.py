"""What a tool costs: wall time, processor time and memory of whole processes.

Memory is the sum of proportional set sizes, so that a page that a process shares with its forked
children counts once (:mod:`benchmarks.stopwatch` reads them).
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_STOPWATCH = Path(__file__).with_name("stopwatch.py")


@dataclass(frozen=True)
class Step:
    """A part of what a tool does: one command, or a pipeline of them.

    Attributes:
        name: What the part is called where its share is shown.
        commands: The command lines; each reads what the one before it writes.
        cwd: Where they run.
    """

    name: str
    commands: Sequence[Sequence[str]]
    cwd: Path


@dataclass(frozen=True)
class Sample:
    """One run of a tool.

    Attributes:
        wall: Seconds by the clock.
        cpu: Processor seconds (user and system) of all processes of the tool.
        server_cpu: Processor seconds of SeaweedFS during the run.
        peak: Peak of the summed proportional set sizes of all processes of the tool, in bytes. A
            step that is too short to be watched counts with its largest process. None if no step
            was watched, or the system has no /proc/PID/smaps_rollup.
        largest: Peak resident set size of the largest process of the tool, in bytes. Shared pages
            count in full.
        steps: Wall seconds of each step.
    """

    wall: float
    cpu: float
    server_cpu: float
    peak: int | None
    largest: int
    steps: Mapping[str, float]


class Failed(Exception):
    """A tool that is to be measured did not do its work."""


@dataclass
class Series:
    """The runs of one tool on one kind of artifact.

    Attributes:
        samples: The timed runs, one per round.
        watched: The runs whose memory was watched, which slows the tool down.
        archive: Bytes of the archive that the tool uploaded; None for a tool that fetches.
    """

    samples: list[Sample] = field(default_factory=list)
    watched: list[Sample] = field(default_factory=list)
    archive: int | None = None

    @property
    def wall(self) -> float:
        return statistics.median(sample.wall for sample in self.samples)

    @property
    def cpu(self) -> float:
        return statistics.median(sample.cpu for sample in self.samples)

    @property
    def server_cpu(self) -> float:
        return statistics.median(sample.server_cpu for sample in self.samples)

    @property
    def peak(self) -> int:
        """Bytes of all processes together, or of the largest one where only that is known."""
        samples = (*self.samples, *self.watched)
        together = [sample.peak for sample in samples if sample.peak is not None]
        return max(together or [sample.largest for sample in samples])

    def wall_ratio(self, reference: Series) -> float:
        """Return how many times as long this tool takes as another one.

        The runs of one round are compared with each other, and the median of these ratios is
        returned: load on the machine that lasts a round slows both tools.
        """
        return self._ratio(reference, lambda sample: sample.wall)

    def cpu_ratio(self, reference: Series) -> float:
        """Return the same ratio of processor seconds; other load changes it less."""
        return self._ratio(reference, lambda sample: sample.cpu)

    def _ratio(self, reference: Series, quantity: Callable[[Sample], float]) -> float:
        pairs = zip(self.samples, reference.samples, strict=True)
        return statistics.median(quantity(one) / quantity(other) for one, other in pairs)


def run(
    steps: Sequence[Step],
    environment: Mapping[str, str],
    log: Path,
    server_cpu: Callable[[], float],
    *,
    watch: bool,
    inside: Sequence[str] = (),
) -> Sample:
    """Run the steps of a tool in their order.

    Args:
        steps: The steps.
        environment: Of all of them.
        log: Where their output goes.
        server_cpu: Returns the processor seconds that SeaweedFS has used so far.
        watch: Whether to read the memory of all processes while they run, which slows them down.
        inside: What a command begins with to run where the tools are.

    Raises:
        Failed: One of its commands did.
    """
    order = {
        "log": str(log),
        "watch": watch,
        "steps": [
            {"name": one.name, "commands": [list(c) for c in one.commands], "cwd": str(one.cwd)}
            for one in steps
        ],
    }
    before = server_cpu()
    results = json.loads(_time(json.dumps(order), environment, inside))
    after = server_cpu()
    last = results[-1]
    known = any(result["together"] is not None for result in results)
    if "status" in last:
        tail = log.read_text(errors="replace")[-1500:]
        raise Failed(f"{last['name']} ended with {last['status']}:\n{tail}")
    return Sample(
        wall=sum(result["wall"] for result in results),
        cpu=sum(result["cpu"] for result in results),
        server_cpu=after - before,
        peak=max(one["together"] or one["largest"] for one in results) if known else None,
        largest=max(result["largest"] for result in results),
        steps={result["name"]: result["wall"] for result in results},
    )


def _time(order: str, environment: Mapping[str, str], inside: Sequence[str]) -> str:
    """Run the stopwatch; if that is cut short, none of the tools runs on."""
    stopwatch = subprocess.Popen(
        [*inside, sys.executable, "-I", "-S", str(_STOPWATCH)],
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        results, _ = stopwatch.communicate(order)
    except BaseException:
        os.killpg(stopwatch.pid, signal.SIGKILL)
        stopwatch.wait()
        raise
    if stopwatch.returncode:
        raise Failed(f"the stopwatch ended with {stopwatch.returncode}")
    return results
