"""What was found of a fleet, as a page, a plot and JSON; nothing is measured here."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from benchmarks import curve
from benchmarks.report import table
from cpstage import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.machine import Conditions
    from job_outcomes import Fate

KILLED, CUT_OFF = "worker-1", "worker-2"
SECONDS_OF_A_JOB = 3
"""Of the jobs that are counted."""

_INTRODUCTION = """\
# Many workers on one queue

After this page you know what happens to jobs when workers fail, and how the rate of jobs grows
with the number of workers.

Workers (`cpstage work`) share only CodePipeline's queue, here that of a local AWS on the
same machine. A job's command sleeps in place of a build, and copies its input to its
output. cpstage does the rest of a job: claim, start a process, fetch, push, report.

Run it again with `python tools/benchmarks/fleet.py`."""
_LOSSES = """\
## A fleet that loses two workers

{workers} workers, {isolation}, share {jobs} jobs of
one second each. After a third of them one worker is killed with SIGKILL, with all its processes,
while it has a job. After half of them another worker loses its network for good, while it has a
job. The record of the local AWS at the end:"""
_RATES = f"""\
## How many jobs in a minute

Each worker works on one job at a time, of {SECONDS_OF_A_JOB} seconds. The last column
compares the rate with that of as many workers that do not slow each other down. All workers, the
processes of their jobs and the local AWS share the same cores.

![Jobs in a minute, by the number of workers](fleet.svg)"""


@dataclass(frozen=True)
class Experiment:
    """The outcome of the jobs of a fleet that lost two workers.

    Attributes:
        workers: How many there were.
        isolation: What separates them.
        found: The fate of each job.
        codes: The exit codes of the workers that were drained.
        seconds: How long it took.
    """

    workers: int
    isolation: str
    found: dict[str, Fate]
    codes: Sequence[int]
    seconds: float

    @property
    def wrong(self) -> list[str]:
        """The jobs that were claimed twice, reported twice, or forgotten."""
        lost = (KILLED, CUT_OFF)
        return [job_id for job_id, fate in self.found.items() if not fate.is_right(lost)]


@dataclass
class Rate:
    """How many jobs some workers did."""

    workers: int
    jobs: int
    seconds: float = 0.0

    @property
    def per_minute(self) -> float:
        return 60 * self.jobs / self.seconds


@dataclass
class Figures:
    """All that was measured."""

    experiment: Experiment
    rates: list[Rate] = field(default_factory=list)


def markdown(figures: Figures, under: Conditions, note: str) -> str:
    """Return the page."""
    one = figures.experiment
    statuses = Counter(fate.status for fate in one.found.values())
    ended = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    foot = f"cpstage {__version__}; {under.line} {note}".strip()
    losses = _LOSSES.format(workers=one.workers, isolation=one.isolation, jobs=len(one.found))
    parts = [
        _INTRODUCTION,
        losses,
        table(["", "jobs"], _facts(one)),
        f"Status at the end: {ended}; {one.seconds:.0f} seconds in all. Of the {len(one.codes)} "
        f"workers that were drained, {list(one.codes).count(0)} ended with 0.",
        foot,
        _RATES,
        table(["workers", "jobs", "seconds", "jobs in a minute", "of the ideal"], _rows(figures)),
        foot,
    ]
    return "\n\n".join(parts) + "\n"


def _facts(one: Experiment) -> list[list[str]]:
    def count(holds: Callable[[Fate], bool]) -> str:
        return str(sum(map(holds, one.found.values())))

    def left_by(name: str) -> str:
        return count(lambda fate: fate.status == "InProgress" and name in fate.claimed_by)

    return [
        ["claimed by one worker, and by no other", count(lambda fate: len(fate.claimed_by) == 1)],
        ["succeeded, with one result", count(lambda fate: len(fate.reported_by) == 1)],
        ["left in progress by the worker that was killed", left_by(KILLED)],
        ["left in progress by the worker that was cut off", left_by(CUT_OFF)],
        ["claimed twice, reported twice, or forgotten", str(len(one.wrong))],
    ]


def _rows(figures: Figures) -> list[list[str]]:
    first = figures.rates[0].per_minute / figures.rates[0].workers
    return [
        [
            str(rate.workers),
            str(rate.jobs),
            f"{rate.seconds:.1f}",
            f"{rate.per_minute:.1f}",
            f"{rate.per_minute / first / rate.workers:.0%}",
        ]
        for rate in figures.rates
    ]


def drawing(figures: Figures, under: Conditions) -> str:
    """Return the plot."""
    first = figures.rates[0].per_minute / figures.rates[0].workers
    return curve.svg(
        title="Jobs in a minute, by the number of workers",
        note=under.line,
        across="workers",
        measured={rate.workers: rate.per_minute for rate in figures.rates},
        ideal={rate.workers: first * rate.workers for rate in figures.rates},
    )


def to_json(figures: Figures, under: Conditions) -> str:
    """Return all figures."""
    one = figures.experiment
    document = {
        "conditions": asdict(under),
        "experiment": {
            "workers": one.workers,
            "isolation": one.isolation,
            "seconds": one.seconds,
            "wrong": one.wrong,
            "exit_codes": [*one.codes],
            "jobs": [
                {**asdict(fate), "claimed_by": sorted(fate.claimed_by)}
                for fate in one.found.values()
            ],
        },
        "rates": [{**asdict(rate), "per_minute": rate.per_minute} for rate in figures.rates],
    }
    return json.dumps(document, indent=1) + "\n"
