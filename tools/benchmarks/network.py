"""How long cpstage's fetch and push take over networks of several bandwidths and round trips.

Run it with `python tools/benchmarks/network.py [--rounds N]`, as root on Linux, from an environment
that cpstage and its extra `local` are installed in. The tools and the servers run in network
namespaces of their own, with an emulated link between them (`network_link.py`) and TLS. The link is
measured before the tools are. Tables and all figures go into `docs/benchmarks`; everything else is
removed at the end, after Ctrl-C too.

For experiments:

    python tools/benchmarks/network.py --keep --kinds L --bandwidths 1 --round-trips 80

puts one artifact of each kind into the object store, then prints the ids of the jobs, a file with
the environment of the tools, and what a command begins with to run on the client's side of the
link. Enter goes on to the next setting. With stdin closed the first setting stays until a signal.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import signal
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.extend(str(Path(__file__).parents[2] / one) for one in ("tools", "tests/support"))

from benchmarks import calibration, network_link, peers, places, report, rounds, testbed
from benchmarks.artifacts import KINDS, Kind, mixed, write_file
from benchmarks.calibration import Calibration
from benchmarks.fetchers import FETCHERS
from benchmarks.machine import Conditions, conditions
from benchmarks.network_link import SERVER, Link, Setting
from benchmarks.pushers import PUSHERS
from benchmarks.servers import Network, Tls
from benchmarks.source_text import SourceText
from certificates import Authority

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.measure import Series
    from benchmarks.rounds import Results, Stored
    from benchmarks.testbed import Testbed

_FETCHERS = ("cpstage", "aws-unzip", "s5cmd-unzip", "s5cmd-bsdtar")
_PUSHERS = ("cpstage", "zip-aws", "zip-s5cmd", "zip1-s5cmd")
_BINDS = 0.7
"""The share of a run's time from which on something is said to bind it."""

_INTRODUCTION = """\
# `fetch` and `push` over a network

After this page you know how long cpstage and other tools take on the same artifacts when the
object store is some way off.

Whole processes, from start to end. The tools run in one network namespace; SeaweedFS (with SSE-KMS)
and the job API run in another one. Two processes of the benchmark carry the packets between the
namespaces: each direction has its bandwidth, a delay of half the round trip, and a queue of the
product of both plus 4 MB, behind which packets are dropped. All connections use TLS. TCP is the
kernel's own, with segments of 1,460 bytes. Client, link and servers share the cores of one machine,
so that the processor binds sooner than it does between two machines. cpstage asks the job API for
the job first; the other tools get the bucket and the key as arguments. Figures are medians of all
rounds; the factor in brackets is the median of the ratios to cpstage in each round.

Run it again with `python tools/benchmarks/network.py`."""
_CHECKED = """\
At the first setting, in a round that is not timed, the tree that each tool unpacked was compared
with the tree that was packed, and the files of every archive with those that were packed."""
_LINK_NOTE = """\
What the link is said to be, and what was measured before the tools ran: the round trip of one byte,
and what one and eight plain TCP connections carry in either direction after slow start. A
connection carries at most its send buffer per round trip. Where eight connections stay below the
bandwidth, the processor that the link and both ends share is used up."""
_BINDING_NOTE = """\
The last rows of each table are about cpstage. "The link alone" is the size of the artifact's zip
divided by the most that plain connections carried. The processor's share is what cpstage and
SeaweedFS used of all cores; the processes of the link are not in it. What takes 70% of the time
binds. Neither does where cpstage waits for answers, where a connection has sent all that may be on
the way at a time, where one core has all the work, or where other programs use the cores: compare
the columns of one bandwidth."""


@dataclass
class Measured:
    """What was measured at one setting; the results are one per kind of artifact."""

    setting: Setting
    link: Calibration
    results: list[Results] = field(default_factory=list)


def _large(directory: Path, rng: random.Random) -> None:
    """Write 1 GiB as artifact C has it."""
    write_file(directory / "image.dat", mixed(SourceText(rng), rng, 1 << 30))


_KINDS = {
    kind.name: kind for kind in (KINDS["D"], KINDS["A"], Kind("L", "one file of 1 GiB", _large))
}


