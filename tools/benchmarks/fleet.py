"""Many workers on one queue: what becomes of the jobs, and how many there are in a minute.

Run it with `python tools/benchmarks/fleet.py [--jobs N] [--workers N]`, from an environment that
cpstage and its extra `local` are installed in. It starts a local AWS and workers, each with a
network and processes of its own where the machine allows that (root, iproute2 and unshare), kills
one worker in the middle, cuts another off, and checks the outcome of every job. Then it counts the
jobs that 1, 2, 4 and 8 workers do in a minute. It writes a table, a plot and the figures into
`docs/benchmarks`; with 2 cores that takes some four minutes.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.extend(str(Path(__file__).parents[2] / one) for one in ("tools", "tests/support"))

from typing import TYPE_CHECKING

from benchmarks import fleet_report, machines, places
from benchmarks.fleet_report import (
    CUT_OFF,
    KILLED,
    SECONDS_OF_A_JOB,
    Experiment,
    Figures,
    Rate,
)
from benchmarks.machine import conditions
from benchmarks.machines import Machine, Site
from cpstage.local import Input, LocalAWS
from job_outcomes import WORKER_ACTIONS, fates
from samples import zip_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_COUNTS = (1, 2, 4, 8)


class Fleet:
    """Workers that are started on machines of their own, and what they work on.

    Args:
        aws: The local AWS.
        stack: What ends them.
        directory: Where their workspaces are.
    """

    def __init__(self, aws: LocalAWS, stack: ExitStack, directory: Path) -> None:
        self.aws = aws
        self._site = Site(stack, aws.endpoint_url)
        self._directory = directory
        self.machines: dict[str, Machine] = {}

    def add_jobs(self, count: int) -> list[str]:
        source = Input("Source", zip_of({"source.txt": "source"}))
        return [self.aws.add_job([source], ["Built"], status="Queued") for _ in range(count)]

    def start(self, name: str, seconds: float) -> None:
        """Start a worker whose jobs take so long."""
        there = self._site.make(name)
        build = f'sleep {seconds}; cp "$CPSTAGE_IN_SOURCE"/* "$CPSTAGE_OUT_BUILT"/'
        arguments = [
            *("work", "--category", "Build", "--provider", "CpstageLocal", "--version", "1"),
            *("--poll-interval", "1", "--retry-timeout", "20", "--log-format", "json"),
            *("--workspace-root", str(self._directory / name), "--", "sh", "-c", build),
        ]
        log = self._directory / f"{name}.log"
        there.start(arguments, self.aws.add_user(name, WORKER_ACTIONS), log)
        self.machines[name] = there

    def wait(self, is_over: Callable[[], bool], longest: float = 600) -> float:
        """Wait for something, and return the seconds that it took."""
        began = time.monotonic()
        while not is_over():
            if time.monotonic() > began + longest:
                raise TimeoutError("the fleet does not come to an end")
            time.sleep(0.1)
        return time.monotonic() - began

    def drain(self) -> list[int]:
        """Stop the workers that are still there, and return their exit codes."""
        for there in self.machines.values():
            there.send(signal.SIGTERM)
        return [there.wait() for there in self.machines.values()]


@contextmanager
def _fleet() -> Iterator[Fleet]:
    with (
        tempfile.TemporaryDirectory(prefix="cpstage-fleet-") as directory,
        LocalAWS(redeliver_seconds=5) as aws,
        ExitStack() as stack,
    ):
        yield Fleet(aws, stack, Path(directory))


def lose_two(workers: int, jobs: int) -> Experiment:
    """Let workers share jobs, kill one after a third of them, and cut another off."""
    began = time.monotonic()
    with _fleet() as fleet:
        job_ids = fleet.add_jobs(jobs)

        def ended() -> int:
            return sum(fleet.aws.job(job_id).status == "Succeeded" for job_id in job_ids)

        def at_work(name: str) -> bool:
            """Tell whether a worker has a job in progress now."""
            return any(
                fate.status == "InProgress" and name in fate.claimed_by
                for fate in fates(fleet.aws, job_ids).values()
            )

        for number in range(workers):
            fleet.start(f"worker-{number + 1}", seconds=1)
        fleet.wait(lambda: ended() >= jobs // 3 and at_work(KILLED))
        fleet.machines.pop(KILLED).kill()
        print(f"killed one after {ended()} jobs", flush=True)
        fleet.wait(lambda: ended() >= jobs // 2 and at_work(CUT_OFF))
        fleet.machines[CUT_OFF].cut_off()
        cut_off = fleet.machines.pop(CUT_OFF)
        print(f"cut one off after {ended()} jobs", flush=True)

        def is_over() -> bool:
            found = fates(fleet.aws, job_ids)
            return all(
                fate.status == "Succeeded"
                or (fate.status == "InProgress" and fate.claimed_by <= {KILLED, CUT_OFF})
                for fate in found.values()
            )

        fleet.wait(is_over)
        codes = fleet.drain()
        cut_off.kill()
        found = fates(fleet.aws, job_ids)
        return Experiment(workers, machines.isolation(), found, codes, time.monotonic() - began)


def count(workers: int, each: int) -> Rate:
    """Let workers do some jobs each, and take the time from the first claim to the last result."""
    with _fleet() as fleet:
        rate = Rate(workers, workers * each)
        for number in range(workers):
            fleet.start(f"worker-{number + 1}", seconds=SECONDS_OF_A_JOB)

        def polled() -> set[str]:
            return {call.identity for call in fleet.aws.calls() if call.action == "PollForJobs"}

        fleet.wait(lambda: len(polled()) == workers)
        job_ids = fleet.add_jobs(rate.jobs)
        rate.seconds = fleet.wait(
            lambda: all(fleet.aws.job(job_id).status == "Succeeded" for job_id in job_ids)
        )
        fleet.drain()
        return rate


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=200, help="of the experiment (200)")
    parser.add_argument("--workers", type=int, default=8, help="of the experiment (8)")
    parser.add_argument("--each", type=int, default=6, help="jobs for each timed worker (6)")
    parser.add_argument("--counts", default=",".join(map(str, _COUNTS)), help="workers to time")
    parser.add_argument("--note", default="", help="a sentence for below the tables")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).resolve().parents[2] / "docs/benchmarks",
        help="where the results go (docs/benchmarks in this checkout)",
    )
    return parser.parse_args()


def main() -> None:
    options = _options()
    places.get_ready(options.output)
    under = conditions("", 1, {})
    figures = Figures(lose_two(options.workers, options.jobs))
    print(f"wrong: {figures.experiment.wrong or 'none'}", flush=True)
    for workers in map(int, options.counts.split(",")):
        figures.rates.append(rate := count(workers, options.each))
        print(f"{workers} workers: {rate.per_minute:.1f} jobs in a minute", flush=True)
    page = fleet_report.markdown(figures, under, options.note)
    (options.output / "fleet.md").write_text(page)
    (options.output / "fleet.svg").write_text(fleet_report.drawing(figures, under))
    (options.output / "fleet.json").write_text(fleet_report.to_json(figures, under))
    if figures.experiment.wrong:
        sys.exit("some job was claimed twice, reported twice, or forgotten")


if __name__ == "__main__":
    main()
