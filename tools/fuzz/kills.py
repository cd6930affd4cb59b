"""Runs of jobs that are killed at any moment; each must leave a workspace that serves the next job.

    PYTHONPATH=tests/support python tools/fuzz/kills.py --kills 300

It fails if a job is reported as succeeded whose output is not what was built for it, if the next
run in the workspace fails or hangs, or if anything is left in ``.cpstage/`` after that run.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3

from cpstage.local import Input, LocalAWS
from samples import zip_of

BUILD = """
cp -r "$CPSTAGE_IN_APP" "$CPSTAGE_OUT_BUILT/app"
echo "$CPSTAGE_JOB_ID" > "$CPSTAGE_OUT_BUILT/id"
"""
LONGEST = 60.0
"""Seconds after which a run counts as one that hangs."""


def main() -> int:
    """Kill so many runs, and print their outcomes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--files", type=int, default=1200)
    parser.add_argument("--every", type=int, default=3, help="kills before a run that may end")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with LocalAWS() as aws, tempfile.TemporaryDirectory() as name:
        kills = Kills(aws, Path(name), given.files, random.Random(given.seed))
        for number in range(given.kills):
            kills.once(then_end=number % given.every == given.every - 1)
        kills.end()
    print(json.dumps(kills.report(), indent=2))
    return 1 if kills.wrong else 0


class Kills:
    """Runs in one workspace, and their outcomes.

    Args:
        aws: Where the jobs are.
        directory: Where the workspace is to be.
        files: How many files the input has.
        choose: When to kill.
    """

    def __init__(self, aws: LocalAWS, directory: Path, files: int, choose: random.Random) -> None:
        self._aws = aws
        self._workspace = directory / "w"
        self._environment = {**os.environ, **aws.environment, "HOME": str(directory)}
        self._s3 = boto3.client("s3", **_options(aws.admin_environment))
        self._choose = choose
        self._bodies = [
            zip_of({f"{letter}/{number}": letter for number in range(count)})
            for letter, count in (("a", files), ("b", 50), ("c", 50))
        ]
        self._counts = {"a": files, "b": 50, "c": 50}
        self._began = time.monotonic()
        self.seconds: list[float] = []
        self.ends: Counter[str] = Counter()
        self.entries: list[int] = []
        self.wrong: list[str] = []

    def once(self, *, then_end: bool) -> None:
        """Kill a run, and perhaps let the next one end."""
        longest = statistics.median(self.seconds or [1.5])
        job_id = self._add()
        process = self._start(job_id)
        with suppress(subprocess.TimeoutExpired):
            process.wait(self._choose.uniform(0, longest))
        process.kill()
        process.wait()
        status = self._aws.job(job_id).status
        self.ends[f"killed: {status}"] += 1
        if status == "Succeeded":
            self._check_output(job_id)
        elif status != "InProgress":
            self.wrong.append(f"a killed run was reported as {status}")
        if then_end:
            self._clean_run()

    def _clean_run(self) -> None:
        job_id = self._add()
        began = time.monotonic()
        process = self._start(job_id)
        try:
            _, said = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            process.kill()
            self.wrong.append("a run hangs")
            return
        self.seconds = [*self.seconds[-20:], time.monotonic() - began]
        status = self._aws.job(job_id).status
        self.ends[f"next: {status}"] += 1
        if (process.returncode, status) != (0, "Succeeded"):
            self.wrong.append(said.decode(errors="replace")[-300:])
            return
        self._check_output(job_id)
        left = [
            path.name
            for path in (self._workspace / ".cpstage").iterdir()
            if path.name not in ("lock", "run.lock", "job.json", "manifest.json")
            and (not path.is_dir() or any(path.iterdir()))
        ]
        if left:
            self.wrong.append(f"left in .cpstage: {left}")
        self.entries.append(sum(1 for _ in self._workspace.rglob("*")))

    def _add(self) -> str:
        body = self._choose.choice(self._bodies)
        return self._aws.add_job([Input("App", body)], ["Built"])

    def _start(self, job_id: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "cpstage", "run", job_id, "--report", "--replace"),
                *("--workspace", str(self._workspace), "--", "sh", "-c", BUILD),
            ],
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def _check_output(self, job_id: str) -> None:
        """Compare the output of a job that was reported as succeeded with what it had to be."""
        place = self._aws.job(job_id).outputs[0]
        body = self._s3.get_object(Bucket=place.bucket, Key=place.key)["Body"].read()
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            built = archive.read("id").decode().strip()
            letters = {name.split("/")[1] for name in archive.namelist() if name.count("/") == 2}
            files = sum(not name.endswith("/") for name in archive.namelist())
        is_whole = len(letters) == 1 and files == self._counts[next(iter(letters))] + 1
        if built != job_id or not is_whole:
            self.wrong.append(f"job {job_id} has the output of {built}: {letters}, {files} files")

    def end(self) -> None:
        """See that no process is left."""
        mark = str(self._workspace).encode()
        deadline = time.monotonic() + 10
        while left := [one for one in Path("/proc").glob("[0-9]*") if _has(one, mark)]:
            if time.monotonic() > deadline:
                for one in left:
                    with suppress(OSError, ValueError):
                        os.kill(int(one.name), signal.SIGKILL)
                self.wrong.append(f"{len(left)} processes are left")
                return
            time.sleep(0.1)

    def report(self) -> dict[str, Any]:
        """Return the figures."""
        half = len(self.entries) // 2
        return {
            "seconds": round(time.monotonic() - self._began),
            "ends": self.ends,
            "wrong": self.wrong,
            "entries": [max(self.entries[:half], default=0), max(self.entries[half:], default=0)],
        }


def _has(process: Path, mark: bytes) -> bool:
    try:
        return mark in (process / "cmdline").read_bytes()
    except OSError:
        return False


def _options(environment: Any) -> dict[str, Any]:
    return {
        "endpoint_url": environment["AWS_ENDPOINT_URL"],
        "region_name": environment["AWS_DEFAULT_REGION"],
        "aws_access_key_id": environment["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": environment["AWS_SECRET_ACCESS_KEY"],
    }


if __name__ == "__main__":
    sys.exit(main())
