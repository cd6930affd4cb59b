"""Builds that misbehave: what they cannot reach, and that the job is reported for what it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from run_jobs import BUILD, add_job, failure, puts, run, shell

if TYPE_CHECKING:
    from command_line import Cli
    from cpstage.local import LocalAWS

pytestmark = pytest.mark.e2e

_VARIABLES = '"$CPSTAGE_OUTPUT_VARIABLES"'
_TOKEN = '"$CPSTAGE_NEXT_CONTINUATION_TOKEN_FILE"'

_ELSEWHERE = {
    "a symlink": "ln -sf /proc/self/environ {}",
    "a symlink to a file": "ln -sf $PWD/in/App/f {}",
    "a hard link": "ln -f in/App/f {}",
    "a FIFO": "rm {0}; mkfifo {0}",
    "a directory": "rm {0}; mkdir {0}",
    "a socket": "rm {0}; python3 -c 'import socket, sys; s = socket.socket(socket.AF_UNIX); "
    "import os; os.chdir(os.path.dirname(sys.argv[1])); s.bind(os.path.basename(sys.argv[1]))' {0}",
    "a device": "ln -sf /dev/zero {}",
    "too long": "truncate -s 1500M {}",
    "NUL": "printf 'a=b\\000c' > {}",
    "an escape": "printf 'a=b\\033[31m' > {}",
}


@pytest.mark.parametrize("file", [_VARIABLES, _TOKEN])
@pytest.mark.parametrize("what", _ELSEWHERE)
def test_what_is_not_the_file_that_was_handed_out_fails_the_job(
    aws: LocalAWS, cli: Cli, what: str, file: str
) -> None:
    job_id = add_job(aws)

    done = run(
        cli, job_id, "--report", command=shell(f"{BUILD[2]}; {_ELSEWHERE[what].format(file)}")
    )

    assert done.returncode == 78, done.stderr
    details = failure(aws, job_id)
    assert details["type"] == "ConfigurationError"
    assert aws.environment["AWS_SECRET_ACCESS_KEY"] not in str(aws.job(job_id).result)
    assert puts(aws, job_id) == []


def test_a_file_that_was_replaced_by_a_rename_is_read(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    script = f"{BUILD[2]}; echo version=1 > {_VARIABLES}; sed -i s/1/2/ {_VARIABLES}"

    assert run(cli, job_id, "--report", command=shell(script)).returncode == 0
    assert (aws.job(job_id).result or {})["outputVariables"] == {"version": "2"}


@pytest.mark.parametrize(
    "name",
    [
        "AWS_SECRET_ACCESS_KEY",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_BEARER_TOKEN_BEDROCK",
    ],
)
@pytest.mark.parametrize("file", [_VARIABLES, _TOKEN])
def test_a_credential_is_never_published(aws: LocalAWS, cli: Cli, name: str, file: str) -> None:
    job_id = add_job(aws)
    value = aws.environment.get(name, "a-token-of-the-caller")
    script = f"{BUILD[2]}; echo 'x=<{value}>' > {file}"

    done = run(cli, job_id, "--report", command=shell(script), **{name: value})

    assert done.returncode == 78
    assert "the command left a credential" in done.stderr
    assert value not in str(aws.job(job_id).result)


@pytest.mark.parametrize(
    "script",
    [
        "rm -rf .cpstage",
        "rm .cpstage/run.lock",
        "mv .cpstage elsewhere",
        "rm -r .cpstage/run",
        f"rm {_VARIABLES}",
        "cp .cpstage/run.lock new; mv new .cpstage/run.lock",
    ],
)
@pytest.mark.parametrize("outputs", [["Built"], []])
def test_a_build_that_removes_our_state_has_failed(
    aws: LocalAWS, cli: Cli, script: str, outputs: list[str]
) -> None:
    job_id = add_job(aws, outputs=outputs)
    command = shell(f"{BUILD[2] if outputs else 'true'}; {script}")

    done = run(cli, job_id, "--report", command=command)

    assert done.returncode == 73, done.stderr
    assert failure(aws, job_id)["type"] == "ConfigurationError"
    assert puts(aws, job_id) == []


@pytest.mark.parametrize("name", ["manifest.json", "journal.json", "lock", "run.lock", "job.json"])
@pytest.mark.parametrize("make", ["rm -f {0}; mkfifo {0}", "ln -sf /dev/zero {0}"])
def test_a_special_file_in_our_state_does_not_hang_the_next_run(
    aws: LocalAWS, cli: Cli, name: str, make: str
) -> None:
    first, second = add_job(aws, outputs=[]), add_job(aws, outputs=[])
    run(cli, first, command=shell(make.format(f".cpstage/{name}")))

    done = run(cli, second, "--replace", command=("true",))

    assert done.returncode in {0, 73}, done.stderr


def test_a_real_time_signal_is_named_by_its_number(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)

    done = run(cli, job_id, "--report", command=shell("kill -37 $$"))

    assert done.returncode == 165
    assert "sh was ended by signal 37" in failure(aws, job_id)["message"]


def test_control_characters_are_taken_out_of_the_tail(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    script = r"printf '\033[31mred\033[0m\000 10%%\r20%%\r\n\033]0;title\007end\n'; exit 1"

    run(cli, job_id, "--report", "--report-tail", "5", command=shell(script))

    assert failure(aws, job_id)["message"].endswith("\nred 10%\n20%\nend")


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (("--summary", "x" * 2049), "Succeeded"),
        (("--summary", "🎉" * 1025), "Succeeded"),
        (("--summary", ""), "Succeeded"),
        (("--summary", " \n"), "Succeeded"),
        (
            ("--revision", "1", "--change-identifier", "1", "--revision-summary", "x" * 9999),
            "Succeeded",
        ),
        (("--external-execution-id", "x" * 1501), "Failed"),
        (("--external-execution-id", ""), "Failed"),
        (("--revision", "x" * 1501, "--change-identifier", "1"), "Failed"),
    ],
)
@pytest.mark.parametrize("way", ["run", "report"])
def test_no_text_leaves_a_job_open(
    aws: LocalAWS, cli: Cli, options: tuple[str, ...], status: str, way: str
) -> None:
    job_id = add_job(aws)

    if way == "run":
        done = run(cli, job_id, "--report", *options)
    else:
        done = cli("report", "success", job_id, *options)

    assert aws.job(job_id).status == status, done.stderr
    if status == "Failed":
        assert done.returncode == 78
        assert failure(aws, job_id)["type"] == "ConfigurationError"


@pytest.mark.parametrize("variable", ["a b=c", "name=a\x1b[0m", f"big={'x' * 122_880}"])
def test_output_variables_that_cannot_be_reported_fail_the_job(
    aws: LocalAWS, cli: Cli, variable: str
) -> None:
    job_id = add_job(aws)

    done = cli("report", "success", job_id, "--output-variable", variable)

    assert done.returncode == 78
    assert failure(aws, job_id)["type"] == "ConfigurationError"


@pytest.mark.parametrize("text", ["", "\n", "\x1b[0m\r\n"])
def test_an_empty_message_is_replaced(aws: LocalAWS, cli: Cli, text: str) -> None:
    job_id = add_job(aws)

    done = cli("report", "failure", job_id, "--message-file", "-", stdin=text)

    assert done.returncode == 0, done.stderr
    assert "warning: the message is empty" in done.stderr
    assert failure(aws, job_id)["message"] == "the job failed, and no message was given"


def test_a_signal_is_not_waited_for_in_vain(aws: LocalAWS, cli: Cli) -> None:
    """A FIFO in the place of the variables, past a time limit."""
    job_id = add_job(aws)
    script = f"rm {_VARIABLES}; mkfifo {_VARIABLES}; exec sleep 60"

    done = run(cli, job_id, "--report", "--timeout", "0.5", command=shell(script))

    assert done.returncode == 124


@pytest.mark.parametrize("start", ["sleep 60 &", "setsid sleep 60 &", "(sleep 60 & ) &"])
def test_processes_that_are_left_behind_are_named_or_killed(
    aws: LocalAWS, cli: Cli, start: str
) -> None:
    script = f"{start} {BUILD[2]}; cat /proc/self/stat > /dev/null"
    marked = f"exec >/dev/null 2>&1; {script}"

    named = run(cli, add_job(aws), "--report", command=shell(marked))
    assert named.returncode == 0, named.stderr
    assert "processes that it started still run: " in named.stderr
    pids = [int(pid) for pid in named.stderr.split("still run: ")[1].splitlines()[0].split(", ")]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)

    killed = run(cli, add_job(aws), "--kill-orphans", "--replace", command=shell(marked))
    assert killed.returncode == 0, killed.stderr
    pids = [int(pid) for pid in killed.stderr.split("were killed: ")[1].splitlines()[0].split(", ")]
    assert pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_build_without_children_has_no_warning(aws: LocalAWS, cli: Cli) -> None:
    done = run(cli, add_job(aws), command=shell(f"sleep 0 & wait; (true &); {BUILD[2]}"))

    assert "processes that it started" not in done.stderr


def test_an_exit_code_counts_also_where_the_caller_ignores_sigchld(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    prefix = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
    program = f"{prefix} os.execv(sys.executable, [sys.executable, '-m', 'cpstage', *sys.argv[1:]])"
    arguments = ["run", job_id, "--report", "--", *BUILD]

    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=cli.directory,
        env=dict(cli.environment),
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert aws.job(job_id).status == "Succeeded"


def test_a_script_whose_interpreter_is_missing_is_named(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    script = cli.directory / "build.sh"
    script.write_bytes(b"#!/bin/sh\r\necho\r\n")
    script.chmod(0o755)

    done = run(cli, job_id, "--report", command=("./build.sh",))

    assert done.returncode == 127
    message = failure(aws, job_id)["message"]
    assert (
        "its interpreter '/bin/sh\\r' does not exist: the script has Windows line endings"
        in message
    )


def test_a_script_without_an_interpreter_is_run_by_the_shell(aws: LocalAWS, cli: Cli) -> None:
    script = cli.directory / "build"
    script.write_text('cp in/App/f "$CPSTAGE_OUT_BUILT"; echo "$1"\n')
    script.chmod(0o755)

    done = run(cli, add_job(aws), "-q", command=("./build", "given"))
    assert (done.returncode, done.stdout) == (0, "given\n"), done.stderr

    path = f"{cli.directory}:{cli.environment['PATH']}"
    done = run(cli, add_job(aws), "-q", "--replace", command=("build", "given"), PATH=path)
    assert (done.returncode, done.stdout) == (0, "given\n"), done.stderr


def test_the_tail_keeps_the_order_of_both_streams(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    script = "for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done; exit 1"
    command = [sys.executable, "-m", "cpstage", "run", job_id, "--report", "--report-tail", "4"]

    subprocess.run(
        [*command, "-q", "--", "sh", "-c", script],
        cwd=cli.directory,
        env=dict(cli.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )

    assert failure(aws, job_id)["message"].endswith("\nout 4\nerr 4\nout 5\nerr 5")
