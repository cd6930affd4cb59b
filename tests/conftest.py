"""Fixtures of all tests: a local AWS for each file of tests, and cpstage as a user runs it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from moto.core.utils import get_service_model

from botocore_files import read_once
from command_line import Cli, end_forks, plain_environment
from cpstage.local import LocalAWS
from secret_markers import descendants

if TYPE_CHECKING:
    from collections.abc import Iterator

# In the background of a script, or under nohup, signals are ignored; what is started here would
# inherit that, and cpstage leaves those alone that it finds ignored.
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)

# What is compiled is kept, also where PYTHONDONTWRITEBYTECODE is set (many containers set it):
# the tests start some hundred interpreters.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# The local AWS recognises requests by this model; botocore's clients change the one they share.
get_service_model("s3")
read_once()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One worker more than processors, for ``-n auto``: many tests wait for a retry."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests: no worker is left with them when all others have ended."""
    items.sort(key=lambda item: item.path.name != "test_release.py")


@pytest.fixture(autouse=True)
def _no_default_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """What boto3 keeps for a program that calls ``boto3.client``: the caller of another test."""
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


@pytest.fixture(scope="session", autouse=True)
def _no_forks_left() -> Iterator[None]:
    """What commands are forked off ends with the tests."""
    yield
    end_forks()


@pytest.fixture
def no_process_left() -> Iterator[None]:
    """A test leaves no child; there may be one of another test, such as multiprocessing's."""
    before = set(descendants(os.getpid()))
    yield
    assert set(descendants(os.getpid())) <= before


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
