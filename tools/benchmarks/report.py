"""The figures as Markdown tables and as JSON; nothing is measured here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.measure import Series

if TYPE_CHECKING:
    from benchmarks.machine import Conditions
    from benchmarks.rounds import Results

OURS = "cpstage"
"""The tool that all others are compared with; a name that starts so is cpstage with options."""
Titles = Mapping[str, str]
Cell = Callable[[Series, Series | None], str]
"""Returns what a table shows of a tool; the second argument is cpstage."""
_INTRODUCTION = """\
# How long `fetch` and `push` take

After this page you know how long cpstage and other tools take on the same artifacts.

Whole processes, from start to end, beside the tools that do the same work. The object store is
SeaweedFS on the same machine, with SSE-KMS and its data beside the files, reached by plain HTTP
over the loopback. The object store uses the same cores. cpstage asks the job API for the job first;
the other tools get the bucket and the key as arguments. The tree that each tool unpacked was
compared with the tree that was packed, byte by byte. Every archive was tested with `unzip -t` or
`gzip -t`, and its files were compared with those that were packed.

For each kind of artifact a table has two columns: seconds by the clock (wall), and processor
seconds (CPU) in user and kernel mode of all processes of the tool. Figures are medians of all
rounds. The factor in brackets compares a tool with cpstage: the two runs of each round are divided,
and the factor is the median of these ratios. Other programs on the machine change processor seconds
less than seconds by the clock.

cpstage loses where it has little else to do than to start: with a few small files `s5cmd` takes a
tenth of its time. For many small files `tar`, `igzip` and `s5cmd pipe` take less processor time
than `push` as tar.gz.

Run it again with `python tools/benchmarks/transfer.py`.

