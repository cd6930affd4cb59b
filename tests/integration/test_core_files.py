"""A process that crashes with a job's session in memory: no core file, and no secret in one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fault_plans import Rule
from fault_proxy import FaultProxy
from faults import Stall
from secret_markers import add_job, files_with_it, places, planted_aws, variables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from command_line import Cli
    from cpstage.local import LocalAWS

pytestmark = pytest.mark.e2e

UNLIMITED = ("sh", "-c", 'ulimit -c unlimited 2>/dev/null; exec "$@"', "sh")

START_A_BUILD = """
import subprocess
from cpstage._posix import make_no_core_file
make_no_core_file()
subprocess.run(["sh", "-c", "kill -ABRT $$"])
"""

FORK_A_CHILD = """
import os
from cpstage._posix import make_no_core_file
make_no_core_file()
pid = os.fork()
if not pid:
    os.abort()
print(os.WCOREDUMP(os.waitpid(pid, 0)[1]))
"""


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAWS]:
    with planted_aws() as running:
        yield running


def crash(running: subprocess.Popen[bytes], number: signal.Signals) -> bool:
    """Let a process crash, and tell whether the system says that it has dumped core."""
    running.send_signal(number)
    found = os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)
    running.communicate()
    assert found is not None
    assert running.returncode == -number
    return found.si_code == os.CLD_DUMPED


def require_core_files(directory: Path) -> None:
    """Skip a test where the system dumps no other process either."""
    with subprocess.Popen(
        [*UNLIMITED, "cat"], cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as control:
        assert control.stdin is not None
        assert control.stdout is not None
        control.stdin.write(b"x")
        control.stdin.flush()
        control.stdout.read(1)
        if not crash(control, signal.SIGABRT):
            pytest.skip(
                "this system dumps no core: see ulimit -c and /proc/sys/kernel/core_pattern"
            )


def core_files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("core*") if path.is_file()]


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGQUIT, signal.SIGSEGV])
@pytest.mark.parametrize("command", ["fetch", "push"])
def test_a_crash_with_a_session_leaves_no_core_file(
    aws: LocalAWS, cli: Cli, tmp_path: Path, command: str, number: signal.Signals
) -> None:
    (tmp_path / "control").mkdir()
    require_core_files(tmp_path / "control")
    job_id = add_job(aws)
    (cli.directory / "out/Built").mkdir(parents=True)
    (cli.directory / "out/Built/result").write_text("x")
    rule = Rule(Stall(None), when=lambda request: not request.is_json)
    with (
        FaultProxy(aws.endpoint_url, [rule]) as proxy,
        subprocess.Popen(
            [*UNLIMITED, sys.executable, "-m", "cpstage", command, job_id],
            cwd=cli.directory,
            env=variables(cli, {"AWS_ENDPOINT_URL": proxy.url}),
            stderr=subprocess.PIPE,
        ) as running,
    ):
        assert proxy.stalled.wait(60)
        dumped = crash(running, number)

    assert not dumped
    assert core_files(cli.directory) == []
    assert files_with_it(places(cli)) == []


def test_the_children_that_write_archives_leave_none_either(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "control").mkdir()
    require_core_files(tmp_path / "control")

    command = [*UNLIMITED, sys.executable, "-c", FORK_A_CHILD]
    done = subprocess.run(
        command, cwd=cli.directory, env=cli.environment, capture_output=True, text=True, timeout=60
    )

    assert done.stdout == "False\n", done.stderr
    assert core_files(cli.directory) == []


def test_what_a_command_starts_has_core_files_as_ever(cli: Cli) -> None:
    require_core_files(cli.directory)
    if not core_files(cli.directory):
        pytest.skip("this system puts core files elsewhere: see kernel.core_pattern")
    for file in core_files(cli.directory):
        file.unlink()

    command = [*UNLIMITED, sys.executable, "-c", START_A_BUILD]
    subprocess.run(command, cwd=cli.directory, env=cli.environment, timeout=60, check=True)

    assert core_files(cli.directory) != []
