"""AWS behind HTTPS: whose certificates are trusted, and what is said of those that are not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from aws_clients import s3
from certificates import Authority, https_in_front
from cpstage.local import Input, LocalAWS
from samples import tar_of, zip_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from command_line import Cli

pytestmark = pytest.mark.slow

NOISE = os.urandom(9 << 20)
"""Two parts on the way up."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def https(aws: LocalAWS, authority: Authority) -> Iterator[str]:
    with https_in_front(aws.endpoint_url, authority.context("127.0.0.1")) as url:
        yield url


def _job(aws: LocalAWS) -> str:
    return aws.add_job([Input("App", zip_of({"f": "x"}))])


def _refused(cli: Cli, job_id: str, *says: str, arguments: tuple[str, ...] = ()) -> None:
    done = cli("fetch", job_id, *arguments, without=("REQUESTS_CA_BUNDLE",))
    lines = done.stderr.splitlines()
    assert done.returncode == 78, done.stderr
    assert len(lines) == 1
    for text in says:
        assert text in lines[0]


def test_both_ways_over_tls(aws: LocalAWS, cli: Cli, https: str, authority: Authority) -> None:
    job_id = aws.add_job([Input("App", tar_of({"noise": NOISE}), ".tar")], outputs=["Big", "Small"])
    there = cli.with_variables({"AWS_ENDPOINT_URL": https})
    trust = ("--ca-bundle", str(authority.file))

    fetched = there("fetch", job_id, *trust)
    (cli.directory / "small").write_text("x")
    pushed = there("push", job_id, "Big=in/App/noise", "Small=small", "--encrypt", *trust)

    assert fetched.returncode == 0, fetched.stderr
    assert (cli.directory / "in/App/noise").read_bytes() == NOISE
    assert pushed.returncode == 0, pushed.stderr
    actions = [call.action for call in aws.calls() if call.job_id == job_id]
    assert actions.count("UploadPart") == 2
    assert actions.count("PutObject") == 1


def test_bytes_that_tls_protects_are_not_digested_for_s3(
    aws: LocalAWS, cli: Cli, https: str, authority: Authority
) -> None:
    """The checksum that goes with them is what S3 compares."""
    job_id = aws.add_job(outputs=["Built"])
    (cli.directory / "file").write_bytes(b"content")

    done = cli(
        "push", job_id, "Built=file", AWS_ENDPOINT_URL=https, AWS_CA_BUNDLE=str(authority.file)
    )

    output = aws.job(job_id).outputs[0]
    assert done.returncode == 0, done.stderr
    stored = s3(aws.admin_environment).get_object(Bucket=output.bucket, Key=output.key)
    assert stored["Body"].read() == b"content"


def test_the_bundle_of_a_profile(
    aws: LocalAWS, cli: Cli, https: str, authority: Authority, tmp_path: Path
) -> None:
    config = tmp_path / "its-config"
    config.write_text(f"[profile build]\nca_bundle = {authority.file}\n")

    done = cli("fetch", _job(aws), AWS_ENDPOINT_URL=https, AWS_CONFIG_FILE=str(config))
    assert done.returncode == 78, done.stderr
    done = cli(
        "fetch",
        _job(aws),
        AWS_ENDPOINT_URL=https,
        AWS_CONFIG_FILE=str(config),
        AWS_PROFILE="build",
    )
    assert done.returncode == 0, done.stderr


def test_a_directory_of_certificates(aws: LocalAWS, cli: Cli, https: str, tmp_path: Path) -> None:
    """botocore takes files only."""
    there = cli.with_variables({"AWS_ENDPOINT_URL": https, "AWS_CA_BUNDLE": str(tmp_path)})
    _refused(there, _job(aws), str(tmp_path), "AWS_CA_BUNDLE")


def test_who_is_not_trusted(aws: LocalAWS, cli: Cli, https: str) -> None:
    there = cli.with_variables({"AWS_ENDPOINT_URL": https})
    _refused(there, _job(aws), https, "is not trusted", "--ca-bundle FILE")


@pytest.mark.parametrize("content", [None, b"", b"no certificate at all", b"\x00\xff\x30"])
def test_a_bundle_that_is_none(
    aws: LocalAWS, cli: Cli, https: str, tmp_path: Path, content: bytes | None
) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_bytes(content)
    there = cli.with_variables({"AWS_ENDPOINT_URL": https})
    _refused(there, _job(aws), str(bundle), arguments=("--ca-bundle", str(bundle)))


def test_a_certificate_for_somebody_else(aws: LocalAWS, cli: Cli, authority: Authority) -> None:
    with https_in_front(aws.endpoint_url, authority.context("example.com")) as url:
        there = cli.with_variables({"AWS_ENDPOINT_URL": url, "AWS_CA_BUNDLE": str(authority.file)})
        _refused(there, _job(aws), "127.0.0.1", "another name", "--endpoint-url")


def test_no_verification_where_it_is_not_wanted(
    aws: LocalAWS, cli: Cli, authority: Authority
) -> None:
    with https_in_front(aws.endpoint_url, authority.context("example.com")) as url:
        done = cli("fetch", _job(aws), "--no-verify-ssl", AWS_ENDPOINT_URL=url)

    assert done.returncode == 0, done.stderr


def test_https_at_a_port_that_speaks_http(aws: LocalAWS, cli: Cli) -> None:
    url = aws.endpoint_url.replace("http:", "https:")
    done = cli("fetch", _job(aws), "--retry-timeout", "1", AWS_ENDPOINT_URL=url)

    assert done.returncode == 78, done.stderr
    assert "TLS 1.2" in done.stderr
    assert len(done.stderr.splitlines()) == 1
