"""What commands print with ``--json`` is what ``docs/`` says, member by member."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from jsonschema import Draft202012Validator

from aws_clients import kms, s3
from cpstage import cli as command_line
from cpstage.local import Input, LocalAWS
from cpstage.local.sample import PIPELINE, add_sample_history
from samples import tar_of, zip_of, zip_with_link
from worker_processes import ACTION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from command_line import Cli

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs"
NAMES = [path.stem for path in sorted((DOCS / "schemas").glob("*.json"))]

NO_RESULT = {"work"}
"""Commands that print none, with ``--json`` or without: a worker works until it is stopped."""


def _schema(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((DOCS / "schemas" / f"{name}.json").read_text("utf-8"))
    return schema


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if "properties" in schema and schema.get("type"):
            yield schema
        for one in schema.values():
            yield from _objects(one)
    elif isinstance(schema, list):
        for one in schema:
            yield from _objects(one)


def _commands(command: click.Command, path: str = "") -> Iterator[str]:
    """The commands that have ``--json``, as their schemas are named."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _commands(found, f"{path}-{name}" if path else name)
    elif any("--json" in one.opts for one in command.params):
        yield path


def _check(name: str, printed: str) -> dict[str, Any]:
    """Hold a printed document against its schema, and return it."""
    document: dict[str, Any] = json.loads(printed)
    errors = [
        f"{error.json_path}: {error.message}"
        for error in Draft202012Validator(_schema(name)).iter_errors(document)
    ]
    assert errors == []
    return document


def test_every_command_with_json_has_a_schema() -> None:
    assert sorted({*_commands(command_line.cpstage)} - NO_RESULT) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_schemas_are_closed(name: str) -> None:
    schema = _schema(name)

    Draft202012Validator.check_schema(schema)
    assert schema["title"].startswith("cpstage ")
    assert all(one["additionalProperties"] is False for one in _objects(schema))


def test_the_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(DOCS.parent / "tools/pages/reference.py"), "--check"]
    )

    assert done.returncode == 0, "run: python tools/pages/reference.py"


def test_past_executions(aws: LocalAWS, cli: Cli) -> None:
    add_sample_history(aws)
    person = cli.with_variables(aws.debugger_environment)
    failed = ("--pipeline", PIPELINE, "--failed")

    listed = _check("executions", person("executions", PIPELINE, "--json").stdout)
    execution = listed["executions"][0]["id"]
    _check("executions", person("executions", PIPELINE, execution, "--json").stdout)
    _check("show", person("show", *failed, "--json").stdout)
    _check("show", person("show", *failed, "--failed-action", "--json").stdout)
    _check("fetch", person("fetch", *failed, "--failed-action", "--json").stdout)
    _check("ls", person("ls", *failed, "*.py", "--json").stdout)
    _check("doctor", person("doctor", *failed, "--json").stdout)
    _check("diff", person("diff", *failed, "--failed-action", "--json").stdout)
    changed = _check("diff", person("diff", *failed, "--with", "previous", "-u", "--json").stdout)
    assert changed["changed"][0]["text"]
    (person.directory / "a.zip").write_bytes(zip_of({"f": "x"}))
    _check("ls", person("ls", "--archive", "a.zip", "--json").stdout)
    _check("diff", person("diff", "--local", "a.zip", "a.zip", "--json").stdout)


