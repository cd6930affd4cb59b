"""The errors that everybody meets first: one line, the documented code, and what to do."""

from __future__ import annotations

import copy
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from pickle import dumps, loads
from typing import TYPE_CHECKING

import pytest

from aws_clients import s3
from constant_server import answering_server
from cpstage import errors
from cpstage.local import SESSION_ACTIONS, Input, LocalAWS, Output
from samples import zip_of
from trees import names

if TYPE_CHECKING:
    from collections.abc import Callable

    from command_line import Cli

pytestmark = pytest.mark.slow

BRIEFLY = ("--retry-timeout", "1")


def _job(aws: LocalAWS) -> str:
    return aws.add_job([Input("App", zip_of({"f": "x"}))], outputs=["Built"])


def _fails(done: subprocess.CompletedProcess[str], code: int, *says: str) -> None:
    lines = done.stderr.splitlines()
    assert done.returncode == code, done.stderr
    assert [line for line in lines if line.startswith("cpstage: error: ")] == lines[-1:]
    assert "Traceback" not in done.stderr
    for text in says:
        assert text in lines[-1]
    assert done.stdout == ""


def test_the_table_of_exit_codes() -> None:
    rows = {
        kind.__name__: (kind.exit_code, kind.failure_type)
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.Reportable)
    }

    assert rows == {
        "Reportable": (70, "SystemUnavailable"),
        "CpstageError": (70, "SystemUnavailable"),
        "UsageError": (2, "ConfigurationError"),
        "ArtifactRejected": (65, "JobFailed"),
        "NotFound": (66, "ConfigurationError"),
        "ObjectNotFound": (66, "RevisionUnavailable"),
        "ServiceUnavailable": (69, "SystemUnavailable"),
        "InternalError": (70, "SystemUnavailable"),
        "WorkspaceUnavailable": (73, "ConfigurationError"),
        "WorkspaceInUse": (73, "ConfigurationError"),
        "LocalIOError": (74, "SystemUnavailable"),
        "OutOfSync": (75, "RevisionOutOfSync"),
        "ObjectChanged": (75, "RevisionOutOfSync"),
        "AccessDenied": (77, "PermissionError"),
        "ConfigurationError": (78, "ConfigurationError"),
        "CommandFailed": (1, "JobFailed"),
        "CommandNotStarted": (127, "ConfigurationError"),
        "Stopped": (70, "JobFailed"),
    }


