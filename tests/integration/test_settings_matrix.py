"""Settings of the AWS CLI mean to cpstage what they mean to the AWS CLI.

Each setting is given to ``cpstage get-job-details`` and ``aws codepipeline get-job-details``, or to
``cpstage fetch`` or ``push`` of a saved job and ``aws s3api`` with the job's credentials. The
requests of both are recorded and compared. What a setting does is also written down in the table,
so that a setting that both programs ignore is a failure.

A difference that is meant: cpstage reads ``AWS_REGION``, as all SDKs but botocore do.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from aws_cli_comparison import (
    GET,
    HEAD,
    JOB,
    KEYS,
    PUT,
    Setting,
    assert_as_expected,
    assert_refused,
    assert_same_requests,
    cases,
    expectation,
    side_by_side,
)
from cpstage import __version__
from recording_server import (
    ASSUMED_KEY,
    BUCKET,
    CONTAINER_KEY,
    INSTANCE_KEY,
    SSO_KEY,
    Certificates,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = pytest.mark.slow

NO_PROXY = ("HTTP_PROXY", "HTTPS_PROXY")
NO_REGION = ("AWS_DEFAULT_REGION",)
OTHER_KEYS = "aws_access_key_id = AKIAOTHER0000000001\naws_secret_access_key = other-secret\n"
OTHER_KEY = "AKIAOTHER0000000001"
SOURCE = f"[profile source]\n{OTHER_KEYS}"
ROLE = "role_arn = arn:aws:iam::123456789012:role/Worker\nrole_session_name = tests\n"
LOGIN = "Basic " + base64.b64encode(b"me:pass word").decode()

JOB_HOST, S3_HOST = "codepipeline.eu-west-1.amazonaws.com", f"{BUCKET}.s3.eu-west-1.amazonaws.com"
DEFAULT = {JOB: JOB_HOST, HEAD: S3_HOST}
LOOPBACK = {JOB: "127.0.0.1:{port}", HEAD: "127.0.0.1:{port}"}
DIRECT = {"via": "direct"}
TOKEN = "t" * 40
INSTANCE = {
    "AWS_EC2_METADATA_DISABLED": "false",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT": "{url}",
}
METADATA = (
    "PUT /latest/api/token",
    "GET /latest/meta-data/iam/security-credentials/",
    "GET /latest/meta-data/iam/security-credentials/its-role",
)
"""What an instance is asked for."""


def in_region(region: str, suffix: str = "amazonaws.com") -> dict[str, str]:
    """Return the hosts of a region."""
    return {JOB: f"codepipeline.{region}.{suffix}", HEAD: f"{BUCKET}.s3.{region}.{suffix}"}


def profile(text: str, name: str = "default") -> str:
    """Return a profile of the configuration file."""
    return f"[{name if name == 'default' else f'profile {name}'}]\n{text}\n"


REGIONS = [
    Setting("nothing-set", DEFAULT),
    Setting("AWS_DEFAULT_REGION-over-profile", DEFAULT, config=profile("region = us-west-2")),
    Setting(
        "region-of-profile",
        in_region("us-west-2"),
        without=NO_REGION,
        config=profile("region = us-west-2"),
        expected={"region": "us-west-2"},
    ),
    Setting(
        "region-of-AWS_PROFILE",
        {HEAD: in_region("ap-south-1")[HEAD]},
        {"AWS_PROFILE": "build"},
        without=NO_REGION,
        config=profile("region = us-west-2") + profile("region = ap-south-1", "build"),
        expected={"region": "ap-south-1"},
    ),
    Setting(
        "region-of-AWS_DEFAULT_PROFILE",
        {JOB: in_region("ap-south-1")[JOB]},
        {"AWS_DEFAULT_PROFILE": "build"},
        without=NO_REGION,
        config=profile("region = ap-south-1", "build"),
        expected={"region": "ap-south-1"},
    ),
    Setting(
        "--region-over-all",
        in_region("us-east-2"),
        config=profile("region = us-west-2"),
        arguments=("--region", "us-east-2"),
        expected={"region": "us-east-2"},
    ),
    Setting(
        "partition-of-China",
        in_region("cn-north-1", "amazonaws.com.cn"),
        {"AWS_DEFAULT_REGION": "cn-north-1"},
        expected={"region": "cn-north-1"},
    ),
    Setting(
        "partition-of-GovCloud",
        in_region("us-gov-west-1"),
        {"AWS_DEFAULT_REGION": "us-gov-west-1"},
        expected={"region": "us-gov-west-1"},
    ),
    Setting(
        "no-region",
        {JOB: ""},
        without=NO_REGION,
        fails=True,
        count=0,
    ),
    Setting(
        "region-that-is-malformed",
        {JOB: JOB_HOST},
        {"AWS_DEFAULT_REGION": "eu west/1"},
        fails=True,
        count=0,
    ),
]

CREDENTIALS = [
    Setting(
        "--profile-over-keys-of-environment",
        {JOB: in_region("ap-south-1")[JOB]},
        config=profile(f"region = ap-south-1\n{OTHER_KEYS}", "build"),
        arguments=("--profile", "build"),
        without=NO_REGION,
        expected={"access_key": OTHER_KEY, "region": "ap-south-1"},
    ),
    Setting(
        "--profile-for-S3",
        {HEAD: in_region("ap-south-1")[HEAD]},
        config=profile("region = ap-south-1\n{keys}", "build"),
        arguments=("--profile", "build"),
        without=NO_REGION,
        expected={"region": "ap-south-1"},
    ),
    Setting(
        "keys-of-environment-over-AWS_PROFILE",
        {JOB: JOB_HOST},
        {"AWS_PROFILE": "build"},
        config=profile(OTHER_KEYS, "build"),
    ),
    Setting(
        "AWS_PROFILE",
        {JOB: JOB_HOST},
        {"AWS_PROFILE": "build"},
        without=KEYS,
        config=profile(OTHER_KEYS, "build"),
        expected={"access_key": OTHER_KEY},
    ),
    Setting("no-such-profile", {JOB: ""}, {"AWS_PROFILE": "nowhere"}, fails=True, count=0),
    Setting(
        "credentials-file-over-config-file",
        {JOB: JOB_HOST},
        without=KEYS,
        config=profile("aws_access_key_id = AKIACONFIG\naws_secret_access_key = secret"),
        credentials=f"[default]\n{OTHER_KEYS}",
        expected={"access_key": OTHER_KEY},
    ),
    Setting(
        "files-elsewhere",
        {JOB: in_region("us-west-2")[JOB]},
        {
            "AWS_CONFIG_FILE": "{home}/.aws/credentials",
            "AWS_SHARED_CREDENTIALS_FILE": "{home}/.aws/config",
        },
        without=(*KEYS, *NO_REGION),
        config=f"[default]\n{OTHER_KEYS}",
        credentials="[default]\nregion = us-west-2\n",
        expected={"access_key": OTHER_KEY, "region": "us-west-2"},
    ),
    Setting(
        "session-token-of-environment",
        {JOB: JOB_HOST},
        {"AWS_SESSION_TOKEN": TOKEN},
        expected={"token": TOKEN},
    ),
    Setting(
        "session-token-of-profile",
        {JOB: JOB_HOST},
        without=KEYS,
        credentials=f"[default]\n{OTHER_KEYS}aws_session_token = {TOKEN}\n",
        expected={"access_key": OTHER_KEY, "token": TOKEN},
    ),
    Setting(
        "half-of-the-keys",
        {JOB: ""},
        without=("AWS_SECRET_ACCESS_KEY",),
        fails=True,
        count=0,
    ),
    Setting("no-keys", {JOB: ""}, without=KEYS, fails=True, count=0),
    Setting(
        "no-sign-request",
        {JOB: JOB_HOST},
        arguments=("--no-sign-request",),
        expected={"access_key": None, "region": None, "service": None},
    ),
    Setting(
        "role-of-a-source-profile",
        {JOB: JOB_HOST},
        {"AWS_PROFILE": "role"},
        without=KEYS,
        config=profile(f"{ROLE}external_id = ours\nsource_profile = source", "role") + SOURCE,
        expected={"access_key": ASSUMED_KEY, "token": "assumed" * 4},
        before=("AssumeRole",),
    ),
    Setting(
        "role-of-the-environment",
        {JOB: JOB_HOST},
        {"AWS_PROFILE": "role"},
        config=profile(f"{ROLE}credential_source = Environment\nduration_seconds = 900", "role"),
        arguments=("--profile", "role"),
        expected={"access_key": ASSUMED_KEY, "token": "assumed" * 4},
        before=("AssumeRole",),
    ),
    Setting(
        "role-whose-region-is-the-profiles",
        {JOB: in_region("us-west-2")[JOB]},
        without=(*KEYS, *NO_REGION),
        config=profile(f"region = us-west-2\n{ROLE}source_profile = source", "role") + SOURCE,
        arguments=("--profile", "role"),
        expected={"access_key": ASSUMED_KEY, "token": "assumed" * 4, "region": "us-west-2"},
        before=("AssumeRole",),
    ),
    Setting(
        "role-whose-region-is-an-option",
        {JOB: in_region("us-west-2")[JOB]},
        without=(*KEYS, *NO_REGION),
        config=profile(f"{ROLE}source_profile = source", "role") + SOURCE,
        arguments=("--profile", "role", "--region", "us-west-2"),
        expected={"access_key": ASSUMED_KEY, "token": "assumed" * 4, "region": "us-west-2"},
        before=("AssumeRole",),
    ),
    Setting(
        "role-beside---endpoint-url",
        {JOB: LOOPBACK[JOB]},
        without=KEYS,
        config=profile(f"{ROLE}source_profile = source", "role") + SOURCE,
        arguments=("--profile", "role", "--endpoint-url", "{url}"),
        variables={"NO_PROXY": "127.0.0.1"},
        expected={"access_key": ASSUMED_KEY, "token": "assumed" * 4, **DIRECT},
        before=("AssumeRole",),
    ),
    Setting(
        "role-and-STS-on-loopback",
        {JOB: JOB_HOST},
        {"AWS_ENDPOINT_URL_STS": "{url}", "AWS_STS_REGIONAL_ENDPOINTS": "legacy"},
        without=KEYS,
        config=profile(f"{ROLE}source_profile = source", "role") + SOURCE,
        arguments=("--profile", "role"),
        expected={"access_key": ASSUMED_KEY, "token": "assumed" * 4},
        before=("AssumeRole",),
    ),
    Setting(
        "web-identity-of-environment",
        {JOB: JOB_HOST},
        {
            "AWS_WEB_IDENTITY_TOKEN_FILE": "{home}/web-identity",
            "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/Worker",
            "AWS_ROLE_SESSION_NAME": "tests",
        },
        without=KEYS,
        expected={"access_key": ASSUMED_KEY, "token": "assumed" * 4},
        before=("AssumeRoleWithWebIdentity",),
    ),
    Setting(
        "web-identity-of-profile",
        {JOB: JOB_HOST},
        without=KEYS,
        config=profile(f"{ROLE}web_identity_token_file = {{home}}/web-identity"),
        expected={"access_key": ASSUMED_KEY, "token": "assumed" * 4},
        before=("AssumeRoleWithWebIdentity",),
    ),
    Setting(
        "credential_process",
        {JOB: JOB_HOST},
        without=KEYS,
        config=profile("credential_process = cat {home}/keys.json"),
        expected={"access_key": "AKIAPROCESS000000001"},
    ),
    Setting(
        "container",
        {JOB: JOB_HOST},
        {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": "{url}/container",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": "of the container",
        },
        without=KEYS,
        expected={"access_key": CONTAINER_KEY, "token": TOKEN},
        before=("GET /container",),
    ),
    Setting(
        "instance",
        {JOB: JOB_HOST},
        INSTANCE,
        without=KEYS,
        expected={"access_key": INSTANCE_KEY, "token": TOKEN},
        before=METADATA,
    ),
    Setting(
        "token-of-a-container-in-a-file",
        {JOB: JOB_HOST},
        {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": "{url}/container",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "{home}/web-identity",
        },
        without=KEYS,
        expected={"access_key": CONTAINER_KEY, "token": TOKEN},
        before=("GET /container",),
    ),
    Setting(
        "ec2_metadata_service_endpoint",
        {JOB: JOB_HOST},
        {"AWS_EC2_METADATA_DISABLED": "false"},
        without=KEYS,
        config=profile("ec2_metadata_service_endpoint = {url}"),
        told={"statuses": {METADATA[0]: 404}},
        expected={"access_key": INSTANCE_KEY, "token": TOKEN},
        before=METADATA,
        before_host=LOOPBACK[JOB],
    ),
    Setting(
        "AWS_METADATA_SERVICE_NUM_ATTEMPTS",
        {JOB: ""},
        {**INSTANCE, "AWS_METADATA_SERVICE_NUM_ATTEMPTS": "2"},
        without=KEYS,
        told={"statuses": {METADATA[1]: 500}},
        before=(*METADATA[:2], METADATA[1]),
        fails=True,
        count=0,
    ),
    Setting(
        "AWS_EC2_METADATA_V1_DISABLED",
        {JOB: ""},
        {**INSTANCE, "AWS_EC2_METADATA_V1_DISABLED": "true"},
        without=KEYS,
        told={"statuses": {METADATA[0]: 404}},
        before=METADATA[:1],
        fails=True,
        count=0,
    ),
    Setting(
        "sso-session",
        {JOB: JOB_HOST},
        without=KEYS,
        config=profile(
            "sso_session = ours\nsso_account_id = 123456789012\nsso_role_name = Worker\n"
            "[sso-session ours]\nsso_start_url = https://sso.example.com/start\n"
            "sso_region = us-east-2"
        ),
        expected={"access_key": SSO_KEY, "token": TOKEN},
        before=("GET /federation/credentials",),
        before_host="portal.sso.us-east-2.amazonaws.com",
    ),
    Setting(
        "sso",
        {JOB: JOB_HOST},
        without=KEYS,
        config=profile(
            "sso_start_url = https://sso.example.com/start\nsso_region = us-east-2\n"
            "sso_account_id = 123456789012\nsso_role_name = Worker"
        ),
        expected={"access_key": SSO_KEY, "token": TOKEN},
        before=("GET /federation/credentials",),
    ),
]

SERVICES = "services = local\n[services local]\n"
ENDPOINTS = [
    Setting("AWS_ENDPOINT_URL", LOOPBACK, {"AWS_ENDPOINT_URL": "{url}"}, expected={"via": "proxy"}),
    Setting(
        "AWS_ENDPOINT_URL-with-a-name",
        {JOB: "aws.example.com:8000", HEAD: "aws.example.com:8000"},
        {"AWS_ENDPOINT_URL": "http://aws.example.com:8000"},
        expected={"via": "proxy"},
    ),
    Setting(
        "AWS_ENDPOINT_URL-with-a-path",
        {JOB: "aws.example.com", HEAD: "aws.example.com"},
        {"AWS_ENDPOINT_URL": "https://aws.example.com/some/path"},
    ),
    Setting(
        "AWS_ENDPOINT_URL_S3",
        {JOB: JOB_HOST, HEAD: LOOPBACK[HEAD]},
        {"AWS_ENDPOINT_URL_S3": "{https}"},
    ),
    Setting(
        "AWS_ENDPOINT_URL_CODEPIPELINE",
        {JOB: LOOPBACK[JOB], HEAD: S3_HOST},
        {"AWS_ENDPOINT_URL_CODEPIPELINE": "{https}"},
    ),
    Setting(
        "endpoint-of-a-service-over-that-of-all",
        {JOB: "all.example.com", HEAD: "s3.example.com"},
        {
            "AWS_ENDPOINT_URL": "https://all.example.com",
            "AWS_ENDPOINT_URL_S3": "https://s3.example.com",
        },
    ),
    Setting(
        "endpoint_url-of-profile",
        {JOB: "all.example.com", HEAD: "all.example.com"},
        config=profile("endpoint_url = https://all.example.com"),
    ),
    Setting(
        "services-section",
        {JOB: "jobs.example.com", HEAD: "objects.example.com"},
        config=profile(
            f"endpoint_url = https://all.example.com\n{SERVICES}"
            "codepipeline =\n  endpoint_url = https://jobs.example.com\n"
            "s3 =\n  endpoint_url = https://objects.example.com"
        ),
    ),
    Setting(
        "environment-over-services-section",
        {JOB: "all.example.com", HEAD: "all.example.com"},
        {"AWS_ENDPOINT_URL": "https://all.example.com"},
        config=profile(
            f"{SERVICES}codepipeline =\n  endpoint_url = https://jobs.example.com\n"
            "s3 =\n  endpoint_url = https://objects.example.com"
        ),
    ),
    Setting(
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
        DEFAULT,
        {
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
            "AWS_ENDPOINT_URL": "https://all.example.com",
        },
        config=profile("endpoint_url = https://all.example.com"),
    ),
    Setting(
        "ignore_configured_endpoint_urls",
        {HEAD: S3_HOST},
        {"AWS_ENDPOINT_URL_S3": "https://s3.example.com"},
        config=profile("ignore_configured_endpoint_urls = true"),
    ),
    Setting(
        "--endpoint-url-over-all",
        {JOB: "option.example.com", HEAD: "option.example.com"},
        {
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
            "AWS_ENDPOINT_URL": "https://all.example.com",
            "AWS_ENDPOINT_URL_CODEPIPELINE": "https://jobs.example.com",
        },
        arguments=("--endpoint-url", "https://option.example.com"),
    ),
    Setting(
        "AWS_USE_FIPS_ENDPOINT",
        {
            JOB: "codepipeline-fips.us-east-1.amazonaws.com",
            HEAD: f"{BUCKET}.s3-fips.us-east-1.amazonaws.com",
        },
        {"AWS_USE_FIPS_ENDPOINT": "true", "AWS_DEFAULT_REGION": "us-east-1"},
        expected={"region": "us-east-1"},
    ),
    Setting(
        "use_fips_endpoint",
        {JOB: "codepipeline-fips.us-west-2.amazonaws.com"},
        {"AWS_DEFAULT_REGION": "us-west-2"},
        config=profile("use_fips_endpoint = true"),
        expected={"region": "us-west-2"},
    ),
    Setting(
        "AWS_USE_DUALSTACK_ENDPOINT",
        {
            JOB: "codepipeline.eu-west-1.api.aws",
            HEAD: f"{BUCKET}.s3.dualstack.eu-west-1.amazonaws.com",
        },
        {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
    ),
    Setting(
        "use_dualstack_endpoint-and-fips",
        {HEAD: f"{BUCKET}.s3-fips.dualstack.us-east-1.amazonaws.com"},
        {"AWS_DEFAULT_REGION": "us-east-1"},
        config=profile("use_dualstack_endpoint = true\nuse_fips_endpoint = true"),
        expected={"region": "us-east-1"},
    ),
]

S3 = [
    Setting(
        "addressing_style-path",
        {HEAD: "s3.eu-west-1.amazonaws.com"},
        config=profile("s3 =\n  addressing_style = path"),
    ),
    Setting(
        "addressing_style-virtual",
        {HEAD: f"{BUCKET}.localhost:{{port}}"},
        {"AWS_ENDPOINT_URL": "http://localhost:{port}"},
        config=profile("s3 =\n  addressing_style = virtual"),
        expected={"via": "proxy"},
    ),
    Setting(
        "addressing_style-path-with-an-endpoint",
        {HEAD: "s3.example.com"},
        {"AWS_ENDPOINT_URL": "https://s3.example.com"},
        config=profile("s3 =\n  addressing_style = path"),
    ),
    Setting(
        "use_accelerate_endpoint",
        {HEAD: f"{BUCKET}.s3-accelerate.amazonaws.com"},
        config=profile("s3 =\n  use_accelerate_endpoint = true"),
    ),
    Setting(
        "us_east_1_regional_endpoint",
        {HEAD: f"{BUCKET}.s3.us-east-1.amazonaws.com"},
        {"AWS_S3_US_EAST_1_REGIONAL_ENDPOINT": "regional", "AWS_DEFAULT_REGION": "us-east-1"},
        expected={"region": "us-east-1"},
    ),
    Setting(
        "us_east_1_legacy_endpoint",
        {HEAD: f"{BUCKET}.s3.amazonaws.com"},
        {"AWS_S3_US_EAST_1_REGIONAL_ENDPOINT": "legacy", "AWS_DEFAULT_REGION": "us-east-1"},
        expected={"region": "us-east-1"},
    ),
    Setting(
        "s3-us_east_1_regional_endpoint",
        {HEAD: f"{BUCKET}.s3.amazonaws.com"},
        {"AWS_DEFAULT_REGION": "us-east-1"},
        config=profile("s3 =\n  us_east_1_regional_endpoint = legacy"),
        expected={"region": "us-east-1"},
    ),
    Setting(
        "s3-use_dualstack_endpoint",
        {HEAD: f"{BUCKET}.s3.dualstack.eu-west-1.amazonaws.com"},
        config=profile("s3 =\n  use_dualstack_endpoint = true"),
    ),
    Setting("PUT-over-TLS", {PUT: S3_HOST}),
    Setting(
        "payload_signing_enabled",
        {PUT: S3_HOST},
        config=profile("s3 =\n  payload_signing_enabled = true"),
        expected={"payload": "digest"},
    ),
    Setting(
        "payload_signing_disabled",
        {PUT: S3_HOST},
        config=profile("s3 =\n  payload_signing_enabled = false"),
        expected={"payload": "UNSIGNED-PAYLOAD"},
    ),
    Setting(
        "request_checksum_calculation",
        {PUT: S3_HOST},
        {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"},
    ),
    Setting(
        "response_checksum_validation",
        {GET: S3_HOST},
        {"AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required"},
    ),
    Setting("GET-over-TLS", {GET: S3_HOST}),
]

HTTPS_ENDPOINT = {"AWS_ENDPOINT_URL": "{https}"}
TLS = [
    Setting("AWS_CA_BUNDLE", LOOPBACK, HTTPS_ENDPOINT, without=NO_PROXY, expected=DIRECT),
    Setting(
        "ca_bundle",
        {JOB: LOOPBACK[JOB]},
        HTTPS_ENDPOINT,
        without=(*NO_PROXY, "AWS_CA_BUNDLE"),
        config=profile("ca_bundle = {ca}"),
        expected=DIRECT,
    ),
    Setting(
        "REQUESTS_CA_BUNDLE",
        {JOB: LOOPBACK[JOB]},
        {**HTTPS_ENDPOINT, "REQUESTS_CA_BUNDLE": "{ca}"},
        without=(*NO_PROXY, "AWS_CA_BUNDLE"),
        expected=DIRECT,
    ),
    Setting(
        "--ca-bundle",
        {HEAD: LOOPBACK[HEAD]},
        {**HTTPS_ENDPOINT, "AWS_CA_BUNDLE": "/nowhere"},
        without=NO_PROXY,
        arguments=("--ca-bundle", "{ca}"),
        expected=DIRECT,
    ),
    Setting(
        "role-behind---ca-bundle",
        {JOB: JOB_HOST},
        without=(*KEYS, "AWS_CA_BUNDLE"),
        config=profile(f"ca_bundle = {{ca}}\n{ROLE}source_profile = source", "role") + SOURCE,
        arguments=("--profile", "role", "--ca-bundle", "{ca}"),
        expected={"access_key": ASSUMED_KEY, "token": "assumed" * 4},
        before=("AssumeRole",),
    ),
    Setting(
        "--no-verify-ssl",
        LOOPBACK,
        HTTPS_ENDPOINT,
        without=(*NO_PROXY, "AWS_CA_BUNDLE"),
        arguments=("--no-verify-ssl",),
        expected=DIRECT,
    ),
    Setting(
        "CA-that-is-not-trusted",
        {HEAD: LOOPBACK[HEAD]},
        {**HTTPS_ENDPOINT, "AWS_MAX_ATTEMPTS": "1"},
        without=(*NO_PROXY, "AWS_CA_BUNDLE"),
        fails=True,
        count=0,
    ),
]

PROXIES = [
    Setting(
        "https_proxy",
        {HEAD: S3_HOST},
        {"https_proxy": "{url}"},
        without=NO_PROXY,
    ),
    Setting(
        "http_proxy",
        {JOB: LOOPBACK[JOB]},
        {"http_proxy": "{url}", "AWS_ENDPOINT_URL": "{url}"},
        without=NO_PROXY,
        expected={"via": "proxy"},
    ),
    Setting(
        "HTTPS_PROXY-without-scheme",
        {JOB: JOB_HOST},
        {"HTTPS_PROXY": "127.0.0.1:{port}"},
    ),
    Setting("https-proxy", DEFAULT, {"HTTPS_PROXY": "{https}"}),
    Setting(
        "https-proxy-for-http",
        {JOB: "aws.example.com"},
        {"HTTP_PROXY": "{https}", "AWS_ENDPOINT_URL": "http://aws.example.com"},
        expected={"via": "proxy"},
    ),
    Setting(
        "proxy-with-a-login",
        DEFAULT,
        {"HTTPS_PROXY": "http://me:pass%20word@127.0.0.1:{port}"},
        told={"login": LOGIN},
        expected={"login": LOGIN},
    ),
    Setting(
        "proxy-with-a-login-for-http",
        {JOB: "aws.example.com", HEAD: "aws.example.com"},
        {
            "HTTP_PROXY": "http://me:pass%20word@127.0.0.1:{port}",
            "AWS_ENDPOINT_URL": "http://aws.example.com",
        },
        told={"login": LOGIN},
        expected={"login": LOGIN, "via": "proxy"},
    ),
    Setting(
        "proxy-without-its-login",
        {HEAD: S3_HOST},
        {"AWS_MAX_ATTEMPTS": "1"},
        told={"login": LOGIN},
        fails=True,
        count=0,
    ),
    Setting(
        "NO_PROXY",
        LOOPBACK,
        {"NO_PROXY": "example.com,127.0.0.1", "AWS_ENDPOINT_URL": "{url}"},
        expected=DIRECT,
    ),
    Setting(
        "no_proxy-of-everything",
        {HEAD: LOOPBACK[HEAD]},
        {"no_proxy": "*", "AWS_ENDPOINT_URL": "{https}"},
        expected=DIRECT,
    ),
    Setting(
        "role-behind-a-proxy-with-a-login",
        {JOB: JOB_HOST},
        {"HTTPS_PROXY": "http://me:pass%20word@127.0.0.1:{port}"},
        without=KEYS,
        config=profile(f"{ROLE}source_profile = source", "role") + SOURCE,
        arguments=("--profile", "role"),
        told={"login": LOGIN},
        expected={"access_key": ASSUMED_KEY, "token": "assumed" * 4, "login": LOGIN},
        before=("AssumeRole",),
    ),
]

RETRIED = {JOB: JOB_HOST, GET: S3_HOST}
BUSY: Mapping[str, Any] = {
    "told": {"statuses": {JOB: 503, HEAD: 503, "GetObject": 503, PUT: 503}},
    "fails": True,
}
BUSY_GET: Mapping[str, Any] = {"told": {"statuses": {JOB: 503, GET: 503}}, "fails": True}
RETRIES = [
    Setting("AWS_MAX_ATTEMPTS-1", {JOB: JOB_HOST}, {"AWS_MAX_ATTEMPTS": "1"}, **BUSY_GET),
    Setting("AWS_MAX_ATTEMPTS-3", RETRIED, {"AWS_MAX_ATTEMPTS": "3"}, **BUSY_GET, count=3),
    Setting("attempts-of-PUT", {PUT: S3_HOST}, {"AWS_MAX_ATTEMPTS": "2"}, **BUSY, count=2),
    Setting(
        "attempts-of-HEAD",
        {HEAD: S3_HOST},
        {"AWS_MAX_ATTEMPTS": "2"},
        **BUSY,
        count=2,
    ),
    Setting(
        "max_attempts", {GET: S3_HOST}, config=profile("max_attempts = 2"), **BUSY_GET, count=2
    ),
    Setting(
        "AWS_MAX_ATTEMPTS-over-max_attempts",
        {JOB: JOB_HOST},
        {"AWS_MAX_ATTEMPTS": "2"},
        config=profile("max_attempts = 5\nretry_mode = standard"),
        **BUSY,
        count=2,
    ),
    Setting("AWS_RETRY_MODE", {GET: S3_HOST}, {"AWS_RETRY_MODE": "standard"}, **BUSY_GET, count=3),
    Setting(
        "retry_mode",
        {JOB: JOB_HOST},
        config=profile("retry_mode = adaptive\nmax_attempts = 2"),
        **BUSY,
        count=2,
    ),
    Setting(
        "retries-of-a-role",
        {JOB: ""},
        {"AWS_MAX_ATTEMPTS": "2"},
        without=KEYS,
        config=profile(f"{ROLE}source_profile = source", "role") + SOURCE,
        arguments=("--profile", "role"),
        told={"statuses": {"AssumeRole": 503}},
        before=("AssumeRole", "AssumeRole"),
        fails=True,
        count=0,
    ),
    Setting(
        "--cli-read-timeout",
        {JOB: JOB_HOST},
        {"AWS_MAX_ATTEMPTS": "2"},
        arguments=("--cli-read-timeout", "1"),
        told={"silent": frozenset({JOB})},
        fails=True,
        count=2,
    ),
]

OTHERS = [
    Setting("tcp_keepalive", {HEAD: S3_HOST}, config=profile("tcp_keepalive = true")),
    Setting("defaults_mode", DEFAULT, {"AWS_DEFAULTS_MODE": "standard"}),
    Setting(
        "parameter_validation", {HEAD: S3_HOST}, config=profile("parameter_validation = false")
    ),
    Setting("AWS_DATA_PATH", {JOB: JOB_HOST}, {"AWS_DATA_PATH": "{home}/models"}),
    Setting(
        "compression",
        {JOB: JOB_HOST},
        {"AWS_DISABLE_REQUEST_COMPRESSION": "true", "AWS_REQUEST_MIN_COMPRESSION_SIZE_BYTES": "1"},
    ),
]

AGENTS = [
    (Setting("sdk_ua_app_id", {HEAD: S3_HOST}, config=profile("sdk_ua_app_id = farm")), "app/farm"),
    (Setting("AWS_SDK_UA_APP_ID", {JOB: ""}, {"AWS_SDK_UA_APP_ID": "farm"}), "app/farm"),
    (Setting("AWS_EXECUTION_ENV", {HEAD: ""}, {"AWS_EXECUTION_ENV": "CI"}), "exec-env/CI"),
    (Setting("mode", {JOB: ""}, {"AWS_RETRY_MODE": "adaptive"}), "cfg/retry-mode#adaptive"),
]

NOTHING_SENT: Mapping[str, Any] = {"fails": True, "count": 0}
WITHOUT_KEYS: Mapping[str, Any] = {"without": KEYS, **NOTHING_SENT}
MALFORMED = [
    (Setting("AWS_RETRY_MODE", {JOB: ""}, {"AWS_RETRY_MODE": "often"}, **NOTHING_SENT), "often"),
    (
        Setting(
            "AWS_MAX_ATTEMPTS-many",
            {JOB: ""},
            {"AWS_MAX_ATTEMPTS": "many"},
            **NOTHING_SENT,
        ),
        "AWS_MAX_ATTEMPTS",
    ),
    (
        Setting("AWS_MAX_ATTEMPTS-0", {JOB: ""}, {"AWS_MAX_ATTEMPTS": "0"}, **NOTHING_SENT),
        "max_attempts",
    ),
    (
        Setting(
            "addressing_style",
            {HEAD: ""},
            config=profile("s3 =\n  addressing_style = odd"),
            **NOTHING_SENT,
        ),
        "addressing style odd",
    ),
    (
        Setting(
            "s3-without-settings",
            {HEAD: ""},
            config=profile("s3 = 3"),
            **NOTHING_SENT,
        ),
        "s3",
    ),
    (
        Setting(
            "AWS_REQUEST_CHECKSUM_CALCULATION",
            {PUT: ""},
            {"AWS_REQUEST_CHECKSUM_CALCULATION": "odd"},
            **NOTHING_SENT,
        ),
        "request_checksum_calculation",
    ),
    (
        Setting(
            "AWS_ACCOUNT_ID_ENDPOINT_MODE",
            {JOB: ""},
            {"AWS_ACCOUNT_ID_ENDPOINT_MODE": "odd"},
            **NOTHING_SENT,
        ),
        "check AWS_ACCOUNT_ID_ENDPOINT_MODE",
    ),
    (
        Setting("defaults_mode", {HEAD: ""}, config=profile("defaults_mode = odd"), **NOTHING_SENT),
        "defaults mode: odd",
    ),
    (
        Setting(
            "api_versions",
            {JOB: ""},
            config=profile("api_versions =\n  codepipeline = 2000-01-01"),
            **NOTHING_SENT,
        ),
        "2000-01-01",
    ),
    (
        Setting("services", {JOB: ""}, config=profile("services = nowhere"), **NOTHING_SENT),
        "nowhere",
    ),
    (
        Setting(
            "ca_bundle",
            {JOB: ""},
            {"AWS_CA_BUNDLE": "/nowhere", "AWS_MAX_ATTEMPTS": "1"},
            **NOTHING_SENT,
        ),
        "/nowhere",
    ),
    (
        Setting(
            "source_profile-that-is-missing",
            {JOB: ""},
            config=profile(f"{ROLE}source_profile = nowhere"),
            **WITHOUT_KEYS,
        ),
        "nowhere",
    ),
    (
        Setting(
            "web_identity_token_file-that-is-missing",
            {JOB: ""},
            config=profile(f"{ROLE}web_identity_token_file = /nowhere/token"),
            **WITHOUT_KEYS,
        ),
        "/nowhere/token",
    ),
    (
        Setting(
            "role-with-MFA-and-nobody-to-ask",
            {JOB: ""},
            config=profile(f"{ROLE}source_profile = source\nmfa_serial = arn:mfa") + SOURCE,
            **WITHOUT_KEYS,
        ),
        "MFA",
    ),
    (
        Setting(
            "credentials-that-have-expired",
            {JOB: ""},
            {"AWS_CREDENTIAL_EXPIRATION": "2020-01-01T00:00:00Z"},
            **NOTHING_SENT,
        ),
        "expired",
    ),
    (
        Setting(
            "credential_process-with-what-has-expired",
            {JOB: ""},
            config=profile("credential_process = cat {home}/old.json"),
            **WITHOUT_KEYS,
        ),
        "expired",
    ),
]

MATRIX = [*REGIONS, *CREDENTIALS, *ENDPOINTS, *S3, *TLS, *PROXIES, *RETRIES, *OTHERS]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("ca"))


@pytest.mark.parametrize(("setting", "operation"), cases(MATRIX))
def test_a_setting_means_what_it_means_to_the_aws_cli(
    certificates: Certificates, tmp_path: Path, setting: Setting, operation: str
) -> None:
    assert_same_requests(setting, operation, certificates, tmp_path)


@pytest.mark.parametrize(("setting", "operation", "part"), cases(*zip(*AGENTS, strict=True)))
def test_the_user_agent(
    certificates: Certificates, tmp_path: Path, setting: Setting, operation: str, part: str
) -> None:
    ours, theirs = side_by_side(setting, operation, certificates, tmp_path)

    for outcome in (ours, theirs):
        assert outcome.status == 0, outcome.stderr
        for sent in outcome.sent(operation):
            assert part in sent.agent
            for start in ("md/Botocore#", "ua/2.", "os/", "lang/python#", "cfg/retry-mode#"):
                assert any(one.startswith(start) for one in sent.agent)
    assert all(f"cpstage/{__version__}" in sent.agent for sent in ours.sent(operation))


@pytest.mark.parametrize(("setting", "operation", "word"), cases(*zip(*MALFORMED, strict=True)))
def test_a_malformed_setting_is_told(
    certificates: Certificates, tmp_path: Path, setting: Setting, operation: str, word: str
) -> None:
    assert_refused(setting, operation, word, certificates, tmp_path)


AWS_REGION = [
    Setting("alone", DEFAULT, {"AWS_REGION": "eu-west-1"}, without=NO_REGION),
    Setting(
        "over-profile",
        {JOB: JOB_HOST},
        {"AWS_REGION": "eu-west-1"},
        without=NO_REGION,
        config=profile("region = us-west-2"),
    ),
    Setting(
        "over-AWS_DEFAULT_REGION",
        {JOB: JOB_HOST},
        {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-west-2"},
    ),
    Setting(
        "under-an-option",
        {JOB: JOB_HOST},
        {"AWS_REGION": "us-west-2"},
        arguments=("--region", "eu-west-1"),
        without=NO_REGION,
    ),
]


@pytest.mark.parametrize(("setting", "operation"), cases(AWS_REGION))
def test_the_variable_that_the_aws_cli_does_not_read(
    certificates: Certificates, tmp_path: Path, setting: Setting, operation: str
) -> None:
    ours, _ = side_by_side(setting, operation, certificates, tmp_path)

    assert ours.status == 0, ours.stderr
    expected = {**expectation(operation), "host": setting.hosts[operation]}
    assert_as_expected(ours, setting, operation, expected)


def test_a_role_is_assumed_in_the_region_of_the_variable(
    certificates: Certificates, tmp_path: Path
) -> None:
    config = profile(f"{ROLE}source_profile = source", "role") + SOURCE
    variables = {"AWS_REGION": "cn-north-1", "AWS_PROFILE": "role"}
    setting = Setting("AWS_REGION", DEFAULT, variables, without=(*KEYS, *NO_REGION), config=config)

    ours, _ = side_by_side(setting, JOB, certificates, tmp_path)

    assert ours.status == 0, ours.stderr
    assert [one.host for one in ours.recorded.requests] == [
        "sts.cn-north-1.amazonaws.com.cn",
        "codepipeline.cn-north-1.amazonaws.com.cn",
    ]
