"""No secret turns up anywhere but where it was asked for, in whatever commands say and write.

Commands say all that they can; the search is in what they print, and in every file they could have
written.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from command_line import Cli
from constant_server import answering_server
from samples import zip_of
from secret_markers import (
    CALLERS_KEYS,
    CANARY,
    add_job,
    descendants,
    files_with_it,
    is_in,
    keeps_quiet,
    leaks,
    noisy,
    open_to_others,
    places,
    planted,
    planted_aws,
    revealed,
    run,
    variables,
    write_result,
)
from stalled_server import stalling_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cpstage.local import LocalAWS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAWS]:
    with planted_aws() as running:
        yield running


# What goes right


def test_the_search_finds_what_is_revealed(aws: LocalAWS, cli: Cli) -> None:
    done = run(cli, "get-job-details", "--job-id", add_job(aws), "--reveal-secrets")
    (cli.directory / "job.json").write_text(done.stdout)

    assert leaks(cli, done) == ["stdout", "workspace/job.json"]
    data = json.loads(done.stdout)["jobDetails"]["data"]
    credentials = data["artifactCredentials"]
    secrets = [
        credentials["secretAccessKey"],
        credentials["sessionToken"],
        data["continuationToken"],
        *data["actionConfiguration"]["configuration"].values(),
    ]
    assert all(CANARY in secret for secret in secrets)


def test_the_whole_way_says_no_secret(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)

    keeps_quiet(cli, 0, "show", job_id)
    keeps_quiet(cli, 0, "show", job_id, "--json")
    keeps_quiet(cli, 0, "get-job-details", "--job-id", job_id)
    keeps_quiet(cli, 0, "fetch", job_id, "--dry-run")
    keeps_quiet(cli, 0, "fetch", job_id, "--env-file", "job.env", "--codebuild-env", "--json")
    for command in (["doctor"], ["ls", "--json"], ["diff"]):
        keeps_quiet(cli, 0, *command, job_id)
    keeps_quiet(cli, 0, "cat", job_id, "App", "f")
    write_result(cli)
    keeps_quiet(cli, 0, "push", job_id, "--dry-run")
    keeps_quiet(cli, 0, "push", job_id, "--json")

    assert (cli.directory / "in/App/f").read_text() == "x"
    assert open_to_others(cli.directory / ".cpstage") == []
    assert (cli.directory / "job.env").stat().st_mode & 0o777 == 0o600
    assert list((places(cli) / "tmp").iterdir()) == []


@pytest.mark.parametrize("stdin", [False, True], ids=["file", "stdin"])
def test_a_saved_document_gives_no_secret_away(aws: LocalAWS, cli: Cli, stdin: bool) -> None:
    saved = places(cli) / "job.json"
    saved.write_text(revealed(aws, add_job(aws)))

    name, text = ("-", saved.read_text()) if stdin else (str(saved), None)
    for command in ("show", "fetch"):
        done = run(cli, command, "--job-file", name, stdin=text, without=CALLERS_KEYS)
        assert done.returncode == 0, done.stderr
        assert leaks(cli, done, less=[saved]) == []


def test_the_token_of_a_third_party_job_is_not_said(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws, third_party=True)
    token = aws.job(job_id).client_token
    assert token is not None
    write_result(cli)

    for done in (
        run(cli, "show", job_id, CPSTAGE_CLIENT_TOKEN=token),
        run(cli, "fetch", job_id, "--client-token", token, "--env-file", "job.env"),
        run(cli, "push", job_id, "--json", CPSTAGE_CLIENT_TOKEN=token),
        run(cli, "get-job-details", "--job-id", job_id, "--client-token", token),
    ):
        assert done.returncode == 0, done.stderr
        assert leaks(cli, done, others=[token]) == []


def test_sealing_and_opening_says_no_secret(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    write_result(cli)
    keeps_quiet(cli, 0, "push", job_id, "--encrypt")
    admin = Cli({**cli.environment, **aws.admin_environment}, cli.directory)
    keeps_quiet(
        admin, 0, "pack", "out", "--output", "a.zip", "--encrypt", "--encrypt-key", aws.key_arn
    )
    keeps_quiet(admin, 0, "unpack", "a.zip", "--into", "there", "--decrypt-key", aws.key_arn)

    keeps_quiet(cli, 77, "unpack", "a.zip", "--into", "here", "--decrypt-key", aws.key_arn)


def test_renewing_a_session_says_no_secret(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    saved = places(cli) / "job.json"
    saved.write_text(revealed(aws, job_id))
    aws.expire_sessions(job_id)

    keeps_quiet(cli, 0, "fetch", "--job-file", str(saved), less=[saved])

    assert aws.job(job_id).sessions == 2


# The caller's own credentials


@pytest.mark.parametrize("where", ["default", "profile", "process"])
def test_the_callers_credentials_may_lie_in_a_file(aws: LocalAWS, cli: Cli, where: str) -> None:
    key, secret = (aws.environment[name] for name in CALLERS_KEYS)
    place = Path(cli.environment["HOME"]) / ".aws"
    place.mkdir()
    file, lines = place / "credentials", f"aws_access_key_id={key}\naws_secret_access_key={secret}"
    if where == "process":
        answer = {"Version": 1, "AccessKeyId": key, "SecretAccessKey": secret}
        (place / "answer").write_text(json.dumps(answer))
        file, lines = place / "config", f"credential_process = cat {place / 'answer'}"
    file.write_text(f"[{'other' if where == 'profile' else 'default'}]\n{lines}\n")

    profile = ["--profile", "other"] if where == "profile" else []
    done = run(cli, "fetch", add_job(aws), *profile, without=CALLERS_KEYS)

    assert done.returncode == 0, done.stderr
    assert leaks(cli, done, less=[file, place / "answer"]) == []


def test_the_callers_session_token_is_not_said(aws: LocalAWS, cli: Cli) -> None:
    with answering_server(200, revealed(aws, add_job(aws)).encode()) as url:
        caller = cli.with_variables({"AWS_SESSION_TOKEN": planted(200)})
        there = caller.with_variables({"AWS_ENDPOINT_URL_CODEPIPELINE": url})
        keeps_quiet(there, 0, "fetch", "x")
    keeps_quiet(caller, 77, "show", "x")


DAMAGED = {
    "no equals sign": f"[default]\naws_secret_access_key {planted(40)}\n",
    "no section": f"aws_secret_access_key = {planted(40)}\n",
    "twice": f"[default]\naws_secret_access_key = {planted(40)}\n" * 2,
    "a half": f"[default]\naws_secret_access_key = {planted(40)}\naws_access_key_id =\n",
    "a line break": f"[default]\naws_secret_access_key = {planted(40)}\n {planted(40)}\n",
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_of_credentials_is_not_quoted(cli: Cli, text: str) -> None:
    file = Path(cli.environment["HOME"]) / ".aws" / "credentials"
    file.parent.mkdir()
    file.write_text(text)

    done = run(cli, "show", "x", without=CALLERS_KEYS)

    assert done.returncode in {77, 78}
    assert leaks(cli, done, less=[file]) == []


@pytest.mark.parametrize("variable", ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
@pytest.mark.parametrize("rest", ["\nx", "\rX: y", "é", "\x01"], ids=ascii)
def test_credentials_that_are_not_text_are_not_quoted(cli: Cli, variable: str, rest: str) -> None:
    done = run(cli, "show", "x", **{variable: planted(40) + rest + planted(20)})

    assert done.returncode in {69, 77}
    assert leaks(cli, done) == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_password_of_a_proxy_is_not_said(cli: Cli, scheme: str) -> None:
    proxy = f"{scheme}://me:{planted(20)}@127.0.0.1:1"

    behind = cli.with_variables({"HTTP_PROXY": proxy, "NO_PROXY": ""})
    said = keeps_quiet(behind, 69, "fetch", "x", "--retry-timeout", "1")

    assert "127.0.0.1:1" in said


# While it runs


@pytest.mark.parametrize(
    ("service", "command", "number"),
    [
        ("CODEPIPELINE", "show", signal.SIGTERM),
        ("S3", "fetch", signal.SIGTERM),
        ("S3", "fetch", signal.SIGKILL),
        ("S3", "push", signal.SIGINT),
        ("S3", "push", signal.SIGKILL),
    ],
)
def test_a_command_in_the_middle_has_its_secrets_in_memory_alone(
    aws: LocalAWS, cli: Cli, service: str, command: str, number: signal.Signals
) -> None:
    job_id = add_job(aws, third_party=True)
    token = aws.job(job_id).client_token or ""
    write_result(cli)
    with (
        stalling_server() as server,
        subprocess.Popen(
            noisy(command, job_id),
            cwd=cli.directory,
            env=variables(
                cli,
                {f"AWS_ENDPOINT_URL_{service}": server.url, "CPSTAGE_CLIENT_TOKEN": token},
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            umask=0,
        ) as running,
    ):
        assert server.stalled.wait(60)
        seen = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in descendants(running.pid)]
        written = files_with_it(places(cli), [token])
        exposed = open_to_others(cli.directory / ".cpstage") if command == "fetch" else []
        running.send_signal(number)
        said, complained = running.communicate(timeout=60)

    done = subprocess.CompletedProcess([], running.returncode, said, complained)
    assert running.returncode in {128 + number, -number}
    assert not [line for line in seen if is_in(line, [token])]
    assert written == []
    # What an archive holds is as open as it was in there, below a directory that is closed.
    assert [line for line in exposed if not line.startswith("staging/")] == []
    assert leaks(cli, done, [token]) == []


AUDIT = """
import os, sys
STARTED = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.putenv")
def note(event, arguments):
    if event in STARTED:
        line = f"{event} {arguments!r}".encode(errors="backslashreplace") + b"\\n"
        os.write(audit, line)