@pytest.mark.parametrize(
    "error",
    [
        errors.ObjectNotFound("no object", hint="release again"),
        errors.OutOfSync("changed"),
        errors.CommandNotStarted("cannot start make", 126),
        errors.Stopped(signal.SIGTERM, "SIGTERM"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda one: loads(dumps(one))])
def test_an_error_says_the_same_when_it_is_copied_or_pickled(
    error: errors.Reportable, way: Callable[[errors.Reportable], errors.Reportable]
) -> None:
    again = way(error)

    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert (again.args, again.exit_code) == (error.args, error.exit_code)
    assert errors.Stopped(signal.SIGTERM, "SIGTERM").exit_code == 143


def test_no_credentials(aws: LocalAWS, cli: Cli) -> None:
    without = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    _fails(cli("fetch", _job(aws), without=without), 77, "no AWS credentials", "AWS_PROFILE")


def test_no_region(aws: LocalAWS, cli: Cli) -> None:
    without = ("AWS_REGION", "AWS_DEFAULT_REGION")
    _fails(cli("fetch", _job(aws), without=without), 78, "no AWS region", "--region")


def test_no_such_profile(aws: LocalAWS, cli: Cli) -> None:
    _fails(cli("fetch", _job(aws), "--profile", "nobody"), 78, "nobody")


def test_the_wrong_region(aws: LocalAWS, cli: Cli) -> None:
    done = cli("fetch", _job(aws), "--region", "eu-west-3")
    _fails(done, 66, "in eu-west-3", "check the job id and the region")


def test_an_impossible_region(aws: LocalAWS, cli: Cli) -> None:
    _fails(cli("fetch", _job(aws), "--region", "no such region!"), 78, "no such region!")


@pytest.mark.parametrize("job_id", ["no-such-job", "f4f4ff82-2d11-EXAMPLE", "x" * 300])
def test_no_such_job(cli: Cli, job_id: str) -> None:
    _fails(cli("fetch", job_id), 66, job_id[:20], "JobNotFoundException")


def test_a_space_in_a_job_id_is_seen(cli: Cli) -> None:
    _fails(cli("show", "some-job "), 66, "cannot get job 'some-job ' in ")


def test_no_job_at_all(cli: Cli) -> None:
    _fails(cli("fetch"), 2, "CPSTAGE_JOB_ID", "--job-file")


def test_wrong_keys(aws: LocalAWS, cli: Cli) -> None:
    done = cli("fetch", _job(aws), AWS_SECRET_ACCESS_KEY="wrong")
    _fails(done, 77, "InvalidSignatureException", "check which identity")


def test_a_caller_without_the_permission(aws: LocalAWS, cli: Cli) -> None:
    stranger = aws.add_user("stranger", ["sts:GetCallerIdentity"])
    done = cli.with_variables(stranger)("fetch", _job(aws))
    _fails(done, 77, "AccessDeniedException", "codepipeline:GetJobDetails")


def test_an_unreachable_service(aws: LocalAWS, cli: Cli) -> None:
    done = cli("fetch", _job(aws), *BRIEFLY, "--endpoint-url", "http://127.0.0.1:1")
    _fails(done, 69, "Could not connect", "--endpoint-url")


def test_an_unreachable_s3(aws: LocalAWS, cli: Cli) -> None:
    done = cli("fetch", _job(aws), *BRIEFLY, AWS_ENDPOINT_URL_S3="http://127.0.0.1:1")
    _fails(done, 69, "artifact App", "Could not connect")


def test_an_endpoint_that_is_no_url(aws: LocalAWS, cli: Cli) -> None:
    _fails(cli("fetch", _job(aws), "--endpoint-url", "not a url"), 78, "--endpoint-url")


def test_no_such_object(aws: LocalAWS, cli: Cli) -> None:
    actions = SESSION_ACTIONS | {"s3:ListBucket"}
    job_id = aws.add_job([Input("App", None)], session_actions=actions)
    _fails(cli("fetch", job_id), 66, "artifact App at s3://", "NoSuchKey")
    assert names(cli.directory) == []


def test_a_missing_object_that_s3_calls_denied(aws: LocalAWS, cli: Cli) -> None:
    done = cli("fetch", aws.add_job([Input("App", None)]))
    _fails(done, 77, "artifact App at s3://", "a missing object is also reported as denied")


def test_denied_on_the_bucket(aws: LocalAWS, cli: Cli) -> None:
    actions = SESSION_ACTIONS - {"s3:GetObject"}
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))], session_actions=actions)
    _fails(cli("fetch", job_id), 77, "AccessDenied", "s3:GetObject")


def test_denied_on_the_key(aws: LocalAWS, cli: Cli) -> None:
    actions = SESSION_ACTIONS - {"kms:Decrypt"}
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))], session_actions=actions)
    _fails(cli("fetch", job_id), 77, "AccessDenied", "kms:Decrypt")


def test_denied_to_upload(aws: LocalAWS, cli: Cli) -> None:
    actions = SESSION_ACTIONS - {"s3:PutObject"}
    job_id = aws.add_job(outputs=["Built"], session_actions=actions)
    (cli.directory / "file").write_text("x")
    done = cli("push", job_id, "Built=file", "--progress", "none")
    _fails(done, 77, "artifact Built to s3://", aws.key_arn, "s3:PutObject")


def test_a_bucket_that_does_not_exist(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=[Output("Built", bucket="no-such-bucket-here")])
    (cli.directory / "file").write_text("x")
    done = cli("push", job_id, "Built=file", "--progress", "none")
    _fails(done, 78, "no-such-bucket-here", "NoSuchBucket", "artifact bucket does not exist")


def test_a_key_that_was_disabled(aws: LocalAWS, cli: Cli) -> None:
    from aws_clients import kms

    admin = kms(aws.admin_environment)
    key = admin.create_key()["KeyMetadata"]["Arn"]
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))], encryption_key=key)
    admin.disable_key(KeyId=key)
    _fails(cli("fetch", job_id), 77, "KMS.DisabledException", key)


@pytest.mark.parametrize("variable", ["AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_DEFAULTS_MODE"])
def test_a_malformed_setting(aws: LocalAWS, cli: Cli, variable: str) -> None:
    _fails(cli.with_variables({variable: "nonsense"})("fetch", _job(aws)), 78, "nonsense")


def test_a_port_that_is_none(aws: LocalAWS, cli: Cli) -> None:
    done = cli("fetch", _job(aws), "--endpoint-url", "http://127.0.0.1:99999")
    _fails(done, 78, "--endpoint-url")


