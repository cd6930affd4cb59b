"""One setting, given to cpstage and to the AWS CLI at the same time, each with its own recorder."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha1
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from command_line import forks, plain_environment
from recording_server import (
    BUCKET,
    JOB_KEY,
    JOB_SECRET,
    JOB_TOKEN,
    KEY,
    KMS_KEY,
    OUTPUT_KEY,
    Certificates,
    Recorder,
    Sent,
    job_document,
    recorder,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

CALLER_KEY, CALLER_SECRET = "AKIACALLERCALLER0001", "caller-secret" * 3
REGION = "eu-west-1"
JOB, HEAD, GET, PUT = "GetJobDetails", "HeadObject", "GetObject", "PutObject"
KMS = "GenerateDataKey"
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

_OBJECT = ("--bucket", BUCKET, "--key")
_AWS = {
    JOB: ("codepipeline", "get-job-details", "--job-id", "some-job"),
    HEAD: ("s3api", "head-object", *_OBJECT, KEY, "--checksum-mode", "ENABLED"),
    GET: (
        "s3api",
        "get-object",
        *_OBJECT,
        KEY,
        "--range",
        "bytes=0-23",
        "--if-match",
        "any",
        "got",
    ),
    PUT: (
        *(
            "s3api",
            "put-object",
            *_OBJECT,
            OUTPUT_KEY,
            "--body",
            "file",
            "--checksum-crc32",
            "oBfivw==",
        ),
        *("--server-side-encryption", "aws:kms", "--content-type", "application/octet-stream"),
    ),
    KMS: ("kms", "generate-data-key", "--key-id", KMS_KEY, "--number-of-bytes", "32"),
}
_FETCH = ("fetch", "--job-file", "job.json", "--no-unpack")
_CPSTAGE = {
    JOB: ("get-job-details", "--job-id", "some-job"),
    HEAD: _FETCH,
    GET: _FETCH,
    PUT: ("push", "--force", "--job-file", "job.json", "Built=file"),
    KMS: ("pack", ".aws", "--output", "packed", "--encrypt", "--encrypt-key", KMS_KEY),
}

_CACHED_AT_HOME = re.compile("role_arn|ROLE_ARN|sso_")
"""Where botocore keeps what such settings bring, it determines while it is loaded."""


@dataclass(frozen=True)
class Setting:
    """A setting, and what it governs.

    In ``variables``, ``config``, ``credentials`` and ``arguments``, ``{url}`` and ``{https}``
    stand for the recorder's URLs, ``{port}`` for its port, ``{ca}`` for the file of its CA,
    ``{home}`` for the user's directory, and ``{keys}`` for lines with the credentials that are
    in the environment otherwise.

    Attributes:
        name: The test's name.
        hosts: The hosts that requests go to, by the operations to test.
        variables: Of the environment.
        without: Variables that are unset.
        config: The AWS configuration file.
        credentials: The AWS credentials file.
        arguments: Options of the command.
        told: What the recorder is told.
        expected: Attributes of the operation's requests, where they are not those of
            :func:`expectation`.
        before: Operations of the requests that come before it.
        before_host: The host that these go to, where the setting governs it.
        fails: Whether the command fails.
        count: How often the operation is sent.
    """

    name: str
    hosts: Mapping[str, str]
    variables: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    config: str = ""
    credentials: str = ""
    arguments: tuple[str, ...] = ()
    told: Mapping[str, Any] = field(default_factory=dict)
    expected: Mapping[str, Any] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    before_host: str | None = None
    fails: bool = False
    count: int = 1


@dataclass(frozen=True)
class Outcome:
    """What a program sent, and how it ended."""

    status: int
    stderr: str
    recorded: Recorder

    def sent(self, operation: str) -> list[Sent]:
        return self.recorded.sent(operation)

    def tunnels(self) -> set[str]:
        """Return the host and port of the tunnels."""
        port = f":{self.recorded.port}"
        return {one.replace(port, ":{port}") for one in self.recorded.tunnels}

    def facets(self, operation: str) -> list[dict[str, Any]]:
        """Return what the settings govern of the requests up to the last of an operation."""
        port = self.recorded.port
        others = {*_AWS} - {operation}
        return [facets(one, port) for one in self.recorded.requests if one.operation not in others]


def side_by_side(
    setting: Setting, operation: str, certificates: Certificates, directory: Path
) -> tuple[Outcome, Outcome]:
    """Run both programs with a setting; return what came of cpstage, and of the AWS CLI."""
    with (
        recorder(certificates, **setting.told) as one,
        recorder(certificates, **setting.told) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        theirs = pool.submit(_run, "aws", _AWS[operation], setting, other, directory / "aws")
        ours = _run("cpstage", _CPSTAGE[operation], setting, one, directory / "cpstage")
        return ours, theirs.result()


def _run(
    program: str, command: Sequence[str], setting: Setting, recorded: Recorder, home: Path
) -> Outcome:
    home.mkdir()
    key, secret, token = CALLER_KEY, CALLER_SECRET, None
    if program == "aws" and command[0] == "s3api":  # cpstage gets the job's credentials itself
        key, secret, token = JOB_KEY, JOB_SECRET, JOB_TOKEN
    keys = {"aws_access_key_id": key, "aws_secret_access_key": secret}
    if token:
        keys["aws_session_token"] = token
    places = {
        "url": recorded.url,
        "https": recorded.url.replace("http:", "https:"),
        "port": str(recorded.port),
        "ca": str(recorded.certificates.file),
        "home": str(home),
        "keys": "\n".join(f"{name} = {value}" for name, value in keys.items()),
    }

    def filled(text: str) -> str:
        for name, value in places.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    _write_files(home, filled(setting.config), filled(setting.credentials))
    variables = {
        **plain_environment(home),
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CA_BUNDLE": places["ca"],
        "HTTP_PROXY": recorded.url,
        "HTTPS_PROXY": recorded.url,
        **{name.upper(): value for name, value in keys.items()},
        **{name: filled(value) for name, value in setting.variables.items()},
    }
    arguments = [*command, *map(filled, setting.arguments)]
    given = {name: value for name, value in variables.items() if name not in setting.without}
    is_cached = _CACHED_AT_HOME.search(f"{setting.config} {setting.variables}")
    started = _new_interpreter(program) if is_cached else forks(program).run
    done = started(arguments, home, given)
    return Outcome(done.returncode, done.stderr, recorded)


def _new_interpreter(program: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return what runs a command in a process that reads ``HOME`` before it loads the program."""
    module = {"aws": "awscli"}.get(program, program)

    def run(
        arguments: Sequence[str], directory: Path, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=directory,
            env=environment,
            start_new_session=True,  # a question for an MFA code has no terminal
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
        )

    return run


