"""The result of a job: checked, put, and put again after failures.

Texts and IDs are checked against the limits of the API reference, so that hours of work do not end
in a ValidationException.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

from cpstage.aws.client import Answer, Retries, most_tries
from cpstage.aws.codepipeline import NOT_IN_PROGRESS, call
from cpstage.aws.config import AwsConfig
from cpstage.errors import (
    ConfigurationError,
    CpstageError,
    FailureType,
    OutOfSync,
    ServiceUnavailable,
    UsageError,
    unreadable_input,
)
from cpstage.job.document import is_unicode
from cpstage.job.masking import Secret, secret
from cpstage.job.result import (
    MOST_EXECUTION_ID,
    Details,
    Reported,
    check_id,
    check_variables,
    given,
    without_control_characters,
)

_LOGGER = logging.getLogger("cpstage")

MOST_MESSAGE = 5000
"""Characters of a failure's message (API reference, ``FailureDetails``)."""

_NO_MESSAGE = "the job failed, and no message was given"

_MOST_TOKEN = 2048

MOST_TOKEN_BYTES = 4 * _MOST_TOKEN + 2
"""Of a file with a token: four for each character in UTF-8, and the end of the line."""

_MAYBE_PUT = "a try whose answer was lost may have put the result: look at the pipeline"
_COUNTS_AS_REPORTED = "a try whose answer was lost counts as reported; look at the pipeline"


def report_success(
    job_id: str,
    *,
    details: Details | None = None,
    output_variables: Mapping[str, str] | None = None,
    continuation_token: str | Secret | None = None,
    client_token: str | Secret | None = None,
    config: AwsConfig | None = None,
) -> Reported:
    """Tell CodePipeline that a job has done its work.

    Args:
        job_id: The id of the job.
        details: The details of the result.
        output_variables: The action's output variables.
        continuation_token: Ends this job and starts another, which is handed the token; the action
            goes on until a job of it ends without one.
        client_token: The client's half of a third-party job's token.
        config: How to reach AWS.

    Raises:
        UsageError, ConfigurationError: CodePipeline would refuse a value.
        OutOfSync, NotFound: The job is not in progress, or does not exist.
        AccessDenied, ServiceUnavailable: As CodePipeline says; the latter after retries.
    """
    client_token, continuation_token = secret(client_token), secret(continuation_token)
    variables = check_variables(output_variables or {})
    if variables and continuation_token:
        raise ConfigurationError(
            "there are output variables and a continuation token: CodePipeline takes one of them",
            hint="leave output variables to the last job of the action",
        )
    if variables and client_token:
        raise ConfigurationError(
            "the result of a third-party job has no output variables", hint="leave them out"
        )
    parameters = (details or Details()).success_members()
    if variables:
        parameters["outputVariables"] = variables
    if continuation_token is not None:
        parameters["continuationToken"] = check_token(continuation_token)
    _put("Success", job_id, parameters, client_token, config or AwsConfig())
    return Reported(
        job_id, "success", output_variables=(*variables,), continued=continuation_token is not None
    )


def report_failure(
    job_id: str,
    message: str,
    *,
    failure_type: FailureType = "JobFailed",
    external_execution_id: str | None = None,
    client_token: str | Secret | None = None,
    config: AwsConfig | None = None,
) -> Reported:
    """Tell CodePipeline that a job has failed.

    Args:
        job_id: The id of the job.
        message: Why; of a longer one than the service takes, the end is kept; an empty one is
            replaced, with a warning.
        failure_type: The failure type.
        external_execution_id: The ID of the job in another system.
        client_token: The client's half of a third-party job's token.
        config: How to reach AWS.

    Raises:
        UsageError: The failure type is unknown.
        OutOfSync, NotFound: The job is not in progress, or does not exist.
        AccessDenied, ServiceUnavailable: As CodePipeline says; the latter after retries.
    """
    client_token = secret(client_token)
    message = without_control_characters(message)
    if not message.strip():
        _LOGGER.warning("warning: the message is empty: %r is reported", _NO_MESSAGE)
        message = _NO_MESSAGE
    if failure_type not in get_args(FailureType):
        known = ", ".join(get_args(FailureType))
        raise UsageError(
            f"{failure_type[:200]!r} is not a failure type of CodePipeline", hint=f"give {known}"
        )
    try:
        check_id("external execution id", external_execution_id or None, MOST_EXECUTION_ID)
    except ConfigurationError as error:
        _LOGGER.warning("warning: %s: it is left out", error.message)
        external_execution_id = None
    shown = end_of(message, MOST_MESSAGE)
    details = given(
        type=failure_type, message=shown, externalExecutionId=external_execution_id or None
    )
    _put("Failure", job_id, {"failureDetails": details}, client_token, config or AwsConfig())
    return Reported(job_id, "failure", failure_type, shown)


