"""``cpstage demo`` and ``cpstage local``, as somebody who tries cpstage out runs them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from command_line import Cli, plain_environment
from cpstage.local.sample import BUILD_COMMAND

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e


@pytest.fixture
def plain(tmp_path: Path) -> Cli:
    """A user without any AWS configuration."""
    for name in ("home", "empty", "tmp"):
        (tmp_path / name).mkdir()
    environment = {**plain_environment(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
    return Cli(environment, tmp_path / "empty")


@pytest.fixture
def served(plain: Cli) -> Iterator[tuple[dict[str, Any], subprocess.Popen[str]]]:
    """A local AWS in another process, and what it said at its start."""
    with subprocess.Popen(
        [sys.executable, "-m", "cpstage", "local", "serve", "--json"],
        env=dict(plain.environment),
        cwd=plain.directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        said = json.loads(server.stdout.readline())
        yield said, server
        if server.poll() is None:
            server.terminate()


def test_the_demo_goes_the_whole_way_and_cleans_up(plain: Cli) -> None:
    done = plain("demo")

    assert done.returncode == 0, done.stderr
    for text in (
        "$ cpstage fetch ",
        "zip, 9 files",
        "built out/AppBuild/greeter-1.0.pyz",
        "$ cpstage push ",
        "the caller         codepipeline:GetJobDetails x 1",
        "encrypted with aws:kms",
        "-rwxr-xr-x",
        "greeter-latest.pyz",
    ):
        assert text in done.stdout
    assert "not-a-real-secret" not in done.stdout + done.stderr
    assert list(plain.directory.iterdir()) == []
    assert list(Path(plain.environment["TMPDIR"]).iterdir()) == []


def test_the_demo_does_not_mind_the_users_own_settings(plain: Cli) -> None:
    done = plain(
        "demo",
        AWS_PROFILE="nobody",
        AWS_REGION="eu-west-1",
        AWS_ACCESS_KEY_ID="mine",
        HTTP_PROXY="http://127.0.0.1:9",
    )

    assert done.returncode == 0, done.stderr


def test_a_served_aws_takes_fetch_build_and_push_from_other_processes(
    plain: Cli, served: tuple[dict[str, Any], subprocess.Popen[str]]
) -> None:
    said, server = served
    user = Cli({**plain.environment, **said["environment"]}, plain.directory)
    assert said["endpoint_url"].startswith("http://127.0.0.1:")
    assert said["region"] == said["environment"]["AWS_REGION"]

    fetched = user("fetch", said["job_id"])
    built = subprocess.run(BUILD_COMMAND, cwd=user.directory, capture_output=True, text=True)
    pushed = user("push", said["job_id"])
    record = json.loads(user("local", "record", "--json").stdout)["calls"]
    server.send_signal(signal.SIGINT)
    server.wait()

    assert fetched.returncode == 0, fetched.stderr
    assert built.returncode == 0, built.stdout + built.stderr
    assert pushed.returncode == 0, pushed.stderr
    assert [call["action"] for call in record if call["identity"] == "caller"] == [
        "GetJobDetails"
    ] * 2
    assert server.returncode == 130


def test_another_job_from_a_directory_of_the_user(
    plain: Cli, served: tuple[dict[str, Any], subprocess.Popen[str]]
) -> None:
    said, _ = served
    user = Cli({**plain.environment, **said["environment"]}, plain.directory)
    tool = plain.directory / "mine/bin/tool"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)

    job_id = user("local", "job", "mine", "--output-artifact", "Mine").stdout.strip()
    done = user("fetch", job_id, "--workspace", "work")

    assert done.returncode == 0, done.stderr
    assert (plain.directory / "work/in/Source/bin/tool").stat().st_mode & 0o100
    assert (plain.directory / "work/out/Mine").is_dir()


def test_one_more_sample_job(
    plain: Cli, served: tuple[dict[str, Any], subprocess.Popen[str]]
) -> None:
    said, _ = served
    user = Cli({**plain.environment, **said["environment"]}, plain.directory)

    job_id = user("local", "job").stdout.strip()

    assert job_id != said["job_id"]
    assert user("fetch", job_id).returncode == 0
    assert (plain.directory / "in/AppSource/build.sh").exists()


def test_without_a_server_the_commands_say_how_to_start_one(plain: Cli) -> None:
    nowhere = plain("local", "job")
    unreachable = plain("local", "record", "--endpoint-url", "http://127.0.0.1:1")

    assert nowhere.returncode == 2
    assert unreachable.returncode == 69
    for done in (nowhere, unreachable):
        assert "cpstage local serve" in done.stderr


@pytest.mark.parametrize(
    ("options", "commands"),
    [
        ([], "cpstage fetch && cpstage env"),
        (
            ["--debugger"],
            "cpstage executions sample-pipeline && cpstage fetch --pipeline sample-pipeline "
            "--failed --failed-action && cpstage env",
        ),
    ],
)
def test_a_shell_that_takes_the_printed_variables_can_go_on(
    plain: Cli, options: list[str], commands: str
) -> None:
    """Also one that had the job of another server."""
    with subprocess.Popen(
        [sys.executable, "-m", "cpstage", "local", "serve", *options],
        env=dict(plain.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        variables = server.stdout.readline()
        while "CPSTAGE_JOB_ID" not in variables:
            variables += server.stdout.readline()
        note = server.stderr.readline()
        cpstage = f'cpstage() {{ {sys.executable} -m cpstage "$@"; }}'
        done = subprocess.run(
            ["sh", "-ec", f"{variables}{cpstage}\n{commands}"],
            cwd=plain.directory,
            env={**plain.environment, "CPSTAGE_JOB_ID": "another"},
            capture_output=True,
            text=True,
        )
        server.terminate()

    assert f"then: {commands.partition(' && ')[0]}. Ctrl-C stops." in note
    assert done.returncode == 0, done.stderr
    assert "export CPSTAGE_IN_APPSOURCE=" in done.stdout


def test_serving_on_a_taken_port_is_one_line(
    plain: Cli, served: tuple[dict[str, Any], subprocess.Popen[str]]
) -> None:
    port = served[0]["endpoint_url"].rpartition(":")[2]

    done = plain("local", "serve", "--port", port)

    assert done.returncode == 78
    assert f"cannot listen on port {port}" in done.stderr


@pytest.mark.parametrize("command", [["demo"], ["local", "serve"]])
def test_without_the_extra_the_command_says_what_installs_it(
    plain: Cli, tmp_path: Path, command: list[str]
) -> None:
    """A finder that knows no moto stands for a machine that has none."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class NoMoto:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'moto':\n"
        "            raise ModuleNotFoundError('No module named moto', name='moto')\n"
        "sys.meta_path.insert(0, NoMoto())\n"
    )
    path = f"{tmp_path}:{plain.environment.get('PYTHONPATH', '')}"

    done = plain(*command, PYTHONPATH=path)

    assert done.returncode == 78
    assert "pip install '.[local]'" in done.stderr
