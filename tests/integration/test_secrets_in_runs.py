"""No secret reaches a command or a report but those that were asked for, nor stays behind."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from constant_server import answering_server
from run_jobs import failure, shell
from secret_markers import (
    CANARY,
    add_job,
    files_with_it,
    is_in,
    keeps_quiet,
    leaks,
    open_to_others,
    places,
    planted_aws,
    variables,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from command_line import Cli
    from cpstage.local import LocalAWS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAWS]:
    with planted_aws() as running:
        yield running


def _run(
    cli: Cli, job_id: str, command: tuple[str, ...], *options: str, **others: str
) -> subprocess.CompletedProcess[str]:
    """Run a command with nothing to close its files but itself, and all said that can be."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "cpstage", "run", job_id, "--report", "--debug", "-v"),
            *(*options, "--", *command),
        ],
        cwd=cli.directory,
        env=variables(cli, others),
        capture_output=True,
        text=True,
        timeout=120,
        umask=0,
    )


def test_none_is_in_what_a_command_finds_around_it(aws: LocalAWS, cli: Cli) -> None:
    look = shell('env; tr "\\0" "\\n" < /proc/$$/cmdline; cp in/App/f "$CPSTAGE_OUT_BUILT"')
    tokens = {
        "CPSTAGE_CONTINUATION_TOKEN": CANARY,
        "AWS_BEARER_TOKEN_CODEPIPELINE": CANARY,
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": CANARY,
    }

    done = _run(cli, add_job(aws), look, "--report-tail", "5", **tokens)

    assert done.returncode == 0, done.stderr
    assert leaks(cli, done) == []


def test_those_that_were_asked_for_are_for_the_command_alone(aws: LocalAWS, cli: Cli) -> None:
    script = f"""
        find .cpstage/run -printf '%m %f\\n' | sort
        grep -rl {CANARY} . | sort
    """

    done = _run(cli, add_job(aws), shell(script), "--pass-configuration", "--if-empty", "ignore")

    assert done.stdout.splitlines() == [
        "600 configuration.json",
        "600 continuation-token",
        "600 next-continuation-token",
        "600 output-variables",
        "700 run",
        "./.cpstage/run/configuration.json",
        "./.cpstage/run/continuation-token",
    ]
    assert leaks(cli, done) == []
    assert open_to_others(cli.directory / ".cpstage") == []


def test_what_a_command_says_of_them_is_not_reported(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    tell = 'cat "$CPSTAGE_CONFIGURATION" "$CPSTAGE_CONTINUATION_TOKEN_FILE"; exit 1'

    done = _run(cli, job_id, shell(tell), "--pass-configuration", "--report-tail", "9")

    assert is_in(done.stdout)  # that is the command's own doing
    assert "********" in failure(aws, job_id)["message"]
    assert not is_in(json.dumps(failure(aws, job_id)))
    assert files_with_it(places(cli)) == []


@pytest.mark.parametrize("script", ["exit 3", "exec sleep 600", "kill -KILL $$"])
def test_nothing_stays_behind_a_command_that_fails(aws: LocalAWS, cli: Cli, script: str) -> None:
    options = ("--pass-configuration", "--timeout", "1", "--push-always")

    done = _run(cli, add_job(aws), shell(script), *options)

    assert done.returncode != 0
    assert leaks(cli, done) == []
    assert not (cli.directory / ".cpstage/run").exists()


_KILLS = {
    "the job's process": "kill -KILL $PPID",
    "the worker too": "kill -KILL $PPID $(awk '/^PPid/ {print $2}' /proc/$PPID/status)",
}


@pytest.mark.parametrize("script", _KILLS.values(), ids=_KILLS)
def test_nothing_stays_in_a_workspace_that_a_worker_keeps(
    aws: LocalAWS, cli: Cli, script: str
) -> None:
    job_id = add_job(aws, status="Queued")
    kind = ("--category", "Build", "--provider", "CpstageLocal", "--version", "1")
    command = ["work", *kind, "--once", "--pass-configuration", "--debug", "--", *shell(script)]
    done = [
        subprocess.run(
            [sys.executable, "-m", "cpstage", *command],
            cwd=cli.directory,
            env=variables(cli, {}),
            capture_output=True,
            text=True,
            timeout=120,
        )
        for _ in range(2)  # the second finds what the first has left
    ]

    assert (cli.directory / job_id / ".cpstage").is_dir()
    assert done[1].returncode == 0, done[1].stderr
    assert leaks(cli, done[0]) == leaks(cli, done[1]) == []


def test_an_answer_that_quotes_a_token_is_not_shown(aws: LocalAWS, cli: Cli) -> None:
    token = cli.directory / "token"
    token.write_text(CANARY * 2)
    quoting = json.dumps({"__type": "Echo", "message": f"no {CANARY * 2} here"}).encode()
    with answering_server(400, quoting) as url:
        said = keeps_quiet(
            cli,
            78,
            *("report", "success", add_job(aws), "--continuation-token-file", "token"),
            *("--retry-timeout", "0.1", "--endpoint-url", url),
            less=[token],
        )

    assert "********" in said


def test_credentials_are_in_what_they_are_printed_to_and_nowhere_else(
    aws: LocalAWS, cli: Cli
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cpstage", "credentials", add_job(aws), "--debug", "-v"],
        cwd=cli.directory,
        env=variables(cli, {}),
        capture_output=True,
        text=True,
    )

    assert leaks(cli, done) == ["stdout"]
    assert CANARY in json.loads(done.stdout)["SecretAccessKey"]