def _write_files(home: Path, config: str, credentials: str) -> None:
    process = {"Version": 1, "AccessKeyId": "AKIAPROCESS000000001", "SecretAccessKey": "p" * 40}
    login = {"accessToken": "of the login", "expiresAt": "2100-01-01T00:00:00Z"}
    caches = [sha1(name).hexdigest() for name in (b"https://sso.example.com/start", b"ours")]
    files = {
        ".aws/config": config,
        ".aws/credentials": credentials,
        **{
            f".aws/sso/cache/{cached}.json": json.dumps({**login, "region": REGION})
            for cached in caches
        },
        "keys.json": json.dumps(process),
        "old.json": json.dumps({**process, "Expiration": "2020-01-01T00:00:00Z"}),
        "web-identity": "of the cluster",
        "job.json": json.dumps(job_document()),
        "file": "built",
    }
    for name, content in files.items():
        file = home / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if content:
            file.write_text(content)


def expectation(operation: str) -> dict[str, Any]:
    """Return what requests have without any setting but keys, a region and a proxy."""
    is_of_a_job = operation not in (JOB, KMS)
    return {
        "via": "tunnel",
        "login": None,
        "access_key": JOB_KEY if is_of_a_job else CALLER_KEY,
        "region": REGION,
        "service": {JOB: "codepipeline", KMS: "kms"}.get(operation, "s3"),
        "token": JOB_TOKEN if is_of_a_job else None,
        "payload": "digest" if is_of_a_job else None,
    }