![Seconds of every tool, for each kind of artifact](transfer.svg)
"""
_PUSH_NOTE = """\
The tools with `tar` in their name write a compressed tar; the other tools write a zip. All factors
compare with `cpstage push`, which writes a zip."""
_MEMORY_NOTE = """\
The peak of all processes of the tool together, read every 5 ms in a round that is not timed, as the
sum of their proportional set sizes (Pss in `/proc/PID/smaps_rollup`): a page that several processes
of the tool share counts once, and a page that other programs share too counts in part. Where that
file is missing, and for a step of a tool that takes less than some 50 ms: the peak resident set
size of the largest process, in which every page counts."""
_SERVER_NOTE = """\
Processor seconds that SeaweedFS used during the run of the tool."""
_LIMITS_NOTE = """\
Seconds for the parts of a fetch, each alone; the least of all rounds. Reading the object throws the
bytes away, inflating uses ISA-L, and the created files have the same sizes. The floor estimates
what a fetch takes at least: the processor seconds of the parts, those of SeaweedFS included, spread
over all cores, but no less than reading the object takes, or inflating the largest member in one
thread. The start of a process is not included. The share is the floor divided by the seconds of
cpstage. If the fastest run of any tool takes less than the floor, the floor is left out."""


def markdown(
    measured: Sequence[Results], conditions: Conditions, fetchers: Titles, pushers: Titles
) -> str:
    """Return the page with all tables."""
    foot = conditions.line
    versions = ", ".join(f"{name} {version}" for name, version in conditions.versions.items())
    parts = [_INTRODUCTION, artifacts(measured), f"Versions: {versions}."]
    fetches = {one.kind: one.fetch for one in measured if one.fetch}
    if fetches:
        parts += ["## fetch", _times(fetches, fetchers), foot]
        parts += [
            one_column_each("peak memory, MB", fetches, fetchers, _memory),
            _MEMORY_NOTE,
            foot,
        ]
        parts += [
            one_column_each("SeaweedFS, CPU s", fetches, fetchers, _server),
            _SERVER_NOTE,
            foot,
        ]
        parts += ["## The parts of a fetch", _LIMITS_NOTE, _limits(measured), foot]
    pushes = {one.kind: one.push for one in measured if one.push}
    if pushes:
        parts += ["## push", _PUSH_NOTE, _times(pushes, pushers), foot]
        parts += [one_column_each("size of the archive, MB", pushes, pushers, _archive), foot]
        parts += [one_column_each("peak memory, MB", pushes, pushers, _memory), _MEMORY_NOTE, foot]
        parts += [one_column_each("SeaweedFS, CPU s", pushes, pushers, _server), _SERVER_NOTE, foot]
    failures = {name: why for one in measured for name, why in one.failures.items()}
    if failures:
        listed = [f"- {name}: {why.strip().splitlines()[-1]}" for name, why in failures.items()]
        parts += ["## Left out, because it failed", "\n".join(listed)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def to_json(measured: Sequence[Results], conditions: Conditions) -> str:
    """Return the medians and ratios of every tool, and all single runs."""
    document = {"conditions": dataclasses.asdict(conditions), "results": documents(measured)}
    return json.dumps(document, indent=1) + "\n"


def documents(measured: Sequence[Results]) -> list[dict[str, Any]]:
    """Return the figures of each kind of artifact, for JSON."""
    return [
        {**dataclasses.asdict(one), "fetch": _figures(one.fetch), "push": _figures(one.push)}
        for one in measured
    ]


def is_ours(name: str) -> bool:
    """Whether a tool is cpstage, with or without options."""
    return name.split("-", maxsplit=1)[0] == OURS


def factor(ratio: float) -> str:
    """Return a ratio with as many digits as mean something."""
    return f"{ratio:.1f}×" if ratio >= 0.95 else f"{ratio:.2f}×"  # noqa: RUF001 (a factor)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are figures."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def _figures(tools: Mapping[str, Series]) -> dict[str, dict[str, Any]]:
    """Return the figures of each tool; the ratios are null where cpstage was not measured."""
    ours = tools.get(OURS)
    return {
        name: {
            "wall": series.wall,
            "cpu": series.cpu,
            "server_cpu": series.server_cpu,
            "wall_ratio": series.wall_ratio(ours) if ours else None,
            "cpu_ratio": series.cpu_ratio(ours) if ours else None,
            "peak": series.peak,
            **dataclasses.asdict(series),
        }
        for name, series in tools.items()
    }


def artifacts(measured: Sequence[Results]) -> str:
    rows = [
        [f"{one.kind}: {one.title}", f"{one.files:,}", _mb(one.size), _mb(one.archive)]
        for one in measured
    ]
    return table(["artifact", "files", "MB", "MB as `zip -6`"], rows)


def _times(kinds: Mapping[str, Mapping[str, Series]], titles: Titles) -> str:
    """Return the table of wall and processor seconds, two columns per kind."""
    head = [f"{kind}, {column}" for kind in kinds for column in ("wall", "CPU")]
    return table(["seconds", *head], _rows(kinds, titles, [wall, _cpu]))


def one_column_each(
    quantity: str, kinds: Mapping[str, Mapping[str, Series]], titles: Titles, cell: Cell
) -> str:
    """Return a table of one quantity, one column per kind of artifact or other condition."""
    return table([quantity, *kinds], _rows(kinds, titles, [cell]))


def _rows(
    kinds: Mapping[str, Mapping[str, Series]], titles: Titles, cells: Sequence[Cell]
) -> list[list[str]]:
    """Return one row per tool that was measured; the cells of a kind stand beside each other."""
    rows = []
    for name, title in titles.items():
        if any(name in tools for tools in kinds.values()):
            row = [f"**{title}**" if is_ours(name) else title]
            for tools in kinds.values():
                series, ours = tools.get(name), tools.get(OURS)
                row += [cell(series, ours) if series else "" for cell in cells]
            rows.append(row)
    return rows


def wall(series: Series, ours: Series | None) -> str:
    ratio = "" if ours is None or series is ours else f" ({factor(series.wall_ratio(ours))})"
    return f"{series.wall:.2f}{ratio}"


def _cpu(series: Series, ours: Series | None) -> str:
    ratio = "" if ours is None or series is ours else f" ({factor(series.cpu_ratio(ours))})"
    return f"{series.cpu:.2f}{ratio}"


def _server(series: Series, _: Series | None) -> str:
    return f"{series.server_cpu:.2f}"


def _memory(series: Series, _: Series | None) -> str:
    return _mb(series.peak)


def _archive(series: Series, _: Series | None) -> str:
    return "" if series.archive is None else _mb(series.archive)


def _mb(size: int) -> str:
    digits = 3 if size < 1e6 else 1 if size < 100e6 else 0
    return f"{size / 1e6:,.{digits}f}"


def _limits(measured: Sequence[Results]) -> str:
    rows: dict[str, list[str]] = {}
    shown = [(one.limits, one.fetch.get(OURS)) for one in measured if one.limits]
    for limits, ours in shown:
        for title, seconds in (
            ("read the object", limits.read),
            ("inflate, one thread", limits.inflate),
            ("inflate, two threads", limits.inflate_two),
            ("inflate the largest member", limits.longest),
            ("create the files", limits.create),
            ("floor", limits.floor),
        ):
            rows.setdefault(title, []).append("" if seconds is None else f"{seconds:.3f}")
        share = f"{limits.floor / ours.wall:.0%}" if ours and limits.floor is not None else ""
        rows.setdefault("share of the floor in cpstage's time", []).append(share)
    head = ["", *[one.kind for one in measured if one.limits]]
    return table(head, [[title, *cells] for title, cells in rows.items()])
