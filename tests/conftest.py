"""What all tests share: a local AWS for each file of tests, and cpstage as a user runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest

import cpstage
from cpstage.local import LocalAWS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# In the background of a script, or under nohup, signals are ignored; what is started here would
# inherit that, and cpstage leaves those alone that it finds ignored.
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)


@dataclass(frozen=True)
class Cli:
    """Runs the command in a directory of its own, as the caller that the local AWS knows."""

    environment: Mapping[str, str]
    directory: Path

    def with_variables(self, variables: Mapping[str, str]) -> Cli:
        """The same with other variables."""
        return Cli({**self.environment, **variables}, self.directory)

    def __call__(
        self,
        *arguments: str,
        cwd: Path | None = None,
        stdin: str | None = None,
        without: tuple[str, ...] = (),
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        variables = {**self.environment, **environment}
        return subprocess.run(
            [sys.executable, "-m", "cpstage", *arguments],
            cwd=cwd or self.directory,
            env={name: value for name, value in variables.items() if name not in without},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def plain_environment(home: Path) -> dict[str, str]:
    """An environment without any AWS setting."""
    kept = ("PATH", "LANG", "TMPDIR", "VIRTUAL_ENV")
    variables = {name: os.environ[name] for name in kept if name in os.environ}
    source = str(Path(cpstage.__file__).parent.parent)
    return {
        **variables,
        "PYTHONPATH": source,
        "HOME": str(home),
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@pytest.fixture(autouse=True)
def _no_default_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """What boto3 keeps for a program that calls ``boto3.client``: the caller of another test."""
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAWS]:
    with LocalAWS() as running:
        yield running


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    directory = tmp_path / "workspace"
    directory.mkdir()
    return directory


@pytest.fixture
def cli(aws: LocalAWS, workspace: Path, tmp_path: Path) -> Cli:
    home = tmp_path / "home"
    home.mkdir()
    return Cli({**plain_environment(home), **aws.environment}, workspace)


@pytest.fixture
def user(cli: Cli, tmp_path: Path) -> Cli:
    """A user who has ``cpstage`` on the path, and a directory for temporary files."""
    command = tmp_path / "bin/cpstage"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m cpstage "$@"\n')
    command.chmod(0o755)
    (tmp_path / "tmp").mkdir()
    path = f"{command.parent}:{cli.environment['PATH']}"
    variables = {"PATH": path, "TMPDIR": str(tmp_path / "tmp"), "PYTHON": sys.executable}
    return Cli({**cli.environment, **variables}, cli.directory)
