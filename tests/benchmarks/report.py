"""The figures as Markdown tables and as JSON; nothing is measured here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence

from benchmarks.machine import Conditions
from benchmarks.measure import Series
from benchmarks.rounds import Results

OURS = "cpstage"
Titles = Mapping[str, str]
_INTRODUCTION = """\
# How long `fetch` and `push` take

Whole processes, from start to end, beside the tools that do the same work: seconds by the clock,
and in brackets how many times as long as cpstage. The object store is SeaweedFS on the same
machine, with SSE-KMS and its data beside the files; there is no TLS and no distance. The store's
own work is done by the same cores. cpstage asks the job API for the job first; the others are told
the bucket and the key. What each tool unpacked was compared with what was packed, byte by byte, and
every archive was tested with `unzip -t`.

Run it again with `python tests/benchmarks/transfer.py`.

![Seconds of every tool, for each kind of artifact](transfer.svg)
"""
_MEMORY_NOTE = """\
Of the largest process, as the kernel keeps it, or of all processes of the tool at the same time, as
seen every 50 ms in a round that is not timed, whichever is more."""
_PROCESSOR_NOTE = """\
In user and kernel mode, over all cores: the tool's own, and what SeaweedFS used meanwhile."""
_LIMITS_NOTE = """\
Seconds for the parts of a fetch, each alone: reading the object and throwing it away, inflating its
members with ISA-L, creating files of the same sizes. The floor is all of their processor time,
SeaweedFS's included, spread over the cores, but not less than reading the object or inflating the
largest member takes. The share is how much of cpstage's time the floor is."""


def markdown(
    measured: Sequence[Results], conditions: Conditions, fetchers: Titles, pushers: Titles
) -> str:
    """Return the page with all tables."""
    foot = conditions.line
    versions = ", ".join(f"{name} {version}" for name, version in conditions.versions.items())
    parts = [_INTRODUCTION, _kinds(measured), f"Versions: {versions}."]
    fetches = {one.kind: one.fetch for one in measured if one.fetch}
    if fetches:
        parts += ["## fetch", _table(fetches, fetchers, "seconds", _seconds), foot]
        parts += [_table(fetches, fetchers, "peak memory, MB", _memory), _MEMORY_NOTE, foot]
        parts += [_table(fetches, fetchers, "processor seconds", _processor), _PROCESSOR_NOTE, foot]
        parts += ["## What a fetch cannot beat", _LIMITS_NOTE, _limits(measured), foot]
    pushes = {one.kind: one.push for one in measured if one.push}
    if pushes:
        parts += ["## push", _table(pushes, pushers, "seconds", _seconds), foot]
        parts += [_table(pushes, pushers, "size of the archive, MB", _archive), foot]
        parts += [_table(pushes, pushers, "peak memory, MB", _memory), _MEMORY_NOTE, foot]
        parts += [_table(pushes, pushers, "processor seconds", _processor), _PROCESSOR_NOTE, foot]
    failures = {name: why for one in measured for name, why in one.failures.items()}
    if failures:
        listed = [f"- {name}: {why.strip().splitlines()[-1]}" for name, why in failures.items()]
        parts += ["## Left out, because it failed", "\n".join(listed)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def to_json(measured: Sequence[Results], conditions: Conditions) -> str:
    """Return every single run, for whoever wants to look closer."""
    document = {
        "conditions": dataclasses.asdict(conditions),
        "results": [dataclasses.asdict(one) for one in measured],
    }
    return json.dumps(document, indent=1) + "\n"


def factor(ratio: float) -> str:
    """Return how many times as long, with as many digits as mean something."""
    return f"{ratio:.1f}×" if ratio >= 0.95 else f"{ratio:.2f}×"  # noqa: RUF001 (a factor)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are figures."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def _kinds(measured: Sequence[Results]) -> str:
    rows = [
        [f"{one.kind}: {one.title}", f"{one.files:,}", _mb(one.size), _mb(one.archive)]
        for one in measured
    ]
    return table(["artifact", "files", "MB", "MB as `zip -6`"], rows)


def _table(
    kinds: Mapping[str, Mapping[str, Series]],
    titles: Titles,
    quantity: str,
    cell: Callable[[Series, Series | None], str],
) -> str:
    """Return one row per tool and one column per kind."""
    rows = []
    for name, title in titles.items():
        if any(name in tools for tools in kinds.values()):
            shown = f"**{title}**" if name == OURS else title
            cells = [
                cell(tools[name], tools.get(OURS)) if name in tools else ""
                for tools in kinds.values()
            ]
            rows.append([shown, *cells])
    return table([quantity, *kinds], rows)


def _seconds(series: Series, ours: Series | None) -> str:
    if ours is None or series is ours:
        return f"{series.wall:.2f}"
    return f"{series.wall:.2f} ({factor(series.wall / ours.wall)})"


def _memory(series: Series, _: Series | None) -> str:
    return _mb(series.peak)


def _processor(series: Series, ours: Series | None) -> str:
    ratio = "" if ours is None or series is ours else f" ({factor(series.cpu / ours.cpu)})"
    return f"{series.cpu:.2f}{ratio} + {series.server_cpu:.2f}"


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
            rows.setdefault(title, []).append(f"{seconds:.2f}")
        # A floor that is above the time it is held against was measured while more was going on.
        share = f"{limits.floor / ours.wall:.0%}" if ours and limits.floor < ours.wall else ""
        rows.setdefault("share of the floor in cpstage's time", []).append(share)
    head = ["", *[one.kind for one in measured if one.limits]]
    return table(head, [[title, *cells] for title, cells in rows.items()])
