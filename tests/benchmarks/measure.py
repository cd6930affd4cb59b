"""What a tool costs: wall time, processor time and memory of whole processes."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
        cpu: Processor seconds of all its processes, in user and kernel mode.
        server_cpu: Processor seconds that SeaweedFS spent meanwhile.
        peak: Memory in bytes: that of its largest process or, where it was watched, of all its
            processes at the same time, if that was more.
        steps: Wall seconds of each step.
    """

    wall: float
    cpu: float
    server_cpu: float
    peak: int
    steps: Mapping[str, float]


class Failed(Exception):
    """A tool that is to be measured did not do its work."""


@dataclass
class Series:
    """The runs of one tool on one kind of artifact.

    Attributes:
        samples: Those that are timed.
        watched: Those whose memory was watched, which takes time of its own.
        archive: The size of the archive it made, if it made one.
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
        return max(sample.peak for sample in (*self.samples, *self.watched))


def run(
    steps: Sequence[Step],
    environment: Mapping[str, str],
    log: Path,
    server_cpu: Callable[[], float],
    *,
    watch: bool,
) -> Sample:
    """Run the steps of a tool in their order.

    Args:
        steps: The steps.
        environment: Of all of them.
        log: Where their output goes.
        server_cpu: Tells the processor time of SeaweedFS.
        watch: Whether to look at the memory of all processes together while they run; that costs
            them a little time.

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
    results = json.loads(_time(json.dumps(order), environment))
    after = server_cpu()
    last = results[-1]
    if "status" in last:
        tail = log.read_text(errors="replace")[-1500:]
        raise Failed(f"{last['name']} ended with {last['status']}:\n{tail}")
    return Sample(
        wall=sum(result["wall"] for result in results),
        cpu=sum(result["cpu"] for result in results),
        server_cpu=after - before,
        peak=max(result["peak"] for result in results),
        steps={result["name"]: result["wall"] for result in results},
    )


def _time(order: str, environment: Mapping[str, str]) -> str:
    """Run the stopwatch; if that is cut short, none of the tools runs on."""
    stopwatch = subprocess.Popen(
        [sys.executable, "-I", "-S", str(_STOPWATCH)],
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
