"""A worker under a flood of jobs of which a third misbehave; the figures of the end.

    PYTHONPATH=tests/support python tools/fuzz/flood.py --jobs 500 --concurrency 8

It fails if a job is reported otherwise than it went, or stays open; if a process, a workspace or a
descriptor of the worker is left; or if the health page says that the worker is unwell.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cpstage.local import Input, LocalAWS
from samples import zip_of

WELL = {
    "good": "",
    "read-only": "chmod -R a-w .",
    "deep": (
        'cd "$CPSTAGE_IN_APP"; "$PYTHON" -c "import os\n'
        "for _ in range(1300): os.mkdir('d'); os.chdir('d')\""
    ),
    "orphan": "(exec sleep 600) > /dev/null 2>&1 &",
    "links": 'ln -s / "$CPSTAGE_IN_APP/root"; ln -s .. "$CPSTAGE_IN_APP/up"',
}
"""Builds that end well, whatever they do besides."""

BADLY = {
    "exit": "exit 3",
    "nothing": 'rm -r "$CPSTAGE_OUT_BUILT"/*',
    "signal": "kill -37 $$",
    "endless": "exec sleep 600",
    "ignoring": "trap '' TERM; while :; do sleep 1; done",
    "environ": 'ln -sf /proc/self/environ "$CPSTAGE_OUTPUT_VARIABLES"',
    "fifo": 'rm "$CPSTAGE_OUTPUT_VARIABLES"; mkfifo "$CPSTAGE_OUTPUT_VARIABLES"',
    "token": 'head -c 9000000 /dev/zero > "$CPSTAGE_NEXT_CONTINUATION_TOKEN_FILE"',
    "state": "rm -rf .cpstage",
    "stop": "kill -STOP $PPID; sleep 600",
    "kill": "kill -KILL $PPID; sleep 600",
    "loud": "head -c 3000000 /dev/urandom; exit 1",
}
"""Builds that must be reported as failed."""

KINDS = {**WELL, **BADLY}

BUILD = """
mkdir -p "$CPSTAGE_OUT_BUILT"
echo "$CPSTAGE_JOB_ID" > "$CPSTAGE_OUT_BUILT/id"
echo "id=$CPSTAGE_JOB_ID" > "$CPSTAGE_OUTPUT_VARIABLES"
eval "$(cat "$KINDS/$CPSTAGE_JOB_ID")"
"""


@dataclass
class Watched:
    """What is seen of a worker while it works."""

    descriptors: list[int] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    unwell: list[Any] = field(default_factory=list)


def main() -> int:
    """Run the flood, and print the outcome."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with LocalAWS() as aws, tempfile.TemporaryDirectory() as name:
        report = flood(aws, Path(name), given.jobs, given.concurrency, random.Random(given.seed))
    print(json.dumps(report, indent=2))
    return 1 if report["wrong"] or report["left"] or report["unwell"] else 0


def flood(
    aws: LocalAWS, directory: Path, count: int, concurrency: int, choose: random.Random
) -> dict[str, Any]:
    """Give a worker so many jobs, and return their outcomes."""
    kinds, root = directory / "kinds", directory / "root"
    kinds.mkdir()
    root.mkdir()
    jobs: dict[str, str] = {}
    for number in range(count):
        kind = choose.choice([*BADLY]) if number % 3 == 0 else choose.choice([*WELL])
        body = zip_of({"f": "content", "sub/g": "more"})
        job_id = aws.add_job([Input("App", body)], ["Built"], status="Queued")
        jobs[job_id] = kind
        (kinds / job_id).write_text(KINDS[kind])
    began = time.monotonic()
    environment = {**os.environ, **aws.environment, "KINDS": str(kinds)}
    environment.update(HOME=str(directory), PYTHON=sys.executable)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "cpstage", "work", "--category", "Build"),
            *("--provider", "CpstageLocal", "--version", "1", "--log-format", "json"),
            *("--poll-interval", "0.2", "--workspace-root", str(root), "--keep", "never"),
            *("--concurrency", str(concurrency), "--max-jobs", str(count)),
            *("--timeout", "8", "--kill-after", "1", "--health-port", "0"),
            *("--", "sh", "-c", BUILD),
        ],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    watched, events = Watched(), Counter[str]()
    ended = threading.Event()
    assert process.stderr is not None
    for line in process.stderr:
        event = json.loads(line) if line.startswith("{") else {"event": line.strip()}
        events[event["event"]] += 1
        if event["event"] == "health":
            watcher = threading.Thread(
                target=_watch, args=(process.pid, event["message"], root, watched, ended)
            )
            watcher.start()
    code = process.wait()
    ended.set()
    wrong = [
        f"{kind}: {status}"
        for job_id, kind in jobs.items()
        if (status := aws.job(job_id).status) != ("Succeeded" if kind in WELL else "Failed")
    ]
    return {
        "seconds": round(time.monotonic() - began),
        "exit_code": code,
        "kinds": Counter(jobs.values()),
        "events": events,
        "wrong": wrong,
        "left": [*map(str, root.iterdir()), *_processes(str(kinds))],
        "unwell": watched.unwell,
        "descriptors": _trend(watched.descriptors),
        "megabytes": _trend(watched.megabytes),
    }


def _watch(pid: int, url: str, root: Path, watched: Watched, ended: threading.Event) -> None:
    while not ended.wait(1.0):
        with suppress(OSError, IndexError):
            watched.descriptors.append(len(os.listdir(f"/proc/{pid}/fd")))
            used = subprocess.run(
                ["du", "-sk", str(root)], capture_output=True, text=True, check=False
            )
            watched.megabytes.append(int(used.stdout.split()[0]) / 1024)
            try:
                urllib.request.urlopen(url, timeout=5).close()
            except urllib.error.HTTPError as error:
                watched.unwell.append(json.load(error))


def _trend(values: list[Any]) -> dict[str, Any]:
    """Return the highest values of the first and of the last half."""
    half = len(values) // 2
    return {
        "first half": max(values[:half], default=0),
        "last half": max(values[half:], default=0),
    }


def _processes(mark: str) -> list[str]:
    """Kill and return the processes that still have a variable of the flood."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:80])
                os.kill(int(entry.name), signal.SIGKILL)
    return found


if __name__ == "__main__":
    sys.exit(main())
