"""Settings of signing, STS, KMS and partitions mean to cpstage what they mean to the AWS CLI.

The tables are as in ``test_settings_matrix.py``. Settings that botocore takes from the
default config of a boto3 session alone, such as ``client_cert``, are in ``test_boto3_sessions.py``.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from aws_cli_comparison import (
    GET,
    HEAD,
    JOB,
    KEYS,
    KMS,
    PUT,
    Setting,
    assert_refused,
    assert_same_requests,
    cases,
)
from recording_server import ASSUMED_KEY, BUCKET, Certificates

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = pytest.mark.slow

ROLE = (
    "role_arn = arn:aws:iam::123456789012:role/Worker\nrole_session_name = tests\n"
    "source_profile = source\n"
)
SOURCE = (
    "\n[profile source]\n"
    "aws_access_key_id = AKIAOTHER0000000001\naws_secret_access_key = other-secret\n"
)
JOB_HOST, S3_HOST = "codepipeline.eu-west-1.amazonaws.com", f"{BUCKET}.s3.eu-west-1.amazonaws.com"
KMS_HOST = "kms.eu-west-1.amazonaws.com"
LOOPBACK = "127.0.0.1:{port}"
ASYMMETRIC = "AWS4-ECDSA-P256-SHA256"


def profile(text: str) -> str:
    """Return the default profile of the configuration file."""
    return f"[default]\n{text}\n"


def in_partition(region: str, suffix: str, *operations: str) -> Setting:
    """Return the setting of a region in a partition that no other region is in."""
    hosts = {JOB: f"codepipeline.{region}.{suffix}", HEAD: f"{BUCKET}.s3.{region}.{suffix}"}
    return Setting(
        region,
        {operation: hosts[operation] for operation in operations},
        {"AWS_DEFAULT_REGION": region},
        expected={"region": region},
    )


def role(name: str, host: str, more: str = "", **settings: Any) -> Setting:
    """Return a setting under which a role is assumed."""
    return Setting(
        name,
        settings.pop("hosts", {JOB: JOB_HOST}),
        without=KEYS,
        config=profile(f"{more}{ROLE}") + SOURCE,
        expected={
            "access_key": ASSUMED_KEY,
            "token": "assumed" * 4,
            **settings.pop("expected", {}),
        },
        before=("AssumeRole",),
        before_host=host,
        **settings,
    )


PARTITIONS = [
    in_partition("us-iso-east-1", "c2s.ic.gov", JOB, HEAD),
    in_partition("us-isob-east-1", "sc2s.sgov.gov", JOB, HEAD),
    in_partition("eu-isoe-west-1", "cloud.adc-e.uk", JOB),
    in_partition("eusc-de-east-1", "amazonaws.eu", HEAD),
]

STS = [
    role("regional", "sts.eu-west-1.amazonaws.com"),
    role(
        "AWS_STS_REGIONAL_ENDPOINTS",
        "sts.amazonaws.com",
        variables={"AWS_STS_REGIONAL_ENDPOINTS": "legacy"},
    ),
    role("sts_regional_endpoints", "sts.amazonaws.com", "sts_regional_endpoints = legacy\n"),
    role(
        "of-a-partition",
        "sts.us-iso-east-1.c2s.ic.gov",
        hosts={JOB: "codepipeline.us-iso-east-1.c2s.ic.gov"},
        variables={"AWS_DEFAULT_REGION": "us-iso-east-1"},
        expected={"region": "us-iso-east-1"},
    ),
    role(
        "fips",
        "sts-fips.us-east-1.amazonaws.com",
        "use_fips_endpoint = true\n",
        hosts={JOB: "codepipeline-fips.us-east-1.amazonaws.com"},
        variables={"AWS_DEFAULT_REGION": "us-east-1"},
        expected={"region": "us-east-1"},
    ),
]

OF_KMS = [
    Setting("nothing-set", {KMS: KMS_HOST}),
    Setting("AWS_ENDPOINT_URL_KMS", {KMS: LOOPBACK}, {"AWS_ENDPOINT_URL_KMS": "{https}"}),
    Setting(
        "services-section",
        {KMS: "keys.example.com"},
        config=profile(
            "services = local\n[services local]\nkms =\n  endpoint_url = https://keys.example.com"
        ),
    ),
    Setting(
        "use_fips_endpoint",
        {KMS: "kms-fips.eu-west-1.amazonaws.com"},
        config=profile("use_fips_endpoint = true"),
    ),
    Setting(
        "AWS_USE_DUALSTACK_ENDPOINT",
        {KMS: "kms.eu-west-1.api.aws"},
        {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
    ),
]

WITH_V4A = {"codepipeline": JOB_HOST, "kms": KMS_HOST}
OPERATIONS = {"codepipeline": JOB, "kms": KMS}


def signing_with(service: str, version: str, **settings: Any) -> Setting:
    """Return a setting of a service's signature version."""
    operation, host = OPERATIONS[service], WITH_V4A[service]
    config = profile(f"{settings.pop('more', '')}{service} =\n  signature_version = {version}")
    return Setting(f"{service}-{version}", {operation: host}, config=config, **settings)


