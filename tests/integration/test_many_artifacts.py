"""Jobs of many small artifacts: few connections, and requests that do not wait for each other."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from aws_clients import s3
from cpstage.local import Input, LocalAWS
from fault_plans import Rule
from fault_proxy import FaultProxy
from faults import ACCESS_DENIED, PRECONDITION_FAILED, Meanwhile
from samples import zip_of

if TYPE_CHECKING:
    from command_line import Cli

pytestmark = pytest.mark.e2e

MANY = 60
MOST_CONNECTIONS = 8
"""One to CodePipeline, and one to S3 for each of the requests that are made at once."""

AT_ONCE = 4
LARGE = 3 << 20


def _inputs(aws: LocalAWS, count: int = MANY) -> str:
    return aws.add_job([Input(f"In{n}", zip_of({f"f{n}": f"{n}"})) for n in range(count)])


def _outputs(aws: LocalAWS, cli: Cli, count: int = MANY) -> str:
    names = [f"Out{n}" for n in range(count)]
    for name in names:
        (cli.directory / "out" / name).mkdir(parents=True)
        (cli.directory / "out" / name / "f").write_text(name)
    return aws.add_job(outputs=names)


def _stored(aws: LocalAWS, job_id: str) -> list[str]:
    """Return the names of the outputs whose objects there are."""
    client = s3(aws.admin_environment)
    outputs = aws.job(job_id).outputs
    there = {one["Key"] for one in client.list_objects_v2(Bucket=outputs[0].bucket)["Contents"]}
    return [one.name for one in outputs if one.key in there]


def _meeting(*operations: str) -> tuple[list[Rule], list[threading.Barrier]]:
    """Let the first few requests of an operation wait for each other before they go on."""
    barriers = [threading.Barrier(AT_ONCE, timeout=60) for _ in operations]
    rules = [
        Rule(Meanwhile(barrier.wait), operation, times=AT_ONCE)
        for operation, barrier in zip(operations, barriers, strict=True)
    ]
    return rules, barriers


def test_a_fetch_keeps_its_connections(aws: LocalAWS, cli: Cli) -> None:
    job_id = _inputs(aws)

    with FaultProxy(aws.endpoint_url) as proxy:
        done = cli("fetch", job_id, "--json", AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 0, done.stderr
    assert [one["name"] for one in json.loads(done.stdout)["inputs"]] == [
        f"In{n}" for n in range(MANY)
    ]
    for number in range(MANY):
        assert (cli.directory / f"in/In{number}/f{number}").read_text() == f"{number}"
    assert proxy.operations.count("HeadObject") == MANY
    assert proxy.operations.count("GetObject") == MANY
    assert proxy.connections <= MOST_CONNECTIONS


def test_a_push_keeps_its_connections(aws: LocalAWS, cli: Cli) -> None:
    job_id = _outputs(aws, cli)

    with FaultProxy(aws.endpoint_url) as proxy:
        done = cli("push", job_id, "--json", AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 0, done.stderr
    names = [f"Out{n}" for n in range(MANY)]
    assert [one["name"] for one in json.loads(done.stdout)["outputs"]] == names
    assert _stored(aws, job_id) == names
    assert proxy.operations.count("PutObject") == MANY
    assert proxy.connections <= MOST_CONNECTIONS


@pytest.mark.parametrize("options", [[], ["--layout", "merged"], ["--dry-run"]])
def test_the_requests_of_a_fetch_overlap(aws: LocalAWS, cli: Cli, options: list[str]) -> None:
    rules, barriers = _meeting("HeadObject", "GetObject")
    job_id = _inputs(aws, 2 * AT_ONCE)

    with FaultProxy(aws.endpoint_url, rules) as proxy:
        done = cli("fetch", job_id, *options, AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 0, done.stderr
    assert not any(barrier.broken for barrier in barriers)


def test_the_uploads_of_a_push_overlap(aws: LocalAWS, cli: Cli) -> None:
    rules, barriers = _meeting("PutObject")
    job_id = _outputs(aws, cli, 2 * AT_ONCE)

    with FaultProxy(aws.endpoint_url, rules) as proxy:
        done = cli("push", job_id, AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 0, done.stderr
    assert not barriers[0].broken


def test_small_large_and_empty_outputs_come_in_the_order_of_the_job(
    aws: LocalAWS, cli: Cli
) -> None:
    job_id = _outputs(aws, cli, 7)
    (cli.directory / "out/Out2/f").write_bytes(bytes(LARGE))
    (cli.directory / "out/Out4/f").unlink()

    done = cli("push", job_id, "--if-empty", "ignore", "--json")

    assert done.returncode == 0, done.stderr
    assert [(one["name"], one["status"]) for one in json.loads(done.stdout)["outputs"]] == [
        (f"Out{n}", "skipped" if n == 4 else "pushed") for n in range(7)
    ]


def test_an_input_that_changes_after_it_was_looked_at_is_fetched_anew(
    aws: LocalAWS, cli: Cli
) -> None:
    job_id = _inputs(aws, 2 * AT_ONCE)
    second = aws.job(job_id).inputs[1].key
    changed = Rule(PRECONDITION_FAILED, "GetObject", when=lambda one: one.key == second)

    with FaultProxy(aws.endpoint_url, [changed]) as proxy:
        done = cli("fetch", job_id, "--layout", "merged", AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 0, done.stderr
    assert sorted(one.name for one in (cli.directory / "in").iterdir()) == [
        f"f{n}" for n in range(2 * AT_ONCE)
    ]


def test_the_first_artifact_that_fails_is_named(aws: LocalAWS, cli: Cli) -> None:
    job_id = _inputs(aws, 2 * AT_ONCE)
    keys = [one.key for one in aws.job(job_id).inputs]
    denied = Rule(ACCESS_DENIED, "GetObject", when=lambda one: one.key in keys[2:], times=None)

    with FaultProxy(aws.endpoint_url, [denied]) as proxy:
        done = cli("fetch", job_id, AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 77
    assert "artifact In2 " in done.stderr
    assert not (cli.directory / "in").exists()