audit = os.open(os.environ.pop("AUDIT_FILE"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
sys.addaudithook(note)
"""


@pytest.fixture
def audited(cli: Cli, tmp_path: Path) -> tuple[Cli, Path]:
    """Runs commands that note each program that they start, and each variable that they set."""
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(AUDIT)
    path = f"{hook}{os.pathsep}{cli.environment['PYTHONPATH']}"
    log = tmp_path / "audit"
    return cli.with_variables({"PYTHONPATH": path, "AUDIT_FILE": str(log)}), log


def test_commands_start_no_program_and_set_no_variable(
    aws: LocalAWS, audited: tuple[Cli, Path]
) -> None:
    """Children that only fork have the memory and the variables of their parent anyway."""
    cli, log = audited
    job_id = add_job(aws, zip_of({f"{number}": "x" for number in range(1200)}))

    keeps_quiet(cli, 0, "fetch", job_id)
    write_result(cli)
    keeps_quiet(cli, 0, "push", job_id)

    assert log.read_text() == ""


def test_the_build_of_the_demo_is_given_no_credential(audited: tuple[Cli, Path]) -> None:
    cli, log = audited
    secrets = {"AWS_SECRET_ACCESS_KEY": planted(40), "AWS_SESSION_TOKEN": planted(40)}

    keeps_quiet(cli.with_variables(secrets), 0, "demo", less=[log])

    builds = [line for line in log.read_text().splitlines() if "build.sh" in line]
    assert builds
    assert "CPSTAGE_WORKSPACE" in builds[0]
    assert not is_in("".join(builds))
    assert "AWS_" not in "".join(builds)


def test_the_log_of_botocore_stays_off(aws: LocalAWS, cli: Cli) -> None:
    """It holds the headers of requests, and the documents of answers."""
    levels = (
        "import atexit, logging, sys\n"
        "def level(name): return logging.getLogger(name).getEffectiveLevel()\n"
        "names = ('', 'botocore', 'boto3', 'urllib3', 's3transfer')\n"
        "atexit.register(lambda: print(min(map(level, names))))\n"
        "from cpstage.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    command = noisy("show", add_job(aws), "-vv")
    command[1:3] = ["-c", levels]

    done = subprocess.run(
        command, env=dict(cli.environment), capture_output=True, text=True, check=True, timeout=60
    )

    assert int(done.stdout.splitlines()[-1]) >= logging.WARNING
    assert leaks(cli, done) == []
