"""No secret turns up anywhere, whatever goes wrong: what is denied, and what is damaged."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from cpstage.local import SESSION_ACTIONS, LocalAWS
from echo_server import Form, echoing_server
from mounts import without_privileges
from samples import zip_of
from secret_markers import (
    CANARY,
    add_job,
    keeps_quiet,
    leaks,
    places,
    planted,
    planted_aws,
    revealed,
    run,
    write_result,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from command_line import Cli

pytestmark = pytest.mark.slow

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAWS]:
    with planted_aws() as running:
        yield running


@dataclass(frozen=True)
class Failure:
    """What is done, and what has to come of it."""

    code: int
    arguments: tuple[str, ...] = ("fetch", "JOB")
    variables: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    lacks: str | None = None


FAILURES = {
    "no such job": Failure(66, ("fetch", "11111111-2222-3333-4444-555555555555")),
    "wrong secret": Failure(77, variables=(("AWS_SECRET_ACCESS_KEY", planted(40)),)),
    "wrong token": Failure(77, variables=(("AWS_SESSION_TOKEN", planted(40)),)),
    "wrong client token": Failure(66, variables=(("CPSTAGE_CLIENT_TOKEN", planted(40)),)),
    "long client token": Failure(78, variables=(("CPSTAGE_CLIENT_TOKEN", planted(300)),)),
    "no CodePipeline": Failure(69, variables=(("AWS_ENDPOINT_URL_CODEPIPELINE", NOWHERE),)),
    "no S3": Failure(69, variables=(("AWS_ENDPOINT_URL_S3", NOWHERE),)),
    "no S3, shown": Failure(
        0, ("show", "JOB"), (("AWS_ENDPOINT_URL_S3", NOWHERE), ("AWS_MAX_ATTEMPTS", "1"))
    ),
    "no S3 to push to": Failure(69, ("push", "JOB"), (("AWS_ENDPOINT_URL_S3", NOWHERE),)),
    "no KMS": Failure(69, ("push", "JOB", "--encrypt"), (("AWS_ENDPOINT_URL_KMS", NOWHERE),)),
    "denied by S3": Failure(77, lacks="s3:GetObject"),
    "denied by the key": Failure(77, lacks="kms:Decrypt"),
    "denied to push": Failure(77, ("push", "JOB"), lacks="s3:PutObject"),
    "denied to encrypt": Failure(77, ("push", "JOB", "--encrypt"), lacks="kms:GenerateDataKey"),
    "an archive that leaves": Failure(65, body=zip_of({"../evil": "x"})),
    "no archive": Failure(65, body=b"no archive at all"),
    "a glob without a match": Failure(2, ("fetch", "JOB", "--artifact", "Nope*")),
    "in the way": Failure(73, ("fetch", "JOB", "--workspace", "out/Built/result")),
    "no such output": Failure(78, ("push", "JOB", "Other=out")),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_a_failure_says_no_secret(aws: LocalAWS, cli: Cli, failure: Failure) -> None:
    actions = SESSION_ACTIONS - {failure.lacks or ""}
    job_id = add_job(aws, failure.body, session_actions=actions)
    write_result(cli)
    arguments = [job_id if one == "JOB" else one for one in failure.arguments]
    patience = ["--retry-timeout", "1"] if arguments[0] != "show" else []

    there = cli.with_variables(dict(failure.variables))
    keeps_quiet(there, failure.code, *arguments, *patience)


def test_a_caller_without_the_permission_is_told_no_secret(aws: LocalAWS, cli: Cli) -> None:
    stranger = cli.with_variables(aws.add_user("stranger", ["sts:GetCallerIdentity"]))

    keeps_quiet(stranger, 77, "fetch", add_job(aws))


def test_a_session_that_cannot_be_renewed_gives_no_secret_away(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    saved = places(cli) / "job.json"
    saved.write_text(revealed(aws, job_id))
    aws.expire_sessions(job_id)
    aws.set_status(job_id, "Failed")

    keeps_quiet(cli, 75, "fetch", "--job-file", str(saved), less=[saved])


def test_an_existing_target_and_a_damaged_state_give_no_secret_away(
    aws: LocalAWS, cli: Cli
) -> None:
    job_id = add_job(aws)
    (cli.directory / "in/App").mkdir(parents=True)
    (cli.directory / "in/App/mine").write_text("mine")
    keeps_quiet(cli, 73, "fetch", job_id)
    (cli.directory / ".cpstage/lock").unlink()
    (cli.directory / ".cpstage/lock").mkdir()

    keeps_quiet(cli, 73, "fetch", job_id, "--replace")


def test_an_unreadable_directory_gives_no_secret_away(aws: LocalAWS, cli: Cli) -> None:
    write_result(cli)
    (cli.directory / "out/Built").chmod(0)

    done = run(cli, "push", add_job(aws), prefix=without_privileges())

    (cli.directory / "out/Built").chmod(0o700)
    assert done.returncode in {73, 74}, done.stderr
    assert "Permission denied" in done.stderr
    assert leaks(cli, done) == []


def _in_place_of(member: str, value: object) -> Callable[[str], str]:
    """Put something else in the place of a member, wherever in a document that is."""

    def changed(text: str) -> str:
        def walk(one: object) -> object:
            if isinstance(one, dict):
                return {k: value if k == member else walk(v) for k, v in one.items()}
            return [walk(item) for item in one] if isinstance(one, list) else one

        return json.dumps(walk(json.loads(text)))

    return changed


DOCUMENTS: dict[str, Callable[[str], str]] = {
    "cut off": lambda text: text[:-20],
    "cut off in a secret": lambda text: text[: text.index(CANARY) + 20],
    "two jobs": lambda text: json.dumps({"jobs": [json.loads(text)["jobDetails"]] * 2}),
    "half a credential": _in_place_of("artifactCredentials", {"secretAccessKey": planted(20)}),
    "a key on two lines": _in_place_of("secretAccessKey", f"{planted(20)}\n{planted(20)}"),
    "a token on two lines": _in_place_of("sessionToken", f"{planted(20)}\r\n{planted(20)}"),
    "a token of surrogates": _in_place_of("sessionToken", f"{planted(20)}\ud800"),
    "a list of values": _in_place_of("configuration", [planted(20)]),
    "a bad name": _in_place_of("outputArtifacts", [{"name": "../x"}]),
}


@pytest.mark.parametrize("change", DOCUMENTS.values(), ids=DOCUMENTS)
def test_a_bad_document_is_not_quoted(
    aws: LocalAWS, cli: Cli, change: Callable[[str], str]
) -> None:
    bad = change(revealed(aws, add_job(aws)))
    assert CANARY in bad

    done = run(cli, "fetch", "--job-file", "-", stdin=bad)

    assert done.returncode == 78, done.stderr
    assert leaks(cli, done) == []


@pytest.mark.parametrize(
    ("service", "command", "status", "form"),
    [
        ("S3", "fetch", 403, "text"),
        ("S3", "push", 403, "text"),
        ("S3", "fetch", 403, "xml"),
        ("S3", "push", 400, "xml"),
        ("S3", "push", 200, "xml"),
        ("KMS", "push", 400, "json"),
        ("KMS", "push", 200, "json"),
        ("CODEPIPELINE", "show", 200, "json"),
        ("CODEPIPELINE", "show", 400, "json"),
        ("CODEPIPELINE", "show", 403, "xml"),
        ("CODEPIPELINE", "show", 500, "text"),
    ],
)
def test_an_answer_that_is_none_is_not_quoted(
    aws: LocalAWS, cli: Cli, service: str, command: str, status: int, form: Form
) -> None:
    write_result(cli)
    job_id = add_job(aws)
    arguments = [] if command == "show" else ["--retry-timeout", "0.5"]
    if service == "KMS":
        arguments.append("--encrypt")
    with echoing_server(status, form) as url:
        done = run(cli, command, job_id, *arguments, **{f"AWS_ENDPOINT_URL_{service}": url})

    keys = json.loads(revealed(aws, job_id))["jobDetails"]["data"]["artifactCredentials"]
    assert done.returncode in {69, 77, 78}, done.stderr
    assert leaks(cli, done, [cli.environment["AWS_ACCESS_KEY_ID"], keys["accessKeyId"]]) == []