def check_token(token: Secret) -> Secret:
    """Return a continuation token; raise ConfigurationError if the service would refuse it."""
    if not is_unicode(token.reveal()):
        raise ConfigurationError(
            "the continuation token is not Unicode text", hint="write it as UTF-8"
        )
    if not 1 <= len(token) <= _MOST_TOKEN:
        raise ConfigurationError(
            f"the continuation token has {len(token):,} characters, and not 1 to {_MOST_TOKEN:,}"
        )
    return token


def read_token(path: Path | str) -> Secret:
    """Read a continuation token, without the end of its line.

    Raises:
        ConfigurationError: It cannot be read, or the service would not take it.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_TOKEN_BYTES + 1)
    except OSError as error:
        raise unreadable_input(error, f"the continuation token {path}") from error
    return parse_token(data, str(path))


def parse_token(data: bytes, path: str) -> Secret:
    """Return a continuation token from the content of a file; errors as in :func:`read_token`."""
    try:
        text = data.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"the continuation token {path} is not UTF-8 text", hint="write it as UTF-8"
        ) from None
    token = check_token(Secret(text))
    if not text.isprintable():
        raise ConfigurationError(
            f"the continuation token {path} has control characters", hint="write one line of text"
        )
    return token


def end_of(text: str, most: int) -> str:
    """Return the last ``most`` UTF-16 units of a text: no other way of counting counts more."""
    units = text.encode("utf-16-le", "replace")
    return units[-2 * most :].decode("utf-16-le", "ignore") if most > 0 else ""


def _put(
    kind: str,
    job_id: str,
    members: Mapping[str, Any],
    client_token: Secret | None,
    config: AwsConfig,
) -> None:
    """Put a result until CodePipeline accepts or refuses it, or the time limit is reached.

    The number of tries within that time has no limit: hours of work may depend on the result.
    """
    put_once = partial(
        call,
        config,
        f"PutJob{kind}Result",
        {"jobId": job_id, **members},
        f"report the {kind.lower()} of job {job_id}",
        _is_empty,
        client_token=client_token,
        retries=Retries(0),
    )
    retries, began = Retries(config.timeout), time.monotonic()
    failures, may_be_put = 0, False
    while True:
        try:
            put_once()
            return
        except OutOfSync as error:
            if may_be_put or getattr(error.__cause__, "retries", None):  # botocore sent it again
                _LOGGER.warning("job %s has ended: %s", job_id, _COUNTS_AS_REPORTED)
                return
            raise OutOfSync(error.message, hint=NOT_IN_PROGRESS) from error
        except ServiceUnavailable as error:
            failures += 1
            # A service that throttles did nothing with the request.
            may_be_put = may_be_put or "Throttl" not in getattr(error.__cause__, "code", "")
            if not most_tries(error.__cause__):
                raise
            if not retries.wait(failures, began, math.inf):
                raise ServiceUnavailable(error.message, hint=_MAYBE_PUT) from error
        except CpstageError as error:
            if may_be_put:
                raise type(error)(error.message, hint=_MAYBE_PUT) from error
            raise


def _is_empty(answer: Answer) -> str | None:
    """Refuse a false success: an error document, or the page of a proxy."""
    body = answer.get("Body", b"")
    try:
        document = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or "__type" in document:
        return "the answer is not that of CodePipeline to a result"
    return None