def measure(
    bed: Testbed, link: Link, sources: Sequence[Stored], options: argparse.Namespace
) -> Iterator[list[Measured]]:
    """Measure at one setting after the other, and yield what there is after each."""
    fetchers = [one for one in FETCHERS if one.name in _FETCHERS and one.name in options.tools]
    pushers = [one for one in PUSHERS if one.name in _PUSHERS and one.name in options.tools]
    measured: list[Measured] = []
    for setting in options.settings:
        with link.running(setting):
            real = calibration.measure(link.inside, SERVER, bed.work / "calibration.log")
            print(f"{setting.title}: {_line(real)}", flush=True)
            now = Measured(setting, real)
            for source in sources:
                results = rounds.describe(source.artifact)
                often, first = options.rounds, options.check and not measured
                rounds.measure_fetch(bed, source, fetchers, often, results, check=first)
                rounds.measure_push(bed, source.artifact, pushers, often, results, check=first)
                now.results.append(results)
        measured.append(now)
        yield measured


def _line(real: Calibration) -> str:
    figures = [*real.down.items(), *real.up.items()]
    rates = ", ".join(f"{rate / 1e6:.0f} ({count})" for count, rate in figures)
    return f"{real.round_trip * 1e3:.2f} ms; Mbit/s down and up, by connections: {rates}"


@contextmanager
def _stored(bed: Testbed, kinds: Sequence[str]) -> Iterator[list[Stored]]:
    """Make the artifacts, and put each into the object store."""
    with ExitStack() as stack:
        sources = []
        for name in kinds:
            print(f"{name}: making {_KINDS[name].title}", flush=True)
            artifact = stack.enter_context(rounds.prepared(bed, _KINDS[name]))
            sources.append(stack.enter_context(rounds.stored(bed, artifact)))
            artifact.archive.unlink()
        yield sources


def keep(bed: Testbed, link: Link, sources: Sequence[Stored], settings: Sequence[Setting]) -> None:
    """Keep all running at each setting until Enter is pressed."""
    environment = bed.work / "environment"
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in bed.environment.items()]
    environment.write_text("".join(lines))
    for setting in settings:
        with link.running(setting):
            print(f"\n{setting.title}\nenvironment: . {environment}")
            print(f"client: {shlex.join(link.inside)} COMMAND")
            print(f"server: nsenter --net=/proc/{os.getpid()}/ns/net -- COMMAND")
            for source in sources:
                job = f"job {source.job_id}, object s3://{source.bucket}/{source.key}"
                print(f"{source.artifact.kind.name}: {job}, tree {source.artifact.tree}")
            print("Enter goes on", flush=True)
            if not sys.stdin.readline():
                signal.pause()


def markdown(
    measured: Sequence[Measured], under: Conditions, transport: str, options: argparse.Namespace
) -> str:
    """Return the page with all tables."""
    versions = ", ".join(f"{name} {version}" for name, version in under.versions.items())
    foot = f"{under.line} TCP: {transport}. {options.note}".strip()
    parts = [
        _INTRODUCTION,
        *([_CHECKED] if options.check else []),
        report.artifacts(measured[0].results),
        f"Versions: {versions}.",
    ]
    parts += ["## The link", _link_table(measured), _LINK_NOTE, foot]
    parts += ["## What binds", _BINDING_NOTE]
    for command in ("fetch", "push"):
        parts.append(f"## {command}")
        for results in measured[0].results:
            parts += [f"### {command} {results.kind}: {results.title}"]
            parts += [_times(measured, results.kind, command), foot]
    failures = [
        f"- {one.setting.title}, {name}: {why.strip().splitlines()[-1]}"
        for one in measured
        for results in one.results
        for name, why in results.failures.items()
    ]
    if failures:
        parts += ["## Left out, because it failed", "\n".join(failures)]
    return "\n\n".join(parts) + "\n"


def _link_table(measured: Sequence[Measured]) -> str:
    head = ["link", "round trip, ms"]
    head += [f"{way}, {count}, Mbit/s" for way in ("down", "up") for count in measured[0].link.down]
    rows = []
    for one in measured:
        rates = [
            f"{rate / 1e6:,.0f}" for way in (one.link.down, one.link.up) for rate in way.values()
        ]
        rows.append([one.setting.title, f"{one.link.round_trip * 1e3:.1f}", *rates])
    return report.table(head, rows)