SIGNING = [
    # S3's operations have a signature version of their own in botocore's model.
    Setting("s3-v4a", {HEAD: S3_HOST}, config=profile("s3 =\n  signature_version = v4a")),
    Setting("s3-s3v4", {PUT: S3_HOST}, config=profile("s3 =\n  signature_version = s3v4")),
    Setting(
        "s3-s3v4-query",
        {GET: S3_HOST},
        config=profile("s3 =\n  signature_version = s3v4-query"),
    ),
    signing_with(
        "codepipeline",
        "s3",
        expected={"algorithm": "AWS", "access_key": None, "region": None, "service": None},
    ),
    signing_with("kms", "v4", expected={"algorithm": "AWS4-HMAC-SHA256"}),
    Setting(
        "AWS_SIGV4A_SIGNING_REGION_SET",
        {JOB: JOB_HOST, PUT: S3_HOST},
        {"AWS_SIGV4A_SIGNING_REGION_SET": "*"},
        expected={"region set": None},
    ),
    Setting(
        "AWS_AUTH_SCHEME_PREFERENCE",
        {JOB: JOB_HOST, HEAD: S3_HOST},
        {"AWS_AUTH_SCHEME_PREFERENCE": "sigv4a,sigv4"},
        expected={"algorithm": "AWS4-HMAC-SHA256"},
    ),
]

V4A: Mapping[str, Any] = {
    "algorithm": ASYMMETRIC,
    "region": None,
    "access_key": None,
    "service": None,
}
WITH_CRT = [
    signing_with("codepipeline", "v4a", expected={**V4A, "region set": "*"}),
    signing_with(
        "kms",
        "v4a",
        variables={"AWS_SIGV4A_SIGNING_REGION_SET": "eu-west-1,us-east-1"},
        expected={**V4A, "region set": "eu-west-1,us-east-1"},
    ),
]

REFUSED: Mapping[str, Any] = {"fails": True, "count": 0}
CRT = (
    "requires awscrt; in a clone, install the extra as you installed cpstage: pip install '.[crt]'"
)
INSTALL = f"signature version v4a {CRT}"
WITHOUT_CRT = [
    (signing_with("codepipeline", "v4a", **REFUSED), INSTALL),
    (signing_with("kms", "v4a", **REFUSED), INSTALL),
    (role("sts-v4a", "", "sts =\n  signature_version = v4a\n", fails=True, count=0), INSTALL),
    (
        Setting(
            "login_session",
            {JOB: ""},
            without=KEYS,
            config=profile("login_session = arn:aws:iam::123456789012:user/me"),
            **REFUSED,
        ),
        f"the login credential provider {CRT}",
    ),
]
CHECK = "check signature_version in the AWS configuration"
MALFORMED = [
    (signing_with("codepipeline", "odd", **REFUSED), f"Signature Version: odd; {CHECK}"),
    (signing_with("codepipeline", "v2", **REFUSED), f"cannot be signed; {CHECK}"),
]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("ca"))


@pytest.mark.parametrize(("setting", "operation"), cases([*PARTITIONS, *STS, *OF_KMS, *SIGNING]))
def test_a_setting_means_what_it_means_to_the_aws_cli(
    certificates: Certificates, tmp_path: Path, setting: Setting, operation: str
) -> None:
    assert_same_requests(setting, operation, certificates, tmp_path)


@pytest.mark.skipif(not find_spec("awscrt"), reason="awscrt (the extra crt) is not installed")
@pytest.mark.parametrize(("setting", "operation"), cases(WITH_CRT))
def test_requests_are_signed_for_a_set_of_regions(
    certificates: Certificates, tmp_path: Path, setting: Setting, operation: str
) -> None:
    assert_same_requests(setting, operation, certificates, tmp_path)


@pytest.mark.skipif(bool(find_spec("awscrt")), reason="awscrt signs so")
@pytest.mark.parametrize(("setting", "operation", "word"), cases(*zip(*WITHOUT_CRT, strict=True)))
def test_what_needs_awscrt_names_the_extra(
    certificates: Certificates, tmp_path: Path, setting: Setting, operation: str, word: str
) -> None:
    assert_refused(setting, operation, word, certificates, tmp_path)


@pytest.mark.parametrize(("setting", "operation", "word"), cases(*zip(*MALFORMED, strict=True)))
def test_a_malformed_setting_is_told(
    certificates: Certificates, tmp_path: Path, setting: Setting, operation: str, word: str
) -> None:
    assert_refused(setting, operation, word, certificates, tmp_path)
