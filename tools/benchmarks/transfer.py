"""How long cpstage's fetch and push take, beside other tools that do the same.

Run it with `python tools/benchmarks/transfer.py [--rounds N]`, from an environment that cpstage and
its extra `local` are installed in. It installs the peers with pip and npm into a directory that it
keeps, starts an object store of its own on the loopback, and writes a table, a plot and all figures
into `docs/benchmarks`. With 2 cores a round of everything takes a quarter of an hour; it needs 12
GiB of memory. Programs that are missing are named, and the tools that need them left out.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

sys.path.extend(str(Path(__file__).parents[2] / one) for one in ("tools", "tests/support"))

from benchmarks import peers, places, report, rounds, testbed
from benchmarks.artifacts import KINDS
from benchmarks.fetchers import FETCHERS, Fetcher
from benchmarks.machine import Conditions, conditions
from benchmarks.plot import Bar, Chart, Panel, svg
from benchmarks.pushers import PUSHERS, Pusher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.measure import Series
    from benchmarks.rounds import Results

_Tool = TypeVar("_Tool", Fetcher, Pusher)


@dataclass(frozen=True)
class Plan:
    """What is to be measured."""

    kinds: Sequence[str]
    rounds: int
    fetchers: Sequence[Fetcher]
    pushers: Sequence[Pusher]


def measure(bed: testbed.Testbed, plan: Plan, save: Callable[[list[Results]], None]) -> None:
    """Measure one kind after the other, and save what there is after each."""
    measured: list[Results] = []
    for name in plan.kinds:
        print(f"{name}: making {KINDS[name].title}", flush=True)
        with rounds.prepared(bed, KINDS[name]) as artifact:
            results = rounds.describe(artifact)
            if plan.fetchers:
                _measure_fetch(bed, artifact, plan, results)
            artifact.archive.unlink(missing_ok=True)
            if plan.pushers:
                rounds.measure_push(bed, artifact, plan.pushers, plan.rounds, results)
        measured.append(results)
        save(measured)


def _measure_fetch(
    bed: testbed.Testbed, artifact: rounds.Prepared, plan: Plan, results: Results
) -> None:
    """Measure the parts of a fetch, then the tools that fetch; the input zip is removed."""
    with rounds.stored(bed, artifact) as source:
        parts = rounds.measure_parts(bed, source, plan.rounds)
        artifact.archive.unlink()
        rounds.measure_fetch(bed, source, plan.fetchers, plan.rounds, results)
    walls = [sample.wall for series in results.fetch.values() for sample in series.samples]
    results.limits = parts.compared(min(walls)) if walls else parts


def chart(measured: Sequence[Results], under: Conditions, plan: Plan) -> Chart:
    """Arrange the figures as a drawing."""

    def panel(tools: Sequence[_Tool], series: dict[str, Series]) -> Panel:
        ours = series.get(report.OURS)
        bars = []
        for tool in tools:
            if tool.name in series:
                one = series[tool.name]
                note = report.factor(one.wall_ratio(ours)) if ours and one is not ours else ""
                bars.append(Bar(tool.title, one.wall, note, report.is_ours(tool.name)))
        return bars

    rows = {}
    for one in measured:
        panels = {"fetch": panel(plan.fetchers, one.fetch), "push": panel(plan.pushers, one.push)}
        rows[f"{one.kind}: {one.title}"] = panels
    return Chart("Seconds to fetch and to push an artifact; less is better", under.line, rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = sorted({tool.name for tool in (*FETCHERS, *PUSHERS)})
    places.add_options(parser, rounds=3)
    parser.add_argument("--only", choices=["fetch", "push"], help="one of the two")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of A,B,C,D, all if not given")
    parser.add_argument("--tools", default=",".join(known), help=f"of {','.join(known)}")
    options = parser.parse_args()
    options.kinds = places.chosen(parser, options.kinds, list(KINDS))
    options.tools = places.chosen(parser, options.tools, known)
    return options


def main() -> None:
    options = _options()
    places.get_ready(options.output)
    programs = peers.install(options.tools_dir.resolve(), options.checkout.resolve())
    if "zip" not in programs.optional:
        sys.exit("error: zip is missing: install the Debian package zip")

    def usable(tools: Sequence[_Tool], command: str) -> list[_Tool]:
        wanted = [tool for tool in tools if tool.name in options.tools]
        if options.only not in (None, command):
            return []
        return [tool for tool in wanted if tool.needs <= programs.optional]

    plan = Plan(options.kinds, options.rounds, usable(FETCHERS, "fetch"), usable(PUSHERS, "push"))

    with testbed.running(programs, options.work, options.credentials) as bed:
        under = conditions(bed.file_system, options.rounds, programs.versions, options.credentials)

        def save(measured: list[Results]) -> None:
            page = report.markdown(
                measured,
                under,
                {tool.name: tool.title for tool in FETCHERS},
                {tool.name: tool.title for tool in PUSHERS},
            )
            drawing = svg(chart(measured, under, plan))
            (options.output / "transfer.md").write_text(page)
            (options.output / "transfer.svg").write_text(drawing)
            (options.output / "transfer.json").write_text(report.to_json(measured, under))

        measure(bed, plan, save)
    print((options.output / "transfer.md").read_text())


if __name__ == "__main__":
    main()
