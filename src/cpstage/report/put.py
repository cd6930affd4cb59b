"""The result of a job, checked before it is put, and put as often as that helps.

What the API reference limits is held against its limits here, so that hours of work do not end in
a ValidationException. This module knows nothing of how a result came about.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import get_args

from cpstage.aws.service import ServiceError
from cpstage.codepipeline import put_failure, put_success
from cpstage.connection import Connection
from cpstage.errors import (
    ConfigurationError,
    FailureType,
    OutOfSync,
    ServiceUnavailable,
    UsageError,
    local_reason,
)
from cpstage.report.details import Details, Reported, check_length, given
from cpstage.report.variables import check_variables
from cpstage.retries import Retries

MOST_MESSAGE = 5000
"""Characters of a failure's message (API reference, ``FailureDetails``)."""

_MOST_TOKEN = 2048

_NOT_IN_PROGRESS = "it has a result already, timed out, or was never acknowledged"
_MAYBE_PUT = "an earlier try may have put the result: look at the pipeline"


def report_success(
    job_id: str,
    *,
    details: Details | None = None,
    output_variables: Mapping[str, str] | None = None,
    continuation_token: str | None = None,
    client_token: str | None = None,
    connection: Connection | None = None,
) -> Reported:
    """Tell CodePipeline that a job has done its work.

    Args:
        job_id: The id of the job.
        details: What to say besides.
        output_variables: The action's output variables.
        continuation_token: Ends this job and starts another, which is handed the token; the action
            goes on until a job of it ends without one.
        client_token: The client's half of a third-party job's token.
        connection: How to reach AWS.

    Raises:
        UsageError, ConfigurationError: The service would not take what is to be said.
        OutOfSync, NotFound: The job is not in progress, or there is none.
        AccessDenied, ServiceUnavailable: As CodePipeline says; the latter after retries.
    """
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
    link = connection or Connection()

    def put() -> None:
        put_success(job_id, parameters, client_token=client_token, connection=link)

    _put(put, job_id, link)
    return Reported(
        job_id, "success", output_variables=(*variables,), continued=continuation_token is not None
    )


def report_failure(
    job_id: str,
    message: str,
    *,
    failure_type: FailureType = "JobFailed",
    external_execution_id: str | None = None,
    client_token: str | None = None,
    connection: Connection | None = None,
) -> Reported:
    """Tell CodePipeline that a job has failed.

    Args:
        job_id: The id of the job.
        message: Why; of a longer one than the service takes, the end is kept.
        failure_type: Whose fault it is.
        external_execution_id: The id of the work in another system.
        client_token: The client's half of a third-party job's token.
        connection: How to reach AWS.

    Raises:
        UsageError: There is no message, or no such type.
        OutOfSync, NotFound: The job is not in progress, or there is none.
        AccessDenied, ServiceUnavailable: As CodePipeline says; the latter after retries.
    """
    if not message.strip():
        raise UsageError("the message of a failure is empty", hint="say what went wrong")
    if failure_type not in get_args(FailureType):
        known = ", ".join(get_args(FailureType))
        raise UsageError(f"there is no failure type {failure_type!r}", hint=f"there are {known}")
    check_length("external execution id", external_execution_id, 1500)
    told = end_of(message, MOST_MESSAGE)
    parameters = given(type=failure_type, message=told, externalExecutionId=external_execution_id)
    link = connection or Connection()

    def put() -> None:
        put_failure(job_id, parameters, client_token=client_token, connection=link)

    _put(put, job_id, link)
    return Reported(job_id, "failure", failure_type, told)


def check_token(token: str) -> str:
    """Return a continuation token, if the service would take it.

    Raises:
        ConfigurationError: It is empty or too long.
    """
    if not 1 <= len(token) <= _MOST_TOKEN:
        raise ConfigurationError(
            f"the continuation token has {len(token):,} characters, and not 1 to {_MOST_TOKEN:,}"
        )
    return token


def read_token(path: Path | str) -> str:
    """Read a continuation token, without the end of its line.

    Raises:
        ConfigurationError: It cannot be read, or the service would not take it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        why = local_reason(error)
        raise ConfigurationError(f"cannot read the continuation token {path}: {why}") from error
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"the continuation token {path} is not UTF-8 text", hint="write it as UTF-8"
        ) from None
    return check_token(text.rstrip("\r\n"))


def end_of(text: str, most: int) -> str:
    """Return the end of a text, as long as it may be.

    Lengths are counted as Java has them (UTF-16), which no other way of counting exceeds.
    """
    units = text.encode("utf-16-le", "replace")
    return units[-2 * most :].decode("utf-16-le", "ignore") if most > 0 else ""


def _put(put: Callable[[], None], job_id: str, connection: Connection) -> None:
    """Put a result until it is taken, it is refused, or time is over."""
    tries = 0

    def attempt() -> None:
        nonlocal tries
        tries += 1
        put()

    try:
        Retries(connection.timeout)(attempt, _tries, f"result of job {job_id}")
    except OutOfSync as error:
        # The answer to an earlier try may have been lost, and not the try itself.
        hint = _MAYBE_PUT if tries > 1 else _NOT_IN_PROGRESS
        raise OutOfSync(error.message, hint=hint) from error


def _tries(error: Exception) -> float:
    """Return how often a result is put that fails this way: hours of work may hang on it."""
    cause = error.__cause__
    final = cause is None or (isinstance(cause, ServiceError) and not cause.may_pass)
    return math.inf if isinstance(error, ServiceUnavailable) and not final else 0