def test_the_way_of_a_job(aws: LocalAWS, cli: Cli) -> None:
    first = aws.add_job(outputs=["Sealed", "Plain"])
    for name in ("Sealed", "Plain"):
        (cli.directory / "out" / name).mkdir(parents=True)
        (cli.directory / "out" / name / "f").write_text("x")
    pushed = cli("push", first, "--encrypt", "--json").stdout
    assert _check("push", pushed)["outputs"][0]["envelope"]
    _check("push", cli("push", first, "--json").stdout)
    _check("push", cli("push", first, "--dry-run", "--json").stdout)
    job_id = aws.add_job(
        [
            Input("Plain", None, key=aws.job(first).outputs[1].key),
            Input("Tar", tar_of({"g": "x"}), "", revision="1"),
            Input("Link", zip_with_link("link", "f", {"f": "x"})),
            Input("Raw", b"text", ""),
        ],
        outputs=["Built"],
        configuration={"Password": "x"},
        continuation_token="token",
    )
    key = aws.job(job_id).inputs[3].key
    s3(aws.admin_environment).put_object(
        Bucket=aws.bucket, Key=key, Body=b"text", ChecksumAlgorithm="SHA256"
    )

    shown = _check("show", cli("show", job_id, "--json").stdout)
    _check("fetch", cli("fetch", job_id, "--dry-run", "--replace", "--json").stdout)
    fetched = _check("fetch", cli("fetch", job_id, "--replace", "--json").stdout)
    _check("fetch", cli("fetch", job_id, "--json").stdout)
    listed = _check("ls", cli("ls", job_id, "--json").stdout)
    assert _check("diff", cli("diff", job_id, "--json").stdout)["same"]
    (cli.directory / "in" / "Link" / "f").write_text("longer")
    (cli.directory / "in" / "Link" / "more").write_text("")
    _check("diff", cli("diff", job_id, "--json").stdout)
    _check("doctor", cli("doctor", job_id, "--json").stdout)

    assert shown["inputs"][3]["checksum"].startswith("SHA256:")
    assert fetched["inputs"][3]["checksum"] == shown["inputs"][3]["checksum"]
    assert [one["read"] for one in listed["artifacts"]] == [
        "directory", "stream", "directory", "object",
    ]  # fmt: skip


def test_what_goes_wrong(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("Gone", None)], encryption_key=None)

    _check("show", cli("show", job_id, "--json").stdout)
    _check("doctor", cli("doctor", job_id, "--json").stdout)
    _check("doctor", cli("doctor", "no-such-job", "--json").stdout)


def test_a_run_and_its_result(aws: LocalAWS, cli: Cli) -> None:
    def printed(*command: str) -> str:
        job_id = aws.add_job([Input("App", zip_of({"f": "x"}))], ["Built"])
        workspace = ("--workspace", job_id)
        return cli(command[0], job_id, *workspace, "--json", *command[1:]).stdout

    copy = ("--", "sh", "-c", 'cp in/App/f "$CPSTAGE_OUT_BUILT"')
    good = _check("run", printed("run", "--report", *copy))
    bad = _check("run", printed("run", "--report", "--", "sh", "-c", "exit 3"))
    assert (good["report"]["result"], bad["report"]["result"]) == ("success", "failure")
    _check("env", printed("env"))
    _check("credentials", cli("credentials", aws.add_job()).stdout)
    for result, more in (("success", []), ("failure", ["--message", "it failed"])):
        done = cli("report", result, aws.add_job(), "--json", *more)
        _check(f"report-{result}", done.stdout)


def test_the_document_of_a_job(aws: LocalAWS, cli: Cli) -> None:
    ours = aws.add_job([Input("App", b"", revision="1")], ["Built"], configuration={"A": "b"})
    bare = aws.add_job(encryption_key=None)

    for job_id in (ours, bare):
        _check("get-job-details", cli("get-job-details", "--job-id", job_id).stdout)


def test_local_files(aws: LocalAWS, cli: Cli) -> None:
    (cli.directory / "app.zip").write_bytes(zip_of({"f": "x"}))
    key = kms(aws.admin_environment).create_key()["KeyMetadata"]["Arn"]
    admin = cli.with_variables(aws.admin_environment)

    _check("unpack", cli("unpack", "app.zip", "--into", "app", "--json").stdout)
    _check("pack", cli("pack", "app", "--output", "again.zip", "--json").stdout)
    sealed = ("--output", "sealed.zip", "--encrypt", "--encrypt-key", key)
    assert _check("pack", admin("pack", "app", *sealed, "--json").stdout)["envelope"]
    kept = ("unpack", "sealed.zip", "--into", "kept", "--no-decrypt", "--json")
    assert _check("unpack", cli(*kept).stdout)["format"] is None


def test_the_local_aws(aws: LocalAWS, cli: Cli) -> None:
    _check("local-job", cli("local", "job", "--json").stdout)
    _check("local-record", cli("local", "record", "--json").stdout)
    with subprocess.Popen(
        [sys.executable, "-m", "cpstage", "local", "serve", "--json"],
        env=cli.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        _check("local-serve", server.stdout.readline())
        server.send_signal(signal.SIGTERM)
    _check("demo", cli("demo", "--json").stdout)


def test_a_job_that_was_claimed(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(status="Queued")

    claimed = cli("claim", *ACTION, "--json").stdout

    assert _check("claim", claimed)["job_id"] == job_id
