"""No secret turns up in what Python programs make of our objects: texts, tracebacks and logs."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING

import botocore.parsers
import pytest
from botocore.model import StructureShape

import cpstage
from cpstage.aws.codepipeline import get_job
from cpstage.aws.config import AwsConfig
from cpstage.aws.job_session import JobCredentials, JobSession
from cpstage.cli.output import Terminal
from cpstage.errors import ConfigurationError, reportable
from secret_markers import add_job, is_in, planted, planted_aws

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cpstage.job.model import Secret
    from cpstage.local import LocalAWS

pytestmark = pytest.mark.slow

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAWS]:
    with planted_aws() as running:
        yield running


@pytest.fixture
def job(aws: LocalAWS, monkeypatch: pytest.MonkeyPatch) -> cpstage.Job:
    """A third-party job as a program has it, whose caller is this process."""
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    job_id = add_job(aws, third_party=True)
    return get_job(job_id, client_token=aws.job(job_id).client_token)


def _plain(*secrets: Secret | None) -> list[str]:
    return [one.reveal() for one in secrets if one]


def test_objects_say_nothing_of_their_secrets(job: cpstage.Job) -> None:
    credentials = job.require_credentials()
    renewing = JobCredentials(credentials, lambda: credentials, 60)
    frozen = renewing.get_frozen_credentials()
    session = JobSession(job, AwsConfig())
    secrets = _plain(job.client_token, *job.action_configuration.values())
    assert is_in("".join(secrets))
    assert is_in(frozen.secret_key)

    objects = [job, credentials, renewing, frozen, session, session.store, AwsConfig()]
    objects += [job.input_artifacts, {"job": job}, [frozen], (credentials,)]
    for one in objects:
        for text in (repr(one), str(one), f"{one}", f"{one!r}", ascii(one)):
            assert not is_in(text, secrets)


def test_a_traceback_with_all_that_is_known_of_a_failure_says_no_secret(
    aws: LocalAWS, job: cpstage.Job, tmp_path: Path
) -> None:
    failures: list[BaseException] = []
    for attempt in (
        lambda: get_job(job.id, client_token=planted(20)),
        lambda: cpstage.fetch(job, tmp_path, config=AwsConfig(endpoint_url=NOWHERE, timeout=1)),
        lambda: cpstage.push(job, tmp_path),
        lambda: cpstage.parse_job({"data": {"artifactCredentials": {"accessKeyId": planted(20)}}}),
        lambda: cpstage.parse_job({"data": {"continuationToken": [planted(20)]}}),
    ):
        with pytest.raises(cpstage.CpstageError) as caught:
            attempt()
        failures.append(caught.value)

    for failure in failures:
        shown = traceback.TracebackException.from_exception(failure, capture_locals=True)
        text = "".join(shown.format())
        for said in (text, repr(failure), str(failure), f"{failure!r}", repr(failure.args)):
            assert not is_in(said, _plain(job.client_token))


def test_the_log_says_no_secret_however_much_it_says(
    aws: LocalAWS, job: cpstage.Job, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "cpstage")

    cpstage.fetch(job, tmp_path, credentials_max_age=1e-6)
    (tmp_path / "out/Built/result").write_text("x")
    aws.expire_sessions(job.id)
    cpstage.push(job, tmp_path)
    aws.set_status(job.id, "Failed")
    with pytest.raises(cpstage.errors.OutOfSync):
        cpstage.fetch(job, tmp_path, credentials_max_age=1e-6)

    ours = [record for record in caplog.records if record.name.startswith("cpstage")]
    assert any("cannot refresh" in record.getMessage() for record in ours)
    for record in ours:
        assert not is_in(f"{record.getMessage()} {record.args!r}", _plain(job.client_token))


def test_a_traceback_of_debug_leaves_out_what_a_parser_quotes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = botocore.parsers.create_parser("query")
    answer = {"status_code": 200, "headers": {}, "body": f"<Answer>{planted(40)}".encode()}
    terminal = Terminal()
    terminal.debug = True
    shape = StructureShape("Answer", {"type": "structure", "members": {}})
    with pytest.raises(botocore.parsers.ResponseParserError) as raised:
        parser.parse(answer, shape)
    assert is_in(str(raised.value))

    terminal.fail(reportable(raised.value))

    said = capsys.readouterr().err
    assert "botocore.parsers.ResponseParserError: ********\n" in said
    assert "botocore/parsers.py" in said
    assert said.splitlines()[-1].startswith("cpstage: error: unexpected ResponseParserError")
    assert not is_in(said)


def test_a_traceback_of_debug_keeps_the_words_of_other_errors(
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal = Terminal()
    terminal.debug = True

    terminal.fail(reportable(RuntimeError("words of our own")))

    assert "RuntimeError: words of our own\n" in capsys.readouterr().err


def test_a_job_document_that_is_given_as_an_id_is_neither_sent_nor_quoted() -> None:
    document = '{"jobDetails": {"data": {"artifactCredentials": {"sessionToken": "a-secret"}}}}'

    with pytest.raises(ConfigurationError, match="parse_job") as raised:
        get_job(document, config=AwsConfig(endpoint_url=NOWHERE))

    assert "a-secret" not in str(raised.value)
