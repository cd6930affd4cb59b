"""Where services are and who the caller is, held against what botocore finds out."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.config import Config
from botocore.loaders import Loader
from botocore.session import Session

from answering import answering_server
from conftest import Cli
from cpstage.aws.botocore_settings import Given
from cpstage.aws.settings import Settings
from cpstage.local import LocalAWS
from cpstage.local.sample import add_sample_job

_LOADER = Loader()
"""One for all sessions: what it has read it keeps."""

REGIONS = (
    "us-east-1",
    "eu-central-1",
    "ap-southeast-7",
    "il-central-1",
    "mx-central-1",
    "us-gov-west-1",
    "cn-north-1",
    "us-iso-east-1",
    "us-isob-east-1",
    "eu-isoe-west-1",
    "eusc-de-east-1",
    "xx-nowhere-1",
)
BUCKETS = (
    "codepipeline-eu-central-1-123456789012",
    "abc",
    "with.dots",
    "Capitals",
    "under_score",
    "a" * 63,
    "-dash",
)
ENVIRONMENTS: dict[str, dict[str, str]] = {
    "nothing": {},
    "one endpoint": {"AWS_ENDPOINT_URL": "http://localhost:9000"},
    "one endpoint with a path": {"AWS_ENDPOINT_URL": "https://gateway.example.com/aws"},
    "an endpoint each": {
        "AWS_ENDPOINT_URL": "http://localhost:9000",
        "AWS_ENDPOINT_URL_S3": "https://store.example.com",
        "AWS_ENDPOINT_URL_KMS": "https://keys.example.com:8443",
        "AWS_ENDPOINT_URL_CODEPIPELINE": "http://127.0.0.1:81",
        "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:83/sts",
    },
    "empty endpoints": {"AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_S3": ""},
    "endpoints ignored": {
        "AWS_ENDPOINT_URL": "http://localhost:9000",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
    },
    "FIPS": {"AWS_USE_FIPS_ENDPOINT": "true"},
    "dual stack": {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
    "another profile": {"AWS_PROFILE": "mine"},
    "services of a profile": {"AWS_PROFILE": "served"},
    "addressing by path": {"AWS_PROFILE": "path"},
    "addressing by host": {"AWS_PROFILE": "virtual", "AWS_ENDPOINT_URL": "http://localhost:9000"},
    "regional endpoints": {"AWS_S3_US_EAST_1_REGIONAL_ENDPOINT": "regional"},
    "a default region": {"AWS_DEFAULT_REGION": "eu-west-1"},
    "no such configuration": {
        "AWS_CONFIG_FILE": "/nowhere/config",
        "AWS_SHARED_CREDENTIALS_FILE": "~/keys",
    },
    "a configuration without default": {"AWS_CONFIG_FILE": "$HOME/plain"},
    "a default profile": {"AWS_CONFIG_FILE": "$HOME/default"},
    "a default that is quoted": {"AWS_CONFIG_FILE": "~/quoted"},
    "defaults with the credentials": {"AWS_SHARED_CREDENTIALS_FILE": "~/keys"},
    "keys": {"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "secret"},
    "keys with a token": {
        "AWS_ACCESS_KEY_ID": "AKIAENV",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "token",
    },
    "keys with an old token": {
        "AWS_ACCESS_KEY_ID": "AKIAENV",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SECURITY_TOKEN": "token",
    },
    "keys and a profile": {
        "AWS_PROFILE": "mine",
        "AWS_ACCESS_KEY_ID": "AKIAENV",
        "AWS_SECRET_ACCESS_KEY": "secret",
    },
}
FILES = {
    ".aws/config": """
[profile mine]
region = eu-west-3
[profile other]
ca_bundle = /other/bundle
[profile served]
services = mine
region = eu-north-1
[services mine]
s3 =
  endpoint_url = https://store.example.com:444
kms =
  endpoint_url = http://keys.example.com/path
[profile path]
region = eu-central-1
s3 =
  addressing_style = path
[profile virtual]
region = eu-central-1
s3 =
  addressing_style = virtual
