"""A program's own boto3 session: its credentials, settings, event handlers and loggers are used."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import pickle
import socket
import ssl
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config
from botocore.credentials import CredentialProvider, CredentialResolver, RefreshableCredentials
from botocore.loaders import Loader
from botocore.response import StreamingBody
from botocore.stub import Stubber

import cpstage
from cpstage import AwsConfig
from cpstage.local import LocalAWS
from recording_server import (
    BUCKET,
    JOB_KEY,
    JOB_TOKEN,
    OUTPUT_KEY,
    Certificates,
    Recorder,
    job_document,
    recorder,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

JOB, HEAD, GET, PUT = "GetJobDetails", "HeadObject", "GetObject", "PutObject"
KEY, SECRET, TOKEN = "AKIASESSIONSESSION01", "session-secret" * 3, "session-token" * 3


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Leave no setting but those of the test."""
    for name in [*os.environ]:
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def aws(certificates: Certificates) -> Iterator[Recorder]:
    with recorder(certificates) as recorded:
        yield recorded


def session_of(**settings: Any) -> boto3.Session:
    return boto3.Session(
        **{
            "aws_access_key_id": KEY,
            "aws_secret_access_key": SECRET,
            "region_name": "ap-south-1",
            **settings,
        }
    )


def connection_of(aws: Recorder, session: boto3.Session | None, **settings: Any) -> AwsConfig:
    return AwsConfig(session=session, endpoint_url=aws.url, **settings)


def fetch(config: AwsConfig, directory: Path) -> None:
    """Call GetJobDetails, and S3 with what it returns."""
    job = cpstage.get_job("some-job", config=config)
    unpacking = cpstage.Unpacking(unpack=False)
    cpstage.fetch(job, directory, cpstage.FetchOptions(unpacking=unpacking), config=config)


def with_defaults(**options: Any) -> boto3.Session:
    """Return a session whose clients have a config of their own."""
    inner = botocore.session.Session()
    inner.set_default_client_config(Config(**options))
    return session_of(botocore_session=inner)


def test_the_job_is_asked_for_as_the_session_and_its_artifacts_as_the_job(
    aws: Recorder, tmp_path: Path
) -> None:
    fetch(connection_of(aws, session_of(aws_session_token=TOKEN)), tmp_path)

    (asked,) = aws.sent(JOB)
    assert asked.scope == (KEY, "ap-south-1", "codepipeline")
    assert asked.token == TOKEN
    assert [one.operation for one in aws.requests] == [JOB, HEAD, GET]
    for sent in aws.requests[1:]:
        assert sent.scope == (JOB_KEY, "ap-south-1", "s3")
        assert sent.token == JOB_TOKEN


def test_the_session_of_setup_default_session_is_used(aws: Recorder, tmp_path: Path) -> None:
    boto3.setup_default_session(
        aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="ap-south-1"
    )

    fetch(connection_of(aws, None), tmp_path)

    assert [one.scope for one in aws.requests[:2]] == [
        (KEY, "ap-south-1", "codepipeline"),
        (JOB_KEY, "ap-south-1", "s3"),
    ]


def test_no_default_session_is_set_up(aws: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)

    cpstage.get_job("some-job", config=connection_of(aws, None, region="eu-west-1"))

    assert boto3.DEFAULT_SESSION is None


def test_options_of_a_connection_come_before_the_session(aws: Recorder) -> None:
    session = session_of()
    cpstage.get_job("some-job", config=connection_of(aws, session, region="eu-west-1"))

    assert [one.scope for one in aws.requests] == [(KEY, "eu-west-1", "codepipeline")]


