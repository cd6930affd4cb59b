"""What holds for all commands: variables of options, former names, common options, usage errors."""

from __future__ import annotations

import json
import os
import pty
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click
import pytest

from cpstage.cli import cpstage as command_line
from cpstage.cli.options import SECTIONS, long_name
from cpstage.local import Input, LocalAWS
from samples import zip_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from command_line import Cli


def _options(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Option]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _options(found, f"{path} {name}".strip())
        return
    for one in command.params:
        if isinstance(one, click.Option) and long_name(one) != "--version":
            yield f"{path} {long_name(one)}", one


OPTIONS = dict(_options(command_line))


def test_every_option_has_the_variable_of_its_name() -> None:
    named_by_others = {"--endpoint-url": "AWS_ENDPOINT_URL"}
    wrong = []
    for path, option in OPTIONS.items():
        name = long_name(option)
        expected = "CPSTAGE_" + name.removeprefix("--").replace("-", "_").upper()
        if option.envvar not in (expected, named_by_others.get(name)) or option.envvar is None:
            wrong.append(path)

    # A variable for ``work --query`` must not select from documents of commands in its builds, and
    # ``run`` gives its command CPSTAGE_PIPELINE, CPSTAGE_ACTION and others.
    past = ("--pipeline", "--execution", "--action", "--failed", "--failed-action")
    without = {path for path in OPTIONS if path.split()[-1] in past}
    selecting = {path for path, option in OPTIONS.items() if option.metavar == "JMESPATH"}
    assert set(wrong) == without | selecting | {"get-job-details --job-id"}


def test_every_option_of_a_section_is_one_of_a_command() -> None:
    known = {long_name(option) for option in OPTIONS.values()} | {"--help"}

    assert {name for names in SECTIONS.values() for name in names} <= known


@pytest.fixture
def job_id(aws: LocalAWS) -> str:
    return aws.add_job([Input("App", zip_of({"f": "x" * 100}))], outputs=["Built"])


def test_an_option_counts_before_its_variable(cli: Cli, job_id: str) -> None:
    by_variable = cli("fetch", job_id, CPSTAGE_MAX_SIZE="10")
    by_option = cli("fetch", job_id, "--max-size", "1KiB", CPSTAGE_MAX_SIZE="10")

    assert by_variable.returncode == 65
    assert "max-size" in by_variable.stderr
    assert by_option.returncode == 0, by_option.stderr


def test_a_flag_has_a_variable(cli: Cli, job_id: str) -> None:
    assert json.loads(cli("show", job_id, CPSTAGE_JSON="1").stdout)["id"] == job_id


@pytest.mark.parametrize(
    ("size", "code"), [("100", 0), ("99", 65), ("1kb", 0), ("0.1KB", 2), ("0", 2), ("10XB", 2)]
)
def test_sizes_have_units(cli: Cli, job_id: str, size: str, code: int) -> None:
    done = cli("fetch", job_id, "--max-size", size)

    assert done.returncode == code, done.stderr


def test_common_options_stand_before_the_command_too(cli: Cli, job_id: str) -> None:
    region = cli.environment["AWS_REGION"]
    done = cli("--region", region, "--json", "-v", "show", job_id, without=("AWS_REGION",))
    nested = cli(
        f"--endpoint-url={cli.environment['AWS_ENDPOINT_URL']}", "report", "success", job_id
    )

    assert json.loads(done.stdout)["id"] == job_id
    assert "GetJobDetails" in done.stderr
    assert nested.returncode == 0, nested.stderr


@pytest.mark.parametrize("path", ["fetch", "report success"])
def test_help_of_a_command_has_two_ways(cli: Cli, path: str) -> None:
    asked = cli("help", *path.split())

    assert asked.stdout == cli(*path.split(), "--help").stdout
    assert asked.stdout.startswith(f"Usage: cpstage {path}")


