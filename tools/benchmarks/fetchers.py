"""How each tool downloads an artifact and unpacks it.

The peers get the object's bucket and key as arguments; cpstage asks for the job first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Step
from benchmarks.peers import AWS_CLI_V2, Programs

if TYPE_CHECKING:
    from collections.abc import Callable

_BOTO3 = str(Path(__file__).with_name("boto3_transfer.py"))
INPUT = "Source"


@dataclass(frozen=True)
class Fetch:
    """One fetch: what is fetched, and the new directory that it goes into."""

    bucket: str
    key: str
    job_id: str
    directory: Path

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def archive(self) -> str:
        return str(self.directory / "artifact.zip")

    @property
    def tree(self) -> str:
        return str(self.directory / "tree")

    def step(self, name: str, *commands: list[str]) -> Step:
        return Step(name, commands, self.directory)


@dataclass(frozen=True)
class Fetcher:
    """One way to fetch.

    Attributes:
        name: For `--tools`.
        title: For tables.
        needs: Optional programs that the tool consists of.
        steps: Returns what is run.
        tree: Where in the directory the unpacked files are.
    """

    name: str
    title: str
    needs: frozenset[str]
    steps: Callable[[Programs, Fetch], list[Step]]
    tree: str = "tree"


def _cpstage(programs: Programs, fetch: Fetch) -> list[Step]:
    workspace = str(fetch.directory)
    command = [programs.cpstage, "-m", "cpstage", "fetch", fetch.job_id, "-w", workspace]
    return [fetch.step("cpstage", command)]


def _download_aws(aws: str, fetch: Fetch) -> Step:
    command = [aws, "s3", "cp", "--only-show-errors", fetch.url, fetch.archive]
    return fetch.step("download", command)


def _download_s5cmd(programs: Programs, fetch: Fetch) -> Step:
    command = [programs.s5cmd, "--log", "error", "cp", fetch.url, fetch.archive]
    return fetch.step("download", command)


def _unzip(fetch: Fetch) -> Step:
    return fetch.step("unpack", ["unzip", "-q", fetch.archive, "-d", fetch.tree])


def _aws_unzip(programs: Programs, fetch: Fetch) -> list[Step]:
    return [_download_aws(programs.aws, fetch), _unzip(fetch)]


def _aws2_unzip(programs: Programs, fetch: Fetch) -> list[Step]:
    return [_download_aws(programs.aws2, fetch), _unzip(fetch)]


def _s5cmd_unzip(programs: Programs, fetch: Fetch) -> list[Step]:
    return [_download_s5cmd(programs, fetch), _unzip(fetch)]


def _s5cmd_7z(programs: Programs, fetch: Fetch) -> list[Step]:
    unpack = ["7z", "x", "-y", "-bd", f"-o{fetch.tree}", fetch.archive]
    return [_download_s5cmd(programs, fetch), fetch.step("unpack", unpack)]


def _s5cmd_bsdtar(programs: Programs, fetch: Fetch) -> list[Step]:
    cat = [programs.s5cmd, "--log", "error", "cat", fetch.url]
    unpack = ["bsdtar", "-x", "-f", "-", "-C", fetch.tree]
    return [
        fetch.step("make directory", ["mkdir", fetch.tree]),
        fetch.step("download and unpack", cat, unpack),
    ]


def _boto3(programs: Programs, fetch: Fetch) -> list[Step]:
    command = [programs.boto3, _BOTO3, "fetch", fetch.bucket, fetch.key, fetch.tree]
    return [fetch.step("boto3", command)]


def _boto3_crt(programs: Programs, fetch: Fetch) -> list[Step]:
    command = [programs.boto3_crt, _BOTO3, "fetch", fetch.bucket, fetch.key, fetch.tree]
    return [fetch.step("boto3", [*command, "--crt"])]


FETCHERS = (
    Fetcher("cpstage", "cpstage fetch", frozenset(), _cpstage, f"in/{INPUT}"),
    Fetcher("aws-unzip", "aws v1 s3 cp, unzip", frozenset({"unzip"}), _aws_unzip),
    Fetcher("aws2-unzip", "aws v2 s3 cp, unzip", frozenset({"unzip", AWS_CLI_V2}), _aws2_unzip),
    Fetcher("s5cmd-unzip", "s5cmd cp, unzip", frozenset({"unzip"}), _s5cmd_unzip),
    Fetcher("s5cmd-7z", "s5cmd cp, 7z x", frozenset({"7z"}), _s5cmd_7z),
    Fetcher("s5cmd-bsdtar", "s5cmd cat into bsdtar", frozenset({"bsdtar"}), _s5cmd_bsdtar),
    Fetcher("boto3-zipfile", "boto3, zipfile", frozenset(), _boto3),
    Fetcher("crt-zipfile", "boto3 + awscrt, zipfile", frozenset(), _boto3_crt),
)
