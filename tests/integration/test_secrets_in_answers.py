"""No secret turns up when a service, or a proxy before it, answers with what it was asked.

Container metadata, STS, SSO and KMS are answered by a server that quotes the request: tokens,
passwords and data keys are in there.
"""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha1
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from constant_server import answering_server
from echo_server import Asked, Form, echoing_server, worded_server
from secret_markers import (
    CALLERS_KEYS,
    Done,
    add_job,
    is_in,
    keeps_quiet,
    leaks,
    planted,
    planted_aws,
    revealed,
    run,
    write_result,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from command_line import Cli
    from cpstage.local import LocalAWS

pytestmark = pytest.mark.slow

ROLE = "arn:aws:iam::123456789012:role/Worker"


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAWS]:
    with planted_aws() as running:
        yield running


def _container(url: str, _: Path) -> Mapping[str, str]:
    return {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}/keys?token={planted(40)}",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": planted(40),
    }


def _instance(url: str, _: Path) -> Mapping[str, str]:
    return {"AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT": url}


def _role(url: str, home: Path) -> Mapping[str, str]:
    (home / "config").write_text(
        f"[default]\nrole_arn = {ROLE}\nsource_profile = source\n[profile source]\n"
        f"aws_access_key_id = AKIAOTHER0000000001\naws_secret_access_key = {planted(40)}\n"
        f"aws_session_token = {planted(100)}\n"
    )
    return {"AWS_ENDPOINT_URL_STS": url}


def _web_identity(url: str, home: Path) -> Mapping[str, str]:
    file = home / "web-identity"
    file.write_text(planted(100))
    identity = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(file), "AWS_ROLE_ARN": ROLE}
    return {"AWS_ENDPOINT_URL_STS": url, **identity}


def _sso(url: str, home: Path) -> Mapping[str, str]:
    start = "https://sso.example.com/start"
    cache = home / f"sso/cache/{sha1(start.encode()).hexdigest()}.json"
    cache.parent.mkdir(parents=True)
    token = {"accessToken": planted(100), "expiresAt": "2100-01-01T00:00:00Z"}
    cache.write_text(json.dumps(token))
    (home / "config").write_text(
        f"[default]\nsso_start_url = {start}\nsso_region = us-east-2\n"
        "sso_account_id = 123456789012\nsso_role_name = Worker\n"
    )
    return {"AWS_ENDPOINT_URL_SSO": url}


@pytest.mark.parametrize("provider", [_container, _instance, _role, _web_identity, _sso])
@pytest.mark.parametrize(("status", "form"), [(403, "json"), (400, "xml"), (200, "text")])
def test_a_service_of_credentials_that_quotes_the_request_is_not_quoted(
    cli: Cli,
    provider: Callable[[str, Path], Mapping[str, str]],
    status: int,
    form: Form,
) -> None:
    home = Path(cli.environment["HOME"]) / ".aws"
    home.mkdir()
    with echoing_server(status, form) as url:
        given = {"AWS_MAX_ATTEMPTS": "1", **provider(url, home)}
        known = [file for file in home.rglob("*") if file.is_file()]
        done = run(cli, "show", "some-job", without=CALLERS_KEYS, **given)

    assert done.returncode in {69, 77}, done.stderr
    assert leaks(cli, done, less=known) == []


def test_an_answer_of_sts_that_is_cut_is_not_quoted(cli: Cli) -> None:
    """It is no XML, and has the credentials of the role in it."""
    home = Path(cli.environment["HOME"]) / ".aws"
    home.mkdir()
    answer = f"<AssumeRoleResponse><SecretAccessKey>{planted(40)}</SecretAcc".encode()
    with answering_server(200, answer) as url:
        given = _role(url, home)
        done = run(cli, "show", "some-job", without=CALLERS_KEYS, **given)

    assert done.returncode == 69, done.stderr
    assert "the answer of STS is malformed" in done.stderr
    assert leaks(cli, done, less=[home / "config"]) == []


# Keys


KEY_ARN = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"
OTHER_ARN = KEY_ARN.replace("11111111", "22222222")
DATA_KEY = b"The data key of 32 bytes, at all"


def _keys(asked: Asked) -> tuple[int, bytes]:
    """Answer as KMS, which makes a data key, and refuses to encrypt it under another key."""
    if asked.headers["X-Amz-Target"].endswith("GenerateDataKey"):
        made = {"Plaintext": DATA_KEY, "CiphertextBlob": b"encrypted"}
        encoded = {name: b64encode(value).decode() for name, value in made.items()}
        return 200, json.dumps({"KeyId": KEY_ARN, **encoded}).encode()
    return 400, json.dumps(
        {"__type": "ValidationException", "message": asked.body.decode()}
    ).encode()


def test_a_data_key_that_kms_quotes_is_not_shown(cli: Cli) -> None:
    write_result(cli)
    keys = ("--encrypt", "--encrypt-key", KEY_ARN, "--encrypt-key", OTHER_ARN)
    credentials = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": planted(40)}
    with worded_server(_keys) as url:
        given = {**credentials, "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL_KMS": url}
        done = run(cli, "pack", "out", "--output", "packed", *keys, **given)

    assert done.returncode == 78, done.stderr
    assert f"KMS key {OTHER_ARN}: ValidationException" in done.stderr
    assert leaks(cli, done, [DATA_KEY.decode()]) == []


# URLs


@pytest.mark.parametrize("reachable", [True, False])
def test_a_signature_in_a_url_is_not_shown(aws: LocalAWS, cli: Cli, reachable: bool) -> None:
    home = Path(cli.environment["HOME"]) / ".aws"
    home.mkdir()
    (home / "config").write_text("[default]\ncodepipeline =\n  signature_version = v4-query\n")
    given = {"AWS_SESSION_TOKEN": planted(100)}
    if not reachable:
        given["AWS_ENDPOINT_URL_CODEPIPELINE"] = "http://127.0.0.1:1"

    done = run(cli, "fetch", add_job(aws), "--retry-timeout", "1", **given)

    assert done.returncode == (77 if reachable else 69), done.stderr
    assert "X-Amz-Signature" not in done.stdout + done.stderr
    assert leaks(cli, done) == []


@pytest.mark.parametrize("command", ["show", "doctor"])
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "AWS_ENDPOINT_URL"])
def test_a_token_in_the_url_of_a_proxy_or_endpoint_is_not_shown(
    aws: LocalAWS, cli: Cli, command: str, variable: str
) -> None:
    there = {variable: f"http://127.0.0.1:1/?token={planted(40)}", "NO_PROXY": ""}

    keeps_quiet(cli.with_variables(there), 78, command, add_job(aws))


# Documents


def _inline(cli: Cli, document: str, where: str) -> Done:
    if where == "CPSTAGE_JOB_ID":
        return run(cli, "fetch", CPSTAGE_JOB_ID=document)
    if where == "--job-id":
        return run(cli, "get-job-details", "--job-id", document)
    return run(cli, "fetch", *([where, document] if where != "JOB_ID" else [document]))


@pytest.mark.parametrize("where", ["JOB_ID", "CPSTAGE_JOB_ID", "--job-id", "--job-file"])
def test_a_document_in_place_of_an_id_or_a_file_is_neither_sent_nor_shown(
    aws: LocalAWS, cli: Cli, where: str
) -> None:
    document = revealed(aws, add_job(aws))
    assert is_in(document)
    before = len(aws.calls())

    done = _inline(cli, document, where)

    assert done.returncode == 2, done.stderr
    assert f"the value of {where.replace('CPSTAGE_', '')} is a job document" in done.stderr
    assert leaks(cli, done) == []
    assert len(aws.calls()) == before