def facets(sent: Sent, port: int) -> dict[str, Any]:
    """Return all of a request that a setting may govern; ``{port}`` stands for the recorder's.

    Left out are dates, ids and the signature, the User-Agent, and the Expect header, which cpstage
    does not send on purpose.
    """
    key, region, service = sent.scope or (None, None, None)
    url = sent.url.replace(f":{port}/", ":{port}/")
    authorization = sent.headers.get("authorization", "")
    return {
        "operation": sent.operation,
        "url": url,
        "host": urlsplit(url).netloc,
        "via": sent.via,
        "login": sent.login,
        "access_key": key,
        "region": region,
        "service": service,
        "token": sent.token,
        "algorithm": authorization.partition(" ")[0] if "=" in authorization else authorization,
        "region set": sent.headers.get("x-amz-region-set"),
        "payload": sent.payload,
        "signed headers": sent.signed_headers,
        "headers": sorted({*sent.headers} - {"expect"}),
        "body": _body(sent),
    }


def _body(sent: Sent) -> Any:
    """Return a body without what differs between two programs on purpose."""
    if sent.operation == KMS:  # an encrypted message has a context that the AWS CLI is not given
        return {**json.loads(sent.body), "EncryptionContext": None}
    return dict(parse_qsl(sent.body.decode())) if "Action=" in str(sent.body) else sent.body


def assert_same_requests(
    setting: Setting, operation: str, certificates: Certificates, directory: Path
) -> None:
    """Assert that a setting has its effect, and the same effect on both programs."""
    ours, theirs = side_by_side(setting, operation, certificates, directory)

    assert (theirs.status != 0) == setting.fails, theirs.stderr
    assert (ours.status != 0) == setting.fails, ours.stderr
    expected = {**expectation(operation), **setting.expected, "host": setting.hosts[operation]}
    assert_as_expected(theirs, setting, operation, expected)
    assert ours.facets(operation) == theirs.facets(operation)
    assert ours.tunnels() == theirs.tunnels()


def assert_as_expected(
    outcome: Outcome, setting: Setting, operation: str, expected: Mapping[str, object]
) -> None:
    """Assert that the setting has its effect at all."""
    sent = outcome.facets(operation)
    assert [one["operation"] for one in sent] == [*setting.before, *[operation] * setting.count]
    before, others = sent[: len(setting.before)], sent[len(setting.before) :]
    if setting.before_host:
        assert {one["host"] for one in before} == {setting.before_host}
    for one in others:
        assert {name: one[name] for name in expected} == expected


def assert_refused(
    setting: Setting, operation: str, word: str, certificates: Certificates, directory: Path
) -> None:
    """Assert that both programs refuse a setting, and cpstage with a line that has a word in it."""
    ours, theirs = side_by_side(setting, operation, certificates, directory)

    assert theirs.status != 0
    assert ours.status in (77, 78), ours.stderr
    assert ours.facets(operation) == []
    last = ours.stderr.splitlines()[-1]
    assert "cpstage: error: " in last
    assert word in last
    assert "Traceback" not in ours.stderr


def cases(settings: Iterable[Setting], *more: Iterable[str]) -> list[Any]:
    """Return the parameters of a test: a setting, an operation, and what stands beside it."""
    return [
        pytest.param(setting, operation, *others, id=f"{setting.name}-{operation}")
        for setting, *others in zip(settings, *more, strict=True)
        for operation in setting.hosts
    ]