@pytest.mark.parametrize(
    ("arguments", "former", "current"),
    [
        (["fetch", "--timeout", "9"], "--timeout", "--retry-timeout"),
        (["fetch", "--encryption-context", "a=b"], "--encryption-context", "--decrypt-context"),
        (["run", "--output", "Built=in/App", "--", "true"], "--output", "--output-path"),
    ],
)
def test_a_former_name_works_with_a_warning(
    aws: LocalAWS, cli: Cli, job_id: str, arguments: list[str], former: str, current: str
) -> None:
    command, *others = arguments
    done = cli(command, job_id, *others)
    quiet = cli(command, aws.add_job(outputs=["Built"]), "-q", "-w", "other", *others)

    assert done.returncode == 0, done.stderr
    assert f"cpstage: warning: {former} is deprecated: write {current}\n" in done.stderr
    assert "deprecated" not in quiet.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "JOB", "make"], "write CMD behind --, as in 'cpstage run ... -- make'"),
        (["run", "JOB", "make", "-j4"], "write CMD behind --"),
        (["work", "--category", "Build"], "see 'cpstage work --help'"),
        (["show", "--job-id", "JOB"], "write 'cpstage show JOB_ID'"),
        (["get-job-details", "JOB"], "write --job-id JOB"),
        (["cat", "JOB"], "write 'cpstage cat JOB_ID ARTIFACT PATH'"),
        (["cat", "JOB", "App"], "PATH is missing"),
        (["ls", "conftest.py"], "write 'cpstage ls --archive conftest.py' for an archive"),
        (["fetch", "conftest.py"], "write 'cpstage unpack conftest.py' for an archive"),
        (["--region", "eu-west-1"], "the command is missing"),
        (["--region", "eu-west-1", "shw"], "did you mean 'show'?"),
        (["fetch", "JOB", "--max-size", "10XB"], "'10XB' is not a size"),
    ],
    ids=" ".join,
)
def test_a_wrong_line_is_told_the_right_one(cli: Cli, arguments: list[str], says: str) -> None:
    (cli.directory / "conftest.py").touch()

    done = cli(*arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_carriage_return_behind_the_job_id_is_dropped(cli: Cli, job_id: str) -> None:
    assert cli("show", CPSTAGE_JOB_ID=f"{job_id}\r").returncode == 0


def test_a_script_never_takes_a_masked_value_for_the_value(cli: Cli, job_id: str) -> None:
    query = ["--query", "jobDetails.data.artifactCredentials.secretAccessKey"]
    line = ["get-job-details", "--job-id", job_id, "--output", "text", *query]

    refused, masked = cli(*line), cli(*line, "--mask")

    assert (refused.returncode, refused.stdout) == (78, "")
    assert "--reveal-secrets" in refused.stderr
    assert (masked.returncode, masked.stdout) == (0, "********\n")


def test_a_query_selects_from_the_document(cli: Cli, job_id: str) -> None:
    done = cli("show", job_id, "--query", "inputs[0].name")
    wrong = cli("show", job_id, "--query", "inputs[")

    assert (done.returncode, done.stdout) == (0, '"App"\n')
    assert (wrong.returncode, wrong.stdout) == (2, "")


@pytest.mark.parametrize(
    ("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_errors_have_a_colour_on_a_terminal(
    cli: Cli, variables: dict[str, str], coloured: bool
) -> None:
    """What a terminal shows of an error; a pipe gets no escape sequence."""
    line = [sys.executable, "-m", "cpstage", "shw"]
    environment = {**cli.environment, "TERM": "xterm", **variables}
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, line, environment)
    said = b""
    with suppress(OSError):  # Linux says so at the end
        while data := os.read(terminal, 4096):
            said += data
    os.waitpid(pid, 0)
    os.close(terminal)

    assert (b"\x1b[31merror:" in said) == coloured, said
    assert b"there is no command 'shw'" in said
    assert "\x1b" not in cli("shw").stderr


def test_output_variables_come_from_stdin(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job()

    done = cli("report", "success", job_id, "--output-variables-file", "-", stdin="VERSION=1.2\n")

    assert done.returncode == 0, done.stderr
    result = aws.job(job_id).result
    assert result is not None
    assert result["outputVariables"] == {"VERSION": "1.2"}


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "https_proxy"])
def test_a_blank_proxy_is_named(cli: Cli, job_id: str, variable: str) -> None:
    done = cli.with_variables({variable: " "})("show", job_id)

    assert done.returncode == 78
    assert f"{variable} is blank; unset {variable}" in done.stderr