def test_the_region_of_a_session_comes_before_the_environment(
    aws: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    cpstage.get_job("some-job", config=connection_of(aws, session_of()))

    assert [one.scope for one in aws.requests] == [(KEY, "ap-south-1", "codepipeline")]


def test_the_region_of_a_default_session_comes_before_the_environment(
    aws: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    boto3.setup_default_session(
        aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="ap-south-1"
    )
    cpstage.get_job("some-job", config=connection_of(aws, None))

    assert [one.scope for one in aws.requests] == [(KEY, "ap-south-1", "codepipeline")]


def test_a_session_of_a_profile(aws: Recorder, tmp_path: Path) -> None:
    config = tmp_path / ".aws/config"
    config.parent.mkdir()
    config.write_text(
        f"[profile build]\nregion = us-west-2\nendpoint_url = {aws.url}\n"
        f"aws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    )
    session = boto3.Session(profile_name="build")

    fetch(AwsConfig(session=session), tmp_path)

    assert [one.scope for one in aws.requests[:2]] == [
        (KEY, "us-west-2", "codepipeline"),
        (JOB_KEY, "us-west-2", "s3"),
    ]


def test_requests_without_a_signature(aws: Recorder) -> None:
    config = connection_of(aws, session_of(), sign_requests=False)
    cpstage.get_job("some-job", config=config)

    assert [one.scope for one in aws.requests] == [None]


def test_event_handlers_of_a_session_see_all_requests(aws: Recorder, tmp_path: Path) -> None:
    session = session_of()
    seen: list[str] = []

    def note(request: Any, event_name: str, **_: Any) -> None:
        seen.append(event_name)

    session.events.register("before-send.*", note)
    fetch(connection_of(aws, session), tmp_path)

    assert seen == [
        "before-send.codepipeline.GetJobDetails",
        "before-send.s3.HeadObject",
        "before-send.s3.GetObject",
    ]


def test_event_handlers_of_a_session_change_requests(aws: Recorder, tmp_path: Path) -> None:
    session = session_of()

    def add(params: dict[str, Any], **_: Any) -> None:
        params["headers"]["x-amz-meta-build"] = "17"

    session.events.register("before-call", add)
    fetch(connection_of(aws, session), tmp_path)

    assert [one.operation for one in aws.requests] == [JOB, HEAD, GET]
    for sent in aws.requests:
        assert sent.headers["x-amz-meta-build"] == "17"
        assert "x-amz-meta-build" in sent.signed_headers


def test_event_handlers_of_a_session_answer_requests(aws: Recorder) -> None:
    """This is how moto's mock_aws answers."""
    session = session_of()
    document = json.dumps(job_document()).encode()

    class Raw(io.BytesIO):
        def stream(self, **_: Any) -> Iterator[bytes]:
            yield self.read()

    def answer(request: Any, **_: Any) -> Any:
        return AWSResponse(request.url, 200, HTTPHeaders(), Raw(document))

    session.events.register("before-send.codepipeline.GetJobDetails", answer)
    job = cpstage.get_job("some-job", config=connection_of(aws, session))

    assert job.id == "some-job"
    assert aws.requests == []


def test_a_session_is_left_as_it_was(aws: Recorder, tmp_path: Path) -> None:
    session = session_of()
    fetch(connection_of(aws, session), tmp_path)
    aws.requests.clear()

    sts = session.client("sts", endpoint_url=aws.url)
    answer = sts.assume_role(RoleArn="arn:aws:iam::123456789012:role/R", RoleSessionName="tests")
    session.client("s3", endpoint_url=aws.url).put_object(
        Bucket=BUCKET, Key=OUTPUT_KEY, Body=b"built"
    )

    assert isinstance(answer["Credentials"]["Expiration"], datetime)
    assert [one.access_key for one in aws.requests] == [KEY, KEY]
    assert not any("cpstage" in one.headers["user-agent"] for one in aws.requests)
    assert aws.requests[-1].headers["expect"] == "100-continue"


def session_that_refreshes(*lives: timedelta) -> tuple[boto3.Session, list[str]]:
    """Return a session with new credentials for every request, and the access keys so far.

    Args:
        lives: How long the credentials are good for, one after the other; the last one for all
            that come later.
    """
    made: list[str] = []

    def refresh() -> dict[str, str]:
        life = lives[min(len(made), len(lives) - 1)]
        made.append(f"AKIAREFRESH{len(made):09}")
        expiry = (datetime.now(timezone.utc) + life).isoformat()
        keys = {"access_key": made[-1], "secret_key": SECRET, "token": TOKEN}
        return {**keys, "expiry_time": expiry}

    class Provider(CredentialProvider):
        METHOD = CANONICAL_NAME = "tests"

        def load(self) -> RefreshableCredentials:
            always: Any = {"advisory_timeout": 10**6, "mandatory_timeout": 10**6}
            return RefreshableCredentials.create_from_metadata(
                refresh(), refresh, "tests", **always
            )

    inner = botocore.session.Session()
    inner.register_component("credential_provider", CredentialResolver([Provider()]))
    return boto3.Session(botocore_session=inner, region_name="ap-south-1"), made


def test_credentials_of_a_session_refresh_while_a_connection_is_used(aws: Recorder) -> None:
    session, made = session_that_refreshes(timedelta(hours=1))
    config = connection_of(aws, session)

    for _ in range(2):
        cpstage.get_job("some-job", config=config)

    first, second = (one.access_key for one in aws.requests)
    assert first != second
    assert second in made


@pytest.mark.parametrize("good", [0, 20], ids=["at-first", "later"])
def test_credentials_that_come_expired_are_told(aws: Recorder, good: int) -> None:
    lives = [timedelta(hours=1)] * good
    session, _ = session_that_refreshes(*lives, timedelta(hours=-1))
    config = connection_of(aws, session)

    def ask() -> None:
        for _ in range(40):
            cpstage.get_job("some-job", config=config)

    with pytest.raises(cpstage.errors.AccessDenied, match="expired"):
        ask()

    assert bool(aws.requests) == bool(good)


def test_read_timeout_of_a_session(certificates: Certificates) -> None:
    session = with_defaults(read_timeout=0.5, retries={"total_max_attempts": 1})
    with recorder(certificates, silent=frozenset({JOB})) as silent:
        began = time.monotonic()
        with pytest.raises(cpstage.errors.ServiceUnavailable):
            cpstage.get_job("some-job", config=connection_of(silent, session))

    assert time.monotonic() - began < 5
    assert len(silent.requests) == 1


def test_read_timeout_of_a_session_is_not_lengthened_by_the_retry_timeout(
    certificates: Certificates,
) -> None:
    session = with_defaults(read_timeout=0.5, retries={"total_max_attempts": 1})
    with recorder(certificates, silent=frozenset({JOB})) as silent:
        began = time.monotonic()
        with pytest.raises(cpstage.errors.ServiceUnavailable):
            cpstage.get_job("some-job", config=connection_of(silent, session, timeout=3))

    assert time.monotonic() - began < 2


def test_connect_timeout_of_a_session() -> None:
    session = with_defaults(connect_timeout=0.5, retries={"total_max_attempts": 1})
    # A listener whose queue is full answers no further connection.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as stack:
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(cpstage.errors.ServiceUnavailable, match="timeout on endpoint"):
            cpstage.get_job("some-job", config=AwsConfig(session=session, endpoint_url=url))

    assert time.monotonic() - began < 5


@pytest.mark.parametrize("attempts", [1, 2])
def test_retries_of_a_session(certificates: Certificates, tmp_path: Path, attempts: int) -> None:
    session = with_defaults(retries={"total_max_attempts": attempts, "mode": "standard"})
    busy = {JOB: 503, GET: 503}
    with recorder(certificates, statuses=busy) as aws:
        config = connection_of(aws, session)
        with pytest.raises(cpstage.errors.ServiceUnavailable):
            cpstage.get_job("some-job", config=config)
        job = cpstage.parse_job(job_document())
        with pytest.raises(cpstage.errors.ServiceUnavailable):
            cpstage.fetch(job, tmp_path, config=config)

    assert len(aws.sent(JOB)) == attempts
    assert len(aws.sent(GET)) == attempts
    assert "cfg/retry-mode#standard" in aws.requests[0].agent


def test_user_agent_of_a_session(aws: Recorder, tmp_path: Path) -> None:
    session = with_defaults(user_agent_extra="farm/17", user_agent_appid="builds")
    fetch(connection_of(aws, session), tmp_path)

    for sent in aws.requests:
        assert f"cpstage/{cpstage.__version__}" in sent.agent
        assert "app/builds" in sent.agent
        assert "farm/17" in sent.agent


def test_s3_settings_of_a_session(aws: Recorder, tmp_path: Path) -> None:
    session = with_defaults(
        s3={"addressing_style": "virtual"}, proxies={"http": aws.url}, tcp_keepalive=True
    )
    config = AwsConfig(session=session, endpoint_url="http://aws.example.com")
    fetch(config, tmp_path)

    assert [(one.host, one.via) for one in aws.requests] == [
        ("aws.example.com", "proxy"),
        (f"{BUCKET}.aws.example.com", "proxy"),
        (f"{BUCKET}.aws.example.com", "proxy"),
    ]


def test_region_of_a_sessions_config(aws: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = botocore.session.Session()
    inner.set_default_client_config(Config(region_name="us-west-2"))
    session = boto3.Session(KEY, SECRET, botocore_session=inner)
    cpstage.get_job("some-job", config=connection_of(aws, session))

    assert [one.scope for one in aws.requests] == [(KEY, "us-west-2", "codepipeline")]


@pytest.fixture
def strict(tmp_path: Path) -> Certificates:
    """Certificates of a server that wants one of its client: that in ``client.pem``."""
    certificates = Certificates(tmp_path)
    server = certificates.context("127.0.0.1")
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(certificates.file)
    certificates.context("client")
    return certificates


@pytest.mark.parametrize("parts", [1, 2], ids=["file", "certificate-and-key"])
def test_client_certificate_of_a_session(strict: Certificates, tmp_path: Path, parts: int) -> None:
    file = str(tmp_path / "client.pem")
    session = with_defaults(client_cert=file if parts == 1 else (file, file))
    with recorder(strict) as aws:
        url = aws.url.replace("http:", "https:")
        fetch(AwsConfig(session=session, endpoint_url=url, ca_bundle=str(strict.file)), tmp_path)

    assert [one.operation for one in aws.requests] == [JOB, HEAD, GET]


@pytest.mark.parametrize("parts", [1, 2], ids=["file", "certificate-and-key"])
def test_client_certificate_for_a_proxy_of_a_session(
    strict: Certificates, tmp_path: Path, parts: int
) -> None:
    """The proxies_config has no other way in: neither the environment nor a profile names it."""
    file = str(tmp_path / "client.pem")
    certificate = file if parts == 1 else (file, file)
    of_proxy = {"proxy_ca_bundle": str(strict.file), "proxy_client_cert": certificate}
    with recorder(strict) as aws:
        proxies = {"https": aws.url.replace("http:", "https:")}
        session = with_defaults(proxies=proxies, proxies_config=of_proxy)
        fetch(AwsConfig(session=session, ca_bundle=str(strict.file)), tmp_path)

    assert [one.via for one in aws.requests] == ["tunnel"] * 3


def test_a_proxy_that_wants_a_client_certificate_refuses_without(
    strict: Certificates, tmp_path: Path
) -> None:
    with recorder(strict) as aws:
        session = with_defaults(
            proxies={"https": aws.url.replace("http:", "https:")},
            proxies_config={"proxy_ca_bundle": str(strict.file)},
        )
        config = AwsConfig(session=session, ca_bundle=str(strict.file), timeout=0)
        with pytest.raises(cpstage.CpstageError) as refused:
            cpstage.get_job("some-job", config=config)

    # In TLS 1.3 the refusal comes after the handshake: sometimes in the middle of the request.
    assert refused.value.exit_code in (69, 78)
    assert aws.requests == []


@pytest.mark.filterwarnings(
    "ignore:Passing ssl_context:FutureWarning"
)  # of botocore's call of urllib3
@pytest.mark.parametrize("forwards", [False, True])
def test_ca_bundle_of_a_proxy_of_a_session(
    certificates: Certificates, tmp_path: Path, forwards: bool
) -> None:
    """A proxy that forwards https requests sees them; other proxies open a tunnel."""
    with recorder(certificates) as aws:
        session = with_defaults(
            proxies={"https": aws.url.replace("http:", "https:")},
            proxies_config={
                "proxy_ca_bundle": str(certificates.file),
                "proxy_use_forwarding_for_https": forwards,
            },
        )
        fetch(AwsConfig(session=session, ca_bundle=str(certificates.file)), tmp_path)

    assert [one.via for one in aws.requests] == ["proxy" if forwards else "tunnel"] * 3


@pytest.mark.skipif(bool(find_spec("awscrt")), reason="awscrt signs so")
def test_a_signature_version_of_a_session_names_the_extra_that_it_needs(aws: Recorder) -> None:
    config = connection_of(aws, with_defaults(signature_version="v4a"))

    with pytest.raises(cpstage.errors.ConfigurationError, match="v4a requires awscrt") as failed:
        cpstage.get_job("some-job", config=config)

    assert "pip install '.[crt]'" in failed.value.hint
    assert aws.requests == []


@pytest.mark.skipif(not find_spec("awscrt"), reason="awscrt (the extra crt) is not installed")
def test_a_session_signs_for_a_set_of_regions(aws: Recorder, tmp_path: Path) -> None:
    regions = "eu-west-1,us-east-1"
    session = with_defaults(signature_version="v4a", sigv4a_signing_region_set=regions)

    fetch(connection_of(aws, session), tmp_path)

    assert [one.headers["x-amz-region-set"] for one in aws.requests] == [regions] * 3
    assert [one.token for one in aws.requests] == [None, JOB_TOKEN, JOB_TOKEN]


def test_a_stubber_on_the_client_of_a_connection(aws: Recorder) -> None:
    config = connection_of(aws, session_of())
    with Stubber(config.codepipeline().boto3_client) as stubber:
        stubber.add_response("get_job_details", job_document(), {"jobId": "some-job"})
        stubber.add_client_error("get_job_details", "JobNotFoundException", http_status_code=400)
        job = cpstage.get_job("some-job", config=config)
        with pytest.raises(cpstage.errors.NotFound, match="JobNotFoundException"):
            cpstage.get_job("some-job", config=config)
        stubber.assert_no_pending_responses()

    assert job.id == "some-job"
    assert aws.requests == []


def test_a_stubber_on_every_client_of_a_session(aws: Recorder, tmp_path: Path) -> None:
    """S3's clients belong to a job: a session that stubs what it makes reaches them as well."""
    stubbers: dict[str, Stubber] = {}
    about = {"ETag": '"1"', "ContentLength": 5}
    body = StreamingBody(io.BytesIO(b"hello"), 5)
    of_range = {**about, "ContentRange": "bytes 0-4/5", "Body": body}

    class Stubbed(boto3.Session):
        def client(self, service_name: Any, *arguments: Any, **options: Any) -> Any:
            client = super().client(service_name, *arguments, **options)
            stubber = stubbers[service_name] = Stubber(client)
            if service_name == "s3":
                stubber.add_response("head_object", about)
                stubber.add_response("get_object", of_range)
            else:
                stubber.add_response("get_job_details", job_document(), {"jobId": "some-job"})
            stubber.activate()
            return client

    fetch(connection_of(aws, Stubbed(KEY, SECRET, region_name="ap-south-1")), tmp_path)

    assert aws.requests == []
    assert [*stubbers] == ["codepipeline", "s3"]
    for stubber in stubbers.values():
        stubber.assert_no_pending_responses()


@pytest.fixture
def _loggers() -> Iterator[None]:
    """Take the handlers of a test off botocore's logger."""
    logger = logging.getLogger("botocore")
    handlers, level = [*logger.handlers], logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.mark.usefixtures("_loggers")
def test_the_stream_logger_of_boto3_shows_requests(
    aws: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boto3.set_stream_logger("botocore", logging.DEBUG)
    fetch(connection_of(aws, session_of()), tmp_path)

    shown = capsys.readouterr().err
    assert "botocore.endpoint" in shown
    for operation in (JOB, HEAD, GET):
        assert f"OperationModel(name={operation})" in shown


def test_a_connection_with_a_session_cannot_be_pickled(aws: Recorder) -> None:
    config = connection_of(aws, session_of())
    for _ in range(2):  # before it has a client, and when it has one
        with pytest.raises(TypeError, match="boto3 session cannot be handed to another process"):
            pickle.dumps(config)
        cpstage.get_job("some-job", config=config)


def test_a_connection_without_a_session_can_be_pickled(
    aws: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    config = connection_of(aws, None, region="eu-west-1")
    cpstage.get_job("some-job", config=config)

    taken = pickle.loads(pickle.dumps(config))
    cpstage.get_job("some-job", config=taken)

    assert taken == config
    assert [one.scope for one in aws.requests] == [(KEY, "eu-west-1", "codepipeline")] * 2


def counted(session: boto3.Session) -> list[str]:
    """Return the services that a session has made clients of, as a list that grows."""
    services: list[str] = []

    def note(event_name: str, **_: Any) -> None:
        services.append(event_name.rpartition(".")[2])

    session.events.register("creating-client-class", note)
    return services


def test_a_connection_makes_one_client(aws: Recorder) -> None:
    session = session_of()
    services = counted(session)
    config = connection_of(aws, session)

    for _ in range(3):
        cpstage.get_job("some-job", config=config)

    assert services == ["codepipeline"]
    assert len(aws.requests) == 3
    assert aws.connections == 1


def test_threads_make_one_client(aws: Recorder) -> None:
    session = session_of()
    services = counted(session)
    config = connection_of(aws, session)

    with ThreadPoolExecutor(8) as threads:
        jobs = threads.map(
            lambda number: cpstage.get_job(f"job-{number}", config=config), range(24)
        )
        assert len([*jobs]) == 24

    assert services == ["codepipeline"]
    assert len(aws.requests) == 24
    assert aws.connections <= 8


def test_copies_of_a_connection_share_clients_as_far_as_their_settings_are_the_same(
    aws: Recorder,
) -> None:
    session = session_of()
    services = counted(session)
    config = connection_of(aws, session)
    for one in (
        config,
        replace(config, timeout=200.0),
        replace(config, region="eu-west-1"),
    ):
        cpstage.get_job("some-job", config=one)

    regions = [one.scope and one.scope[1] for one in aws.requests]
    assert regions == ["ap-south-1", "ap-south-1", "eu-west-1"]
    assert services == ["codepipeline"] * 2


def test_a_fetch_makes_one_client_of_each_service(aws: Recorder, tmp_path: Path) -> None:
    session = session_of()
    services = counted(session)
    fetch(connection_of(aws, session), tmp_path)

    assert services == ["codepipeline", "s3"]
    assert aws.connections == 2


@pytest.fixture(scope="module")
def local() -> Iterator[LocalAWS]:
    with LocalAWS() as running:
        yield running


def _work(local: LocalAWS, config: AwsConfig, directory: Path) -> None:
    queue = cpstage.worker.JobQueue(
        cpstage.job.ActionTypeId("Build", "Custom", "CpstageLocal", "1"), config
    )
    worker = cpstage.worker.Worker(
        queue,
        cpstage.worker.JobCommand(["true"]),
        cpstage.worker.JobPlaces(directory / "jobs"),
        options=cpstage.worker.WorkerOptions(once=True),
    )
    worker.work()


def _keys_of(local: LocalAWS) -> dict[str, str]:
    variables = local.environment
    return {
        "aws_access_key_id": variables["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": variables["AWS_SECRET_ACCESS_KEY"],
        "region_name": variables["AWS_DEFAULT_REGION"],
    }


def test_a_worker_with_a_session_claims_no_job(local: LocalAWS, tmp_path: Path) -> None:
    job_id = local.add_job(status="Queued")
    session = boto3.Session(**_keys_of(local))  # type: ignore[arg-type]
    config = AwsConfig(session=session, endpoint_url=local.endpoint_url)

    with pytest.raises(cpstage.CpstageError, match="session"):
        _work(local, config, tmp_path)

    assert local.job(job_id).status == "Queued"


def test_a_worker_with_a_default_session_leaves_no_job_in_progress(
    local: LocalAWS, tmp_path: Path
) -> None:
    """Either the worker refuses to begin, or the process of the job has the credentials."""
    job_id = local.add_job(status="Queued")
    boto3.setup_default_session(**_keys_of(local))  # type: ignore[arg-type]

    with suppress(cpstage.CpstageError):
        _work(local, AwsConfig(endpoint_url=local.endpoint_url), tmp_path)

    assert local.job(job_id).status in ("Queued", "Succeeded")


@pytest.mark.parametrize("ending", ["json", "json.gz"])
def test_models_of_the_caller_are_read_before_those_of_botocore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """A gzip file may have several members (RFC 1952, 2.2), as bgzip writes it."""
    model = Loader().load_service_model("codepipeline", "service-2", "2015-07-09")
    text = json.dumps({**model, "metadata": {**model["metadata"], "serviceId": "Ours"}}).encode()
    file = tmp_path / f"codepipeline/2015-07-09/service-2.{ending}"
    file.parent.mkdir(parents=True)
    packed = gzip.compress(text[:9_999]) + gzip.compress(text[9_999:])
    file.write_bytes(packed if ending == "json.gz" else text)
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))

    client = AwsConfig(region="eu-west-1", sign_requests=False).codepipeline().boto3_client

    assert client.meta.service_model.metadata["serviceId"] == "Ours"


@pytest.mark.parametrize("damage", [slice(0, -9), slice(1, None)], ids=["cut", "damaged"])
def test_a_model_that_cannot_be_unpacked_is_a_failure_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: slice
) -> None:
    file = tmp_path / "codepipeline/2015-07-09/service-2.json.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress(b'{"metadata": {}}')[damage])
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))

    with pytest.raises(OSError, match="the gzip file is "):
        AwsConfig(region="eu-west-1", sign_requests=False).codepipeline()


def test_a_boto3_that_another_thread_is_importing_has_no_default_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signal may come then, and the result is reported all the same."""
    monkeypatch.setitem(sys.modules, "boto3", ModuleType("boto3"))

    assert AwsConfig().given_session is None