def test_no_stdin_to_read_a_job_from(cli: Cli) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m cpstage show --job-file - <&-"],
        env=dict(cli.environment),
        capture_output=True,
        text=True,
    )
    _fails(done, 78, "stdin")


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "is not JSON"), ("[]", "holds no job"), ("\x00", "is not JSON"), ("[" * 9999, "JSON")],
)
def test_a_job_file_that_is_none(cli: Cli, text: str, says: str) -> None:
    (cli.directory / "job.json").write_text(text)
    _fails(cli("fetch", "--job-file", "job.json"), 78, says)


def test_a_job_file_that_is_not_there(cli: Cli) -> None:
    _fails(cli("fetch", "--job-file", "gone.json"), 78, "gone.json", "No such file")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fetch", "--no-such-option"], "--no-such-option"),
        (["no-such-command"], "'no-such-command'; 'cpstage --help' lists all"),
        (["ftech"], "did you mean 'fetch'?"),
        (["fetch", "--region"], "see 'cpstage fetch --help'"),
        (["local", "serve", "--port"], "see 'cpstage local serve --help'"),
        (["report", "success", "--summary"], "see 'cpstage report success --help'"),
        (["fetch", "id", "--max-size", "1X"], "'1X' is not a size"),
        (["fetch", "id", "--job-file", "x"], "both JOB_ID and --job-file"),
        (["push", "id", "--compression-level", "10"], "10"),
        (["fetch", "id", "--layout", "flat"], "flat"),
        (["fetch", "id", "--max-size", "0"], "--max-size"),
        (["fetch", ""], "JOB_ID is empty"),
        (["fetch", "--job-file", ""], "--job-file is empty"),
        (["fetch", "id", "--codebuild-env"], "--env-file"),
        (["fetch", "id", "--credentials-max-age", "nan"], "nan"),
        (["fetch", "id", "--wait", "nan"], "nan"),
        (["fetch", "id", "--wait=-1"], "-1"),
        (["local", "serve", "--region", "bad region"], "'bad region'"),
    ],
)
def test_usage(cli: Cli, arguments: list[str], says: str) -> None:
    _fails(cli(*arguments), 2, says)


def test_debug_shows_a_traceback_without_secrets(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(
        [Input("App", b"no archive", ".zip")], configuration={"Password": "canary-password"}
    )
    details = json.loads(cli("get-job-details", "--job-id", job_id, "--reveal-secrets").stdout)
    done = cli("fetch", job_id, "--debug")

    assert done.returncode == 65
    assert "Traceback" in done.stderr
    said = done.stdout + done.stderr
    secrets = [
        "canary-password",
        cli.environment["AWS_SECRET_ACCESS_KEY"],
        *details["jobDetails"]["data"]["artifactCredentials"].values(),
    ]
    assert not [secret for secret in secrets if secret in said]


def test_closed_streams_do_no_harm(aws: LocalAWS, cli: Cli) -> None:
    job_id = _job(aws)
    command = f"{sys.executable} -m cpstage fetch {job_id} 2>&-"
    quiet = subprocess.run(
        ["sh", "-c", command], cwd=cli.directory, env=dict(cli.environment), capture_output=True
    )
    failed = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m cpstage fetch nope 2>&-"],
        cwd=cli.directory,
        env=dict(cli.environment),
        capture_output=True,
    )

    assert quiet.returncode == 0
    assert (cli.directory / "in/App/f").read_text() == "x"
    assert failed.returncode == 66