def _times(measured: Sequence[Measured], kind: str, command: str) -> str:
    """Return the seconds of each tool at each setting, and what binds cpstage."""
    columns: dict[str, Mapping[str, Series]] = {}
    last: list[list[str]] = [["the link alone"], ["processor"], ["what binds cpstage"]]
    for one in measured:
        (results,) = (results for results in one.results if results.kind == kind)
        tools = results.fetch if command == "fetch" else results.push
        columns[one.setting.title] = tools
        rates = one.link.down if command == "fetch" else one.link.up
        alone = results.archive * 8 / max(rates.values())
        for row, cell in zip(last, _binding(tools.get(report.OURS), alone), strict=True):
            row.append(cell)
    titles = {tool.name: tool.title for tool in (FETCHERS if command == "fetch" else PUSHERS)}
    rows = report.one_column_each("seconds", columns, titles, report.wall)
    return "\n".join([rows, *(f"| {' | '.join(row)} |" for row in last)])


def _binding(ours: Series | None, alone: float) -> tuple[str, str, str]:
    """Return what the link takes alone, the processor's share in the time, and what binds."""
    if ours is None:
        return f"{alone:.2f}", "", ""
    busy = (ours.cpu + ours.server_cpu) / (os.cpu_count() or 1) / ours.wall
    shares = {"link": alone / ours.wall, "processor": busy}
    largest = max(shares, key=shares.__getitem__)
    binds = largest if shares[largest] >= _BINDS else "neither"
    return f"{alone:.2f}", f"{busy:.0%}", binds


def to_json(measured: Sequence[Measured], under: Conditions, transport: str) -> str:
    settings = [
        {
            "setting": dataclasses.asdict(one.setting),
            "link": dataclasses.asdict(one.link),
            "results": report.documents(one.results),
        }
        for one in measured
    ]
    document = {"conditions": dataclasses.asdict(under), "tcp": transport, "settings": settings}
    return json.dumps(document, indent=1) + "\n"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = list(dict.fromkeys((*_FETCHERS, *_PUSHERS)))
    places.add_options(parser, rounds=3)
    parser.add_argument("--bandwidths", default="1,10", help="in Gbit/s (1,10)")
    parser.add_argument("--round-trips", default="1,20,80", help="in ms (1,20,80)")
    parser.add_argument("--kinds", default=",".join(_KINDS), help=f"of {','.join(_KINDS)}")
    parser.add_argument("--tools", default=",".join(known), help=f"of {','.join(known)}")
    parser.add_argument(
        "--no-check", dest="check", action="store_false", help="do not verify what the tools did"
    )
    parser.add_argument("--note", default="", help="a sentence for below the tables")
    parser.add_argument("--keep", action="store_true", help="measure nothing; for experiments")
    options = parser.parse_args()
    options.settings = [
        Setting(bits * 1e9, milliseconds / 1e3)
        for bits in map(float, options.bandwidths.split(","))
        for milliseconds in map(float, options.round_trips.split(","))
    ]
    options.kinds = places.chosen(parser, options.kinds, list(_KINDS))
    options.tools = places.chosen(parser, options.tools, known)
    return options


def main() -> None:
    options = _options()
    if why := network_link.obstacle():
        sys.exit(f"error: there can be no link: {why}")
    places.get_ready(options.output)
    programs = peers.install(options.tools_dir.resolve(), options.checkout.resolve())
    with ExitStack() as stack:
        link = Link(stack)
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cpstage-tls-")))
        authority = Authority(directory)
        authority.context(SERVER)
        tls = Tls(directory / f"{SERVER}.pem", authority.file)
        network = Network(SERVER, tls, link.inside)
        bed = stack.enter_context(
            testbed.running(programs, options.work, options.credentials, network)
        )
        sources = stack.enter_context(_stored(bed, options.kinds))
        if options.keep:
            keep(bed, link, sources, options.settings)
            return
        under = conditions(bed.file_system, options.rounds, programs.versions, options.credentials)
        tcp = network_link.transport()
        for measured in measure(bed, link, sources, options):
            (options.output / "network.md").write_text(markdown(measured, under, tcp, options))
            (options.output / "network.json").write_text(to_json(measured, under, tcp))
    print((options.output / "network.md").read_text())


if __name__ == "__main__":
    main()