""",
    ".aws/credentials": """
[mine]
aws_access_key_id = AKIAMINE
aws_secret_access_key = mine
aws_session_token = its
""",
    "plain": "[profile other]\nregion = eu-west-2\n",
    "default": (
        "[profile other]\nregion = eu-west-2\n"
        "[default]\nregion = ca-central-1\nendpoint_url = http://127.0.0.1:82\n"
    ),
    "quoted": '[profile other]\n[profile "default"]\nregion = ca-west-1\nca_bundle = /its/bundle\n',
    "keys": (
        "[other]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = other\n"
        "[default]\naws_access_key_id = AKIAFILE\naws_secret_access_key = file\n"
        "region = ap-south-1\nendpoint_url = http://127.0.0.1:83\n"
    ),
}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where nobody has configured anything but these files."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "REQUESTS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)


def _set(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def _session(given: Given) -> Session:
    session = Session(profile=given.profile)
    session.register_component("data_loader", _LOADER)
    return session


def _client(service: str, region: str, given: Given) -> Any:
    return _session(given).create_client(
        service,
        region_name=region,
        endpoint_url=given.endpoint_url,
        aws_access_key_id="nobody",
        aws_secret_access_key="nothing",
        config=Config(signature_version="s3v4" if service == "s3" else None),
    )


class _Kept(Exception):
    """A request of botocore that is not sent."""


def _keep(request: AWSPreparedRequest, **_: object) -> None:
    raise _Kept(request.url, request.headers)


def _their_object(bucket: str, region: str, given: Given) -> tuple[str, str]:
    """Where a request for an object would go, and what region it would be signed for."""
    client = _client("s3", region, given)
    client.meta.events.register("before-send.s3", _keep)
    with pytest.raises(_Kept) as kept:
        client.head_object(Bucket=bucket, Key="key")
    return _where_and_for(kept.value)


def _where_and_for(kept: _Kept) -> tuple[str, str]:
    url, headers = kept.args
    signed = re.search(rb"Credential=[^/]+/[^/]+/([^/]+)", headers["Authorization"])
    assert signed is not None
    return url, signed[1].decode()


def _our_object(bucket: str, region: str, given: Given) -> tuple[str, str]:
    found = Settings(given).bucket(bucket, region)
    return f"{found.origin}{found.path}/key", found.region


def _regional(url: str) -> str:
    """The name that AWS recommends for where botocore still says the older one."""
    return url.replace("s3.amazonaws.com", "s3.us-east-1.amazonaws.com")


@pytest.mark.parametrize("bucket", BUCKETS)
@pytest.mark.parametrize("region", ["eu-central-1", "cn-north-1"])
def test_a_bucket_is_where_botocore_says(bucket: str, region: str) -> None:
    ours = _our_object(bucket, region, Given())

    assert ours == _their_object(bucket, region, Given())


def test_an_access_point_is_where_botocore_says() -> None:
    name = "arn:aws:s3:eu-central-1:123456789012:accesspoint/mine"
    ours = _our_object(name, "eu-central-1", Given())

    assert ours == _their_object(name, "eu-central-1", Given())


@pytest.mark.parametrize("region", REGIONS)
def test_a_service_is_where_botocore_says_in_every_partition(region: str) -> None:
    settings = Settings(Given())

    for service in ("codepipeline", "kms", "sts"):
        found = settings.endpoint(service, region)
        assert str(found.origin) == _client(service, region, Given()).meta.endpoint_url
    place, signed_for = _their_object("a-bucket", region, Given())
    assert _our_object("a-bucket", region, Given()) == (_regional(place), signed_for)


@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.parametrize(
    "given", [Given(), Given(region="ap-east-1", profile="other")], ids=["", "options"]
)
def test_an_environment_says_what_it_says_to_botocore(
    monkeypatch: pytest.MonkeyPatch, name: str, given: Given
) -> None:
    _set(monkeypatch, ENVIRONMENTS[name])
    settings, session = Settings(given), _session(given)

    region = given.region or session.get_config_variable("region")
    assert settings.region("us-west-2") == (region or "us-west-2")
    assert settings.ca_bundle() == session.get_config_variable("ca_bundle")
    where = settings.region("us-west-2")
    for service in ("codepipeline", "kms", "sts"):
        found = settings.endpoint(service, where)
        theirs = _client(service, where, given).meta.endpoint_url
        assert f"{found.origin}{found.path}" == theirs
        assert found.region == where
    for bucket in ("a-bucket", "with.dots"):
        place, signed_for = _their_object(bucket, where, given)
        assert _our_object(bucket, where, given) == (place, signed_for)
    keys = session.get_credentials()
    if keys is None:
        return
    theirs, ours = keys.get_frozen_credentials(), settings.credentials().get_frozen_credentials()
    assert (ours.access_key, ours.secret_key, ours.token) == (
        theirs.access_key,
        theirs.secret_key,
        theirs.token,
    )


@pytest.mark.parametrize("region", ["eu-central-1", "il-central-1", "cn-north-1"])
def test_the_one_sts_of_all_regions_is_signed_for_as_botocore_does_it(
    monkeypatch: pytest.MonkeyPatch, region: str
) -> None:
    monkeypatch.setenv("AWS_STS_REGIONAL_ENDPOINTS", "legacy")
    client = _client("sts", region, Given())
    client.meta.events.register("before-send.sts", _keep)
    with pytest.raises(_Kept) as kept:
        client.get_caller_identity()

    found = Settings(Given()).endpoint("sts", region)

    assert (f"{found.origin}/", found.region) == _where_and_for(kept.value)


@pytest.mark.parametrize("url", ["http://localhost:9001", "https://store.example.com/prefix"])
def test_an_endpoint_that_is_given_comes_first(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    _set(monkeypatch, ENVIRONMENTS["an endpoint each"])
    given = Given(endpoint_url=url)

    for service in ("codepipeline", "kms", "sts"):
        found = Settings(given).endpoint(service, "eu-west-1")
        assert f"{found.origin}{found.path}" == url
    theirs = _their_object("a-bucket", "eu-west-1", given)
    assert _our_object("a-bucket", "eu-west-1", given) == theirs


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "ftp://example.com",
        "ftp://example.com:21",
        "http://a b/",
        "http://a..b/",
        f"http://{'a' * 64}.example.com/",
        "http://example.com/a b",
        "http://example.com:99999",
        "http://example.com/?query",
        "http://[::1",
        "http://someone:canary@example.com/?query",
        "http://someone:canary@ex℀mple.com/",
    ],
)
def test_an_endpoint_that_is_no_url_is_refused(aws: LocalAWS, cli: Cli, url: str) -> None:
    done = cli("fetch", "some-job", AWS_ENDPOINT_URL=url)

    assert done.returncode == 78, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "canary" not in done.stderr


HELPERS = {
    "prints a list": "echo []",
    "prints nothing": "true",
    "prints no JSON": "echo canary",
    "prints half": """echo '{"Version": 1, "AccessKeyId": "canary"}'""",
    "fails": "false",
    "is not there": "/nowhere/helper",
}


@pytest.mark.parametrize("helper", HELPERS.values(), ids=HELPERS)
def test_a_helper_without_credentials_is_told(
    aws: LocalAWS, cli: Cli, tmp_path: Path, helper: str
) -> None:
    script = tmp_path / "helper.sh"
    script.write_text(helper)
    config = tmp_path / "its-config"
    program = helper if helper.startswith("/") else f"sh {script}"
    config.write_text(f"[default]\nregion = us-east-1\ncredential_process = {program}\n")
    without = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

    done = cli("fetch", "some-job", without=without, AWS_CONFIG_FILE=str(config))

    assert done.returncode == 77, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "canary" not in done.stderr


@pytest.fixture
def role(cli: Cli, tmp_path: Path) -> Cli:
    """A caller whose profile is a role, which the caller's own keys may ask for."""
    variables = cli.environment
    config = tmp_path / "roles"
    config.write_text(
        "[profile role]\nregion = us-east-1\nsource_profile = own\n"
        "role_arn = arn:aws:iam::123456789012:role/Worker\n"
        f"[profile own]\naws_access_key_id = {variables['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {variables['AWS_SECRET_ACCESS_KEY']}\n"
    )
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    plain = {name: value for name, value in variables.items() if name not in keys}
    more = {"AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "role", "AWS_MAX_ATTEMPTS": "1"}
    return Cli({**plain, **more}, cli.directory)


def _assumed(operation: str, aws: LocalAWS) -> bytes:
    """What STS answers: credentials, which here are those that the local AWS knows."""
    keys = aws.environment
    return (
        f'<{operation}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
        f"<{operation}Result><Credentials>"
        f"<AccessKeyId>{keys['AWS_ACCESS_KEY_ID']}</AccessKeyId>"
        f"<SecretAccessKey>{keys['AWS_SECRET_ACCESS_KEY']}</SecretAccessKey>"
        "<SessionToken></SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration>"
        f"</Credentials></{operation}Result></{operation}Response>"
    ).encode()


def test_a_caller_may_be_a_role(aws: LocalAWS, role: Cli) -> None:
    with answering_server(200, _assumed("AssumeRole", aws)) as sts:
        done = role("show", add_sample_job(aws), AWS_ENDPOINT_URL_STS=sts)

    assert done.returncode == 0, done.stderr


def test_a_caller_may_be_a_pod_with_a_web_identity(
    aws: LocalAWS, role: Cli, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("of the cluster")
    variables = {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/Worker",
    }
    with answering_server(200, _assumed("AssumeRoleWithWebIdentity", aws)) as sts:
        pod = role.with_variables({**variables, "AWS_ENDPOINT_URL_STS": sts})
        done = pod("show", add_sample_job(aws), without=("AWS_PROFILE", "AWS_CONFIG_FILE"))

    assert done.returncode == 0, done.stderr


def test_who_may_not_be_the_role_is_told(aws: LocalAWS, role: Cli) -> None:
    done = role("show", "some-job")

    assert done.returncode == 77, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "AssumeRole was refused: AccessDenied: User: arn:aws:iam::" in done.stderr


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [(403, "SignatureDoesNotMatch", 77), (403, "ExpiredToken", 77), (503, "Throttling", 69)],
)
def test_what_sts_quotes_of_a_request_is_not_told(
    role: Cli, status: int, code: str, exit_code: int
) -> None:
    words = "The canonical string is x-amz-security-token:canary"
    error = f"<Error><Code>{code}</Code><Message>{words}</Message></Error>"
    answer = f"<ErrorResponse>{error}</ErrorResponse>"
    with answering_server(status, answer.encode()) as sts:
        done = role("show", "some-job", "--debug", AWS_ENDPOINT_URL_STS=sts)

    assert done.returncode == exit_code, done.stderr
    assert f"AssumeRole was refused: {code};" in done.stderr
    assert "canary" not in done.stderr


def test_sso_without_a_login_is_told(role: Cli, tmp_path: Path) -> None:
    config = tmp_path / "sso"
    config.write_text(
        "[profile role]\nregion = us-east-1\nsso_region = us-east-1\n"
        "sso_start_url = https://sso.example.com\nsso_account_id = 123456789012\n"
        "sso_role_name = Worker\n"
    )

    done = role.with_variables({"AWS_CONFIG_FILE": str(config)})("show", "some-job")

    assert done.returncode == 77, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "SSO" in done.stderr


@pytest.mark.parametrize("variable", ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"])
def test_a_file_that_is_not_utf8_is_named(
    aws: LocalAWS, cli: Cli, tmp_path: Path, variable: str
) -> None:
    file = tmp_path / "latin"
    file.write_bytes(b"[default]\naws_secret_access_key = can\xe4ry\n")
    without = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

    done = cli.with_variables({variable: str(file)})("fetch", "some-job", without=without)

    assert done.returncode in (77, 78), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert str(file) in done.stderr