def _by_shell(cli: Cli, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of sh as the user of the command line does."""
    return subprocess.run(
        ["sh", "-c", line],
        cwd=cli.directory,
        env=dict(cli.environment),
        capture_output=True,
        text=True,
    )


def test_what_a_command_prints_into_a_closed_stream_goes_nowhere(aws: LocalAWS, cli: Cli) -> None:
    """Nothing that cpstage opens takes its number: not the lock, and no connection to AWS."""
    job_id = aws.add_job()
    command = f"run {job_id} --report --report-tail 5 -- sh -c 'echo built'"
    done = _by_shell(cli, f"{sys.executable} -m cpstage {command} <&- >&-")

    assert done.returncode == 0, done.stderr
    assert (cli.directory / ".cpstage/run.lock").read_text() == ""


@pytest.mark.parametrize("kind", ["FIFO", "symlink"])
@pytest.mark.parametrize(
    "command",
    [
        "fetch JOB --env-file out",
        "get-job-details --job-id JOB --save out",
        "pack tree --output out --overwrite",
        "work --category Build --provider Mine --version 1 --once --health-file out -- true",
    ],
)
def test_only_a_regular_file_is_replaced(aws: LocalAWS, cli: Cli, command: str, kind: str) -> None:
    """Not /dev/null or /dev/stdout, which root could replace."""
    (cli.directory / "tree").mkdir()
    out = cli.directory / "out"
    os.mkfifo(out) if kind == "FIFO" else out.symlink_to("/dev/null")

    done = cli(*command.replace("JOB", _job(aws)).split())

    assert done.returncode == 73
    assert done.stderr == (
        "cpstage: error: out is not a regular file; give the name of a new file\n"
    )
    assert out.is_fifo() or out.is_symlink()
    assert not (cli.directory / "in").exists()


@pytest.mark.parametrize("limit", ["-f", "-n"])
def test_a_limit_of_the_shell_is_named(cli: Cli, limit: str) -> None:
    deep = cli.directory / "a/b/c/d/e/f/g"
    deep.mkdir(parents=True)
    (deep / "noise").write_bytes(os.urandom(1 << 20))
    assert cli("pack", "a", "--output", "a.zip").returncode == 0
    done = _by_shell(cli, f"ulimit {limit} 9; {sys.executable} -m cpstage unpack a.zip --into b")

    assert done.returncode == 74
    assert f"(ulimit {limit})" in done.stderr
    assert not (cli.directory / "b").exists()


@pytest.mark.parametrize(
    "command",
    [
        "show JOB",
        "get-job-details --job-id JOB",
        "cat JOB App f",
        "local serve",
        "--help",
        "--version",
        "local --help",
        "fetch --help",
    ],
)
def test_a_full_disk_behind_stdout(aws: LocalAWS, cli: Cli, command: str) -> None:
    words = command.replace("JOB", _job(aws)).split()
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cpstage", *words],
            env=dict(cli.environment),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )

    assert done.returncode == 74
    assert done.stderr.splitlines()[-1] == (
        "cpstage: error: cannot write to stdout: No space left on device"
    )


@pytest.mark.parametrize("command", ["show JOB", "--help", "fetch --help"])
def test_a_reader_that_went_away_is_no_error(aws: LocalAWS, cli: Cli, command: str) -> None:
    words = command.replace("JOB", _job(aws))
    script = f"{sys.executable} -m cpstage {words}; echo $? >code"
    with subprocess.Popen(
        ["sh", "-c", script],
        cwd=cli.directory,
        env=dict(cli.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        said = running.stderr.read()

    assert said == ""
    assert (cli.directory / "code").read_text().strip() == str(128 + signal.SIGPIPE)


def test_a_lost_stderr_does_not_stop_the_work(aws: LocalAWS, cli: Cli) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cpstage", "fetch", _job(aws), "--progress", "log"],
            cwd=cli.directory,
            env=dict(cli.environment),
            stdout=subprocess.PIPE,
            stderr=full,
        )

    assert done.returncode == 0
    assert (cli.directory / "in/App/f").read_text() == "x"


@pytest.mark.parametrize("command", [[], ["local"]])
def test_a_command_alone_shows_its_help(cli: Cli, command: list[str]) -> None:
    done = cli(*command)

    assert done.returncode == 2
    assert done.stderr.startswith("Usage: cpstage")
    assert {"Commands:", "Without an AWS account:"} & {*done.stderr.splitlines()}


def test_nohup_is_heeded(cli: Cli) -> None:
    """A process that ignores SIGHUP goes on ignoring it: it is ended by something else."""
    with subprocess.Popen(
        ["sh", "-c", f"trap '' HUP; exec {sys.executable} -m cpstage local serve --json"],
        env=dict(cli.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline()
        server.send_signal(signal.SIGHUP)
        server.send_signal(signal.SIGTERM)
        server.communicate()

    assert server.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("command", "empty"),
    [
        ("fetch JOB --workspace ''", "--workspace"),
        ("fetch JOB --env-file ''", "--env-file"),
        ("push JOB -w ''", "--workspace"),
        ("run JOB --cwd '' -- true", "--cwd"),
        (
            "work --category C --provider P --version 1 --workspace-root '' -- true",
            "--workspace-root",
        ),
        ("work --category C --provider P --version 1 --health-file '' -- true", "--health-file"),
        ("show --job-file ''", "--job-file"),
        ("ls --archive ''", "--archive"),
        ("diff --local a.zip ''", "--local"),
        ("get-job-details --job-id JOB --save ''", "--save"),
        ("pack '' --output a.zip", "DIRECTORY"),
        ("pack . --output ''", "--output"),
        ("unpack '' --into b", "ARCHIVE"),
        ("unpack a.zip --into ''", "--into"),
        ("local job ''", "DIRECTORY"),
    ],
)
def test_an_empty_path_is_not_the_current_directory(
    aws: LocalAWS, cli: Cli, command: str, empty: str
) -> None:
    """A script has it from a variable that is unset."""
    done = cli(*shlex.split(command.replace("JOB", _job(aws))))

    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        f"cpstage: error: {empty} is empty; is the variable that it comes from unset?\n"
    )
    assert names(cli.directory) == []


@pytest.mark.parametrize(
    ("command", "dash"),
    [
        ("pack src --output -", "--output"),
        ("pack - --output a.zip", "DIRECTORY"),
        ("unpack - --into b", "ARCHIVE"),
        ("unpack a.zip --into -", "--into"),
        ("fetch JOB --env-file -", "--env-file"),
        ("fetch JOB -w -", "--workspace"),
        ("ls --archive -", "--archive"),
        ("get-job-details --job-id JOB --save -", "--save"),
        ("work --category C --provider P --version 1 --health-file - -- true", "--health-file"),
    ],
)
def test_a_dash_is_not_the_name_of_a_file(aws: LocalAWS, cli: Cli, command: str, dash: str) -> None:
    """Other tools read stdin or write to stdout for it."""
    (cli.directory / "src").mkdir()

    done = cli(*shlex.split(command.replace("JOB", _job(aws))))

    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        f"cpstage: error: {dash} is '-', and takes neither stdin nor stdout; "
        "give a path, which is './-' for a file of that name\n"
    )
    assert names(cli.directory) == ["src"]
    assert cli("pack", "src", "--output", "./-").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_workspace_as_it_was(
    aws: LocalAWS, cli: Cli, number: signal.Signals
) -> None:
    """The signal comes while a large artifact is being read, as the first progress line tells."""
    job_id = aws.add_job([Input("App", zip_of({"noise": os.urandom(60 << 20)}))])
    with subprocess.Popen(
        [sys.executable, "-m", "cpstage", "fetch", job_id, "--progress", "bar"],
        cwd=cli.directory,
        env=dict(cli.environment),
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stderr is not None
        first = running.stderr.read(1)
        running.send_signal(number)
        said = first + running.stderr.read()

    assert running.returncode == 128 + number
    assert f"stopped by {number.name}".encode() in said
    assert names(cli.directory) == []
    staging = cli.directory / ".cpstage/staging"
    assert not staging.exists() or list(staging.iterdir()) == []


def test_an_upload_that_fails_leaves_no_parts(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Built"])
    source = cli.directory / "out/Built/growing"
    source.parent.mkdir(parents=True)
    source.write_bytes(os.urandom(1 << 20) * 240)  # far more than is in memory at a time
    with subprocess.Popen(
        [sys.executable, "-m", "cpstage", "push", job_id, "--progress", "none", "-v"],
        cwd=cli.directory,
        env=dict(cli.environment),
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stderr is not None
        lines = []
        for line in running.stderr:
            lines.append(line)
            if "UploadPart" in line:
                os.truncate(source, 1000)
    bucket = aws.job(job_id).outputs[0].bucket
    key = aws.job(job_id).outputs[0].key

    left = s3(aws.admin_environment).list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    assert running.returncode == 74, lines
    assert "growing changed its size while it was read" in lines[-1]
    assert [upload for upload in left if upload["Key"] == key] == []
    assert Path(source).stat().st_size == 1000


def test_a_token_that_the_service_quotes_is_not_shown(cli: Cli) -> None:
    """The service's own validation errors repeat the value that they complain of."""
    body = b'{"__type": "ValidationException", "message": "Value \'canary\' is bad"}'
    with answering_server(400, body) as url:
        command = ("show", "some-job", "--endpoint-url", url, "--debug")
        done = cli(*command, CPSTAGE_CLIENT_TOKEN="canary")

    assert done.returncode == 78
    assert "Value '********' is bad" in done.stderr
    assert "canary" not in done.stdout + done.stderr


@pytest.mark.parametrize("value", ["canary\nx", "canary\r\nEvil: 1", "canary\udc80", "a canary"])
def test_a_token_that_no_header_carries_is_not_shown(aws: LocalAWS, cli: Cli, value: str) -> None:
    done = cli("fetch", aws.add_job(), "--debug", AWS_SESSION_TOKEN=value)

    assert done.returncode == 77
    assert "stray line breaks" in done.stderr
    assert "canary" not in done.stdout + done.stderr
