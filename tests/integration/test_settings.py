"""Settings and credentials of the caller, and what is said of those that cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from command_line import Cli
from constant_server import answering_server
from cpstage.local.sample import add_sample_job

if TYPE_CHECKING:
    from pathlib import Path

    from cpstage.local import LocalAWS


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


@pytest.mark.parametrize(
    ("variable", "value", "hint"),
    [
        ("AWS_PROFILE", "nowhere", "check --profile, AWS_PROFILE"),
        ("AWS_REGION", "eu west", "check --region, AWS_REGION"),
        ("AWS_REGION", "eu-west-1\nx", "check --region, AWS_REGION"),
        ("AWS_RETRY_MODE", "often", "check AWS_RETRY_MODE"),
        ("AWS_MAX_ATTEMPTS", "many", "check AWS_MAX_ATTEMPTS"),
        ("AWS_DEFAULTS_MODE", "odd", "check AWS_DEFAULTS_MODE"),
        ("AWS_REQUEST_CHECKSUM_CALCULATION", "never", "check AWS_REQUEST_CHECKSUM_CALCULATION"),
        ("AWS_ENDPOINT_URL", "nowhere", "check --endpoint-url and AWS_ENDPOINT_URL"),
    ],
)
@pytest.mark.parametrize("timeout", ["5", "300"])
def test_a_malformed_setting_is_named(
    aws: LocalAWS, cli: Cli, variable: str, value: str, hint: str, timeout: str
) -> None:
    done = cli.with_variables({variable: value})("fetch", "some-job", "--retry-timeout", timeout)

    assert done.returncode == 78, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert hint in done.stderr


def test_a_variable_that_credentials_fail_by_is_named(cli: Cli, aws: LocalAWS) -> None:
    without = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

    done = cli("fetch", "some-job", without=without, AWS_METADATA_SERVICE_TIMEOUT="soon")

    assert done.returncode == 77
    assert "check AWS_METADATA_SERVICE_TIMEOUT" in done.stderr
