"""``cpstage run``: fetch, a command, push, and what the command finds around it."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import cpstage
from cpstage import Details
from cpstage.errors import Stopped
from cpstage.local import Input, LocalAWS
from cpstage.runner.signals import Interrupts
from run_jobs import add_job, document, failure, puts, reports, run, shell
from samples import zip_of
from trees import names

if TYPE_CHECKING:
    from command_line import Cli


def test_fetches_runs_pushes_and_reports(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)

    done = run(cli, job_id, "--report", "--summary", "built", "--execution-id", "build-17")

    assert done.returncode == 0, done.stderr
    job = aws.job(job_id)
    assert (job.status, job.result) == (
        "Succeeded",
        {"executionDetails": {"summary": "built", "externalExecutionId": "build-17"}},
    )
    assert [call.status for call in puts(aws, job_id)] == [200]
    assert done.stdout == ""
    assert [line.split("\t")[0] for line in done.stderr.splitlines()] == [
        "staged",
        "output",
        "pushed",
        "reported",
    ]


def test_without_report_no_result_is_put(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)

    done = run(cli, job_id)

    assert done.returncode == 0, done.stderr
    assert aws.job(job_id).status == "InProgress"


def test_stdin_stdout_and_stderr_are_the_commands(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)

    done = run(
        cli,
        job_id,
        "-q",
        command=shell('tr a-z A-Z; echo aside >&2; cp in/App/f "$CPSTAGE_OUT_BUILT"'),
        stdin="spoken\n",
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "SPOKEN\n", "aside\n")


def test_what_is_said_does_not_have_to_be_read(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    command = shell('seq 100000; echo "$?" > seen; cp in/App/f "$CPSTAGE_OUT_BUILT"')

    done = run(cli, job_id, "-q", "--report", "--report-tail", "2", command=command)

    assert done.stdout.splitlines()[-1] == "100000"
    assert aws.job(job_id).status == "Succeeded"


@pytest.mark.parametrize(("option", "place"), [("App", "in/App"), ("in/App/sub", "in/App/sub")])
def test_the_command_runs_in_the_workspace_or_where_it_is_told(
    aws: LocalAWS, cli: Cli, option: str, place: str
) -> None:
    done = run(cli, add_job(aws, outputs=[]), "--cwd", option, command=("pwd",))

    assert Path(done.stdout.strip()) == (cli.directory / place).resolve()


def test_a_directory_that_is_not_there_is_told(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)

    done = run(cli, job_id, "--report", "--cwd", "Nowhere")

    assert done.returncode == 66
    assert "the working directory" in done.stderr.splitlines()[-1]
    assert failure(aws, job_id)["type"] == "ConfigurationError"


def test_the_command_has_the_variables_of_the_job_and_no_credential(
    aws: LocalAWS, cli: Cli, workspace: Path
) -> None:
    app = Input("App-1", zip_of({"f": "x"}))
    job_id = add_job(aws, inputs=[app], outputs=[], third_party=True)
    variables = {"CPSTAGE_CLIENT_TOKEN": str(aws.job(job_id).client_token), "MINE": "kept"}

    done = run(cli, job_id, "-q", "--codebuild-env", command=("env", "-0"), **variables)

    environment = dict(one.split("=", 1) for one in done.stdout.split("\0") if one)
    assert environment["CPSTAGE_IN_APP_1"] == str(workspace / "in/App-1")
    assert environment["CODEBUILD_SRC_DIR"] == str(workspace / "in/App-1")
    assert environment["CPSTAGE_JOB_ID"] == job_id
    assert environment["MINE"] == "kept"
    assert environment["AWS_REGION"] == aws.environment["AWS_REGION"]
    assert "CPSTAGE_CLIENT_TOKEN" not in environment
    assert "CPSTAGE_CONFIGURATION" not in environment
    assert "CPSTAGE_CONTINUATION_TOKEN_FILE" not in environment
    credentials = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    assert not credentials.intersection(environment)


def test_the_callers_own_credentials_are_passed_on_when_they_are_to_be(
    aws: LocalAWS, cli: Cli
) -> None:
    job_id = add_job(aws, outputs=[])

    done = run(cli, job_id, "-q", "--pass-credentials", command=("printenv", "AWS_ACCESS_KEY_ID"))

    assert done.stdout.strip() == aws.environment["AWS_ACCESS_KEY_ID"]


def test_the_configuration_is_a_file_for_the_command_alone(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws, outputs=[], configuration={"Password": "s3cret-s3cret"})
    look = 'stat -c "%a" "$CPSTAGE_CONFIGURATION" .cpstage/run; cat "$CPSTAGE_CONFIGURATION"'

    done = run(cli, job_id, "-q", "--pass-configuration", command=shell(look))

    mode, directory_mode, text = done.stdout.split("\n", 2)
    assert (mode, directory_mode) == ("600", "700")
    assert json.loads(text) == {"Password": "s3cret-s3cret"}
    assert not (cli.directory / ".cpstage/run").exists()


@pytest.mark.parametrize("tail", ["0", "5"])
def test_the_exit_code_is_the_commands_and_nothing_is_pushed(
    aws: LocalAWS, cli: Cli, tail: str
) -> None:
    job_id = add_job(aws)
    command = shell('cp in/App/f "$CPSTAGE_OUT_BUILT"; exit 3')

    done = run(cli, job_id, "--report", "--report-tail", tail, command=command)

    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == "cpstage: error: sh failed with exit code 3"
    assert puts(aws, job_id) == []
    assert failure(aws, job_id) == {"type": "JobFailed", "message": "sh failed with exit code 3"}


def test_a_failed_command_can_push_all_the_same(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    command = shell('cp in/App/f "$CPSTAGE_OUT_BUILT"; exit 3')

    done = run(cli, job_id, "--report", "--push-always", command=command)

    assert done.returncode == 3
    assert [call.status for call in puts(aws, job_id)] == [200]
    assert failure(aws, job_id)["message"] == "sh failed with exit code 3"


def test_a_failed_command_that_left_nothing_to_push_has_failed_itself(
    aws: LocalAWS, cli: Cli
) -> None:
    job_id = add_job(aws)

    done = run(cli, job_id, "--report", "--push-always", command=shell("exit 3"))

    assert done.returncode == 3
    assert "warning: the outputs are not pushed" in done.stderr
    assert failure(aws, job_id)["message"] == "sh failed with exit code 3"


def test_a_command_ended_by_a_signal_is_told_as_a_shell_would(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)

    done = run(cli, job_id, "--report", command=shell("kill -USR1 $$"))

    assert done.returncode == 128 + 10
    assert failure(aws, job_id) == {"type": "JobFailed", "message": "sh was ended by SIGUSR1"}


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [("no-such-command", None, 127), ("./plain", "text", 126), ("./bad", "#!/no/such\n", 127)],
)
def test_a_command_that_cannot_be_started(
    aws: LocalAWS, cli: Cli, name: str, content: str | None, code: int
) -> None:
    job_id = add_job(aws)
    if content is not None:
        (cli.directory / name).write_text(content)
        (cli.directory / name).chmod(0o755 if name == "./bad" else 0o644)

    done = run(cli, job_id, "--report", command=(name,))

    assert done.returncode == code
    assert f"cannot start {name}: " in done.stderr.splitlines()[-1]
    assert failure(aws, job_id)["type"] == "ConfigurationError"


def test_a_command_that_takes_too_long_is_asked_to_end(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    command = shell("trap 'echo bye; exit 0' TERM; while :; do sleep 0.1; done")

    done = run(cli, job_id, "--report", "--timeout", "0.5", command=command)

    assert (done.returncode, done.stdout) == (124, "bye\n")
    assert failure(aws, job_id) == {
        "type": "JobFailed",
        "message": "sh took longer than it may; see --timeout",
    }


def test_a_command_that_does_not_end_is_killed_with_all_its_children(
    aws: LocalAWS, cli: Cli
) -> None:
    job_id = add_job(aws)
    command = shell("trap '' TERM; sh -c 'echo $$; exec sleep 600' & wait; wait")

    done = run(cli, job_id, "--report", "--timeout", "0.5", "--kill-after", "0.2", command=command)

    assert done.returncode == 124
    child = Path("/proc", done.stdout.strip())
    # It is nobody's to wait for, so init may not have done so yet.
    assert not child.exists() or "(zombie)" in (child / "status").read_text()


def test_the_last_lines_are_reported_and_passed_on(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws, configuration={"Password": "s3cret-s3cret"})
    said = "".join(f"line {number}\n" for number in range(100)) + "the s3cret-s3cret\nlast"

    done = run(
        cli,
        job_id,
        *("-q", "--report", "--report-tail", "4"),
        command=shell(f"printf '{said}'; exit 1"),
    )

    assert done.stdout == said
    assert failure(aws, job_id)["message"] == (
        "sh failed with exit code 1\nline 98\nline 99\nthe ********\nlast"
    )


def test_of_a_long_message_the_end_is_kept(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    command = shell("yes 0123456789 | head -2000; echo the end; exit 1")

    run(cli, job_id, "--report", "--report-tail", "1000", command=command)

    message = failure(aws, job_id)["message"]
    assert len(message) == 5000
    assert message.startswith("sh failed with exit code 1\n")
    assert message.endswith("0123456789\nthe end")


def test_a_process_that_the_command_leaves_behind_is_not_waited_for(
    aws: LocalAWS, cli: Cli
) -> None:
    job_id = add_job(aws, outputs=[])
    # It keeps the pipe of the command open; that of this test is not its own.
    command = shell("sleep 600 & echo $!")

    done = run(cli, job_id, "-q", "--report", "--report-tail", "5", command=command)

    os.kill(int(done.stdout), 9)
    assert aws.job(job_id).status == "Succeeded"


def test_output_variables_are_reported(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws, outputs=[])
    script = """
        echo 'version=1.2' >> "$CPSTAGE_OUTPUT_VARIABLES"
        echo 'empty=' >> "$CPSTAGE_OUTPUT_VARIABLES"
        echo 'text="two\\nlines"' >> "$CPSTAGE_OUTPUT_VARIABLES"
        echo 'version=1.3' >> "$CPSTAGE_OUTPUT_VARIABLES"
    """

    done = run(cli, job_id, "--report", "--json", command=shell(script))

    assert aws.job(job_id).result == {
        "outputVariables": {"version": "1.3", "empty": "", "text": "two\nlines"}
    }
    assert document(done)["output_variables"] == ["version", "empty", "text"]


@pytest.mark.parametrize(
    ("left", "words"),
    [
        ("no equals sign", "line 1"),
        ("a.b=c", "'a.b' cannot be an output variable"),
        ("a=$(yes | head -c 130000 | tr -d '\\n')$(yes | head -c 130000 | tr -d '\\n')", "122,880"),
    ],
)
def test_output_variables_that_cannot_be_reported_are_a_failure_before_anything_is_pushed(
    aws: LocalAWS, cli: Cli, left: str, words: str
) -> None:
    job_id = add_job(aws)
    script = f'cp in/App/f "$CPSTAGE_OUT_BUILT"; echo "{left}" > "$CPSTAGE_OUTPUT_VARIABLES"'

    done = run(cli, job_id, "--report", command=shell(script))

    assert done.returncode == 78
    assert puts(aws, job_id) == []
    details = failure(aws, job_id)
    assert details["type"] == "ConfigurationError"
    assert words in details["message"]


def test_one_json_document_tells_it_all_and_stdout_has_nothing_else(
    aws: LocalAWS, cli: Cli
) -> None:
    job_id = add_job(aws)
    command = shell('echo said; cp in/App/f "$CPSTAGE_OUT_BUILT"')

    done = run(cli, job_id, "--json", "--report", command=command)

    found = document(done)
    assert "said" in done.stderr.splitlines()
    assert found["fetch"]["inputs"][0]["status"] == "staged"
    assert found["command"]["argv"] == list(command)
    assert (found["command"]["exit_code"], found["error"]) == (0, None)
    assert found["push"]["outputs"][0]["status"] == "pushed"
    assert found["report"]["result"] == "success"


def test_the_document_tells_of_failures_too(aws: LocalAWS, cli: Cli) -> None:
    done = run(cli, add_job(aws), "--json", command=shell("exit 3"))

    found = document(done)
    assert (done.returncode, found["command"]["exit_code"]) == (3, 3)
    assert (found["push"], found["report"]) == (None, None)
    assert found["error"] == {
        "exit_code": 3,
        "failure_type": "JobFailed",
        "message": "sh failed with exit code 3",
    }


def test_outputs_of_other_places(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)

    done = run(cli, job_id, "--output-path", "Built=in/App/sub", command=("true",))

    assert done.returncode == 0, done.stderr
    assert "pushed\tin/App/sub\t" in done.stderr


def test_the_job_may_be_in_a_variable(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws, outputs=[])

    done = cli("run", "-q", "--", "echo", "--report", CPSTAGE_JOB_ID=job_id)

    assert (done.returncode, done.stdout) == (0, "--report\n")


def test_what_is_to_be_reported_needs_report(cli: Cli) -> None:
    done = cli("run", "some-job", "--summary", "built", "--", "true")

    assert done.returncode == 2
    assert done.stderr.endswith("give --report\n")


def test_without_a_command_it_says_where_to_put_it(cli: Cli) -> None:
    done = cli("run", "some-job", "--report")

    assert done.returncode == 2
    assert done.stderr == "cpstage: error: no command is given; give it after --\n"


def test_a_second_run_in_a_workspace_is_refused_while_the_command_of_the_first_runs(
    aws: LocalAWS, cli: Cli
) -> None:
    job_id = add_job(aws, outputs=[])
    again = f'"$PYTHON" -m cpstage run {job_id} -q --report -- true'

    done = run(cli, job_id, "-q", "--pass-credentials", command=shell(again), PYTHON=sys.executable)

    assert done.returncode == 73
    assert "is in use by process" in done.stderr
    assert aws.job(job_id).status == "InProgress"  # its result is the first run's to put


def test_a_saved_document_from_stdin(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    saved = cli("get-job-details", "--job-id", job_id, "--reveal-secrets").stdout

    done = cli("run", "--job-file", "-", "--report", "--", "sh", "-c", "cat; exit 4", stdin=saved)

    assert (done.returncode, done.stdout) == (4, "")
    assert reports(aws, job_id) == ["PutJobFailureResult"]


def test_a_third_party_job(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws, third_party=True)
    token = aws.job(job_id).client_token
    assert token

    done = run(cli, job_id, "--report", CPSTAGE_CLIENT_TOKEN=token)

    assert done.returncode == 0, done.stderr
    assert reports(aws, job_id) == ["PutThirdPartyJobSuccessResult"]
    assert aws.job(job_id).status == "Succeeded"


def test_what_a_killed_run_left_for_its_command_is_removed_by_the_next(
    aws: LocalAWS, cli: Cli
) -> None:
    stale = cli.directory / ".cpstage/run/configuration.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("secret")

    done = run(cli, add_job(aws))

    assert done.returncode == 0, done.stderr
    assert "run" not in names(cli.directory / ".cpstage")
    assert stat.S_IMODE((cli.directory / ".cpstage").stat().st_mode) == 0o700


def test_a_run_in_another_thread_is_stopped_by_its_caller(
    aws: LocalAWS, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = add_job(aws)
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    os.mkfifo(workspace / "fifo")
    interrupts = Interrupts()
    command = shell("echo > fifo; exec sleep 600")

    with ThreadPoolExecutor() as pool:
        running = pool.submit(
            cpstage.run, job_id, command, workspace, report=Details(), interrupts=interrupts
        )
        (workspace / "fifo").read_text()
        interrupts.receive(signal.SIGTERM)
        result = running.result(60)

    assert isinstance(result.error, Stopped)
    assert failure(aws, job_id)["message"] == "stopped by SIGTERM"


def test_runs_at_once_in_one_program_leave_each_other_alone(
    aws: LocalAWS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    places = [tmp_path / "first", tmp_path / "second"]
    warnings: list[str] = []
    options = cpstage.CommandOptions(kill_orphans=True)

    with ThreadPoolExecutor() as pool:
        running = []
        for place in places:
            place.mkdir()
            os.mkfifo(place / "begun")
            os.mkfifo(place / "end")
            command = shell("echo > begun; read x < end; exit 3")
            run_one = partial(cpstage.run, command_options=options, warn=warnings.append)
            running.append(pool.submit(run_one, add_job(aws), command, place))
            (place / "begun").read_text()
        codes = []
        for place, one in zip(places, running, strict=True):
            (place / "end").write_text("now\n")
            done = one.result(60).command
            codes.append(done.exit_code if done else None)

    assert (codes, warnings) == ([3, 3], [])


def test_what_botocore_starts_is_not_taken_for_an_orphan() -> None:
    program = """
import subprocess
from cpstage.runner.signals import Orphans, adopt_orphans
adopt_orphans()
orphans = Orphans.from_now_on()
ours = subprocess.Popen(["sh", "-c", "exit 7"], stdout=subprocess.PIPE)
ours.stdout.read()
theirs = subprocess.Popen(["sh", "-c", "sleep 600 & echo $!"], stdout=-1, start_new_session=True)
left = int(theirs.stdout.readline())
theirs.wait()
assert orphans.settled(theirs.pid) == [left]
orphans.kill(theirs.pid)
orphans.reap(None)
assert ours.wait() == 7
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_advice_for_an_empty_output_works(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Built"])
    (cli.directory / "results").mkdir()
    (cli.directory / "results/f").write_text("x")

    done = cli("run", job_id, "--", "true")
    advised = cli("run", job_id, "--output-path", "Built=results", "--", "true")

    assert done.returncode == 66
    assert "cpstage run: --output-path Built=PATH" in done.stderr
    assert advised.returncode == 0, advised.stderr
