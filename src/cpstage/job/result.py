r"""The details and output variables of a job's result, within the limits of the API reference.

A file of output variables holds ``NAME=value`` lines or one JSON object of strings. Lines may be
empty or comments, and may begin with ``export``. A quoted value may span several lines: in single
quotes it is literal, in double quotes ``\n``, ``\t``, ``\"`` and ``\\`` are escapes. The last value
of a name counts, so a file can be appended to.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal

from cpstage.errors import ConfigurationError, FailureType, UsageError
from cpstage.job.document import SURROGATE, is_unicode
from cpstage.job.model import Secret

_LOGGER = logging.getLogger("cpstage")

_MOST_SUMMARY = 2048
"""Characters of a summary (API reference, ``ExecutionDetails`` and ``CurrentRevision``)."""

MOST_MESSAGE = 5000
"""Characters of a failure's message (API reference, ``FailureDetails``)."""

MOST_EXECUTION_ID = 1500
"""Characters (API reference, ``ExecutionDetails``)."""

_MOST_TOKEN = 2048

MOST_TOKEN_BYTES = 4 * _MOST_TOKEN + 2
"""Of a file with a token: four for each character in UTF-8, and the end of the line."""

_CUT = "..."

_ESCAPE_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]"
)
"""Control sequences, control strings and other escape sequences (ECMA-48, 5.4 to 5.6)."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Revision:
    """``CurrentRevision``: what an action has made or deployed.

    Attributes:
        revision: Its ID.
        change_identifier: The ID of the change that caused it.
        summary: A summary.
        created: When it was made, also as text (ISO 8601); a time without a zone is local time.
    """

    revision: str
    change_identifier: str
    summary: str | None = None
    created: datetime | str | None = None

    def members(self) -> dict[str, Any]:
        """Return the members of the API; errors as in :meth:`Details.check`."""
        self.check()
        created = _parse_time(self.created) if isinstance(self.created, str) else self.created
        return given(
            revision=self.revision,
            changeIdentifier=self.change_identifier,
            created=created.timestamp() if created else None,
            revisionSummary=_fit("revision summary", self.summary),
        )

    def check(self) -> None:
        """Check the IDs and the time; errors as in :meth:`Details.check`."""
        check_id("revision", self.revision, 1500)
        check_id("change identifier", self.change_identifier, 100)
        if isinstance(self.created, str):
            _parse_time(self.created)


@dataclass(frozen=True)
class Details:
    """The details of a result.

    Attributes:
        summary: A summary, shown with the action (success only).
        external_execution_id: The ID of the job in another system.
        percent_complete: The progress, 0 to 100, also as text (success only).
        revision: What the action has made (success only).
    """

    summary: str | None = None
    external_execution_id: str | None = None
    percent_complete: int | str | None = None
    revision: Revision | None = None

    def check(self) -> None:
        """Check everything against the limits of the service.

        Raises:
            ConfigurationError: An ID is empty, too long or not Unicode text.
            UsageError: The percentage is not 0 to 100, or a time is malformed.
        """
        check_id("external execution id", self.external_execution_id, MOST_EXECUTION_ID)
        _percentage(self.percent_complete)
        if self.revision:
            self.revision.check()

    def success_members(self) -> dict[str, Any]:
        """Return the request members for a success."""
        self.check()
        execution = given(
            summary=_fit("summary", self.summary),
            externalExecutionId=self.external_execution_id,
            percentComplete=_percentage(self.percent_complete),
        )
        revision = self.revision.members() if self.revision else None
        return given(currentRevision=revision, executionDetails=execution or None)


@dataclass(frozen=True)
class Reported:
    """A result that CodePipeline has accepted.

    Attributes:
        output_variables: The names of the output variables.
        continued: Whether a continuation token went with it: another job will follow.
    """

    job_id: str
    result: Literal["success", "failure"]
    failure_type: FailureType | None = None
    message: str | None = field(default=None, repr=False)
    output_variables: tuple[str, ...] = ()
    continued: bool = False

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**vars(self), "output_variables": list(self.output_variables)}


def _parse_time(text: str) -> datetime:
    """Return a time from its ISO 8601 text; ``Z`` is UTC, and without a zone it is local time."""
    try:
        return datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text)).astimezone(timezone.utc)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{text[:200]!r} is not a time such as 2030-01-31T12:00:00Z", hint="see --created"
        ) from error


def _percentage(value: int | str | None) -> int | None:
    if value is None:
        return None
    try:
        number = int(value)
    except ValueError:
        number = -1
    if not 0 <= number <= 100:
        raise UsageError(f"{value!r:.200} percent complete is not 0 to 100")
    return number


def check_id(what: str, value: str | None, most: int) -> None:
    """Raise ConfigurationError for an ID that is empty, not Unicode text, or too long to send."""
    if value is None:
        return
    if not is_unicode(value):
        raise ConfigurationError(f"the {what} is not Unicode text", hint="give it in UTF-8")
    if not 1 <= length_of(value) <= most:
        raise ConfigurationError(
            f"the {what} has {length_of(value):,} characters, and CodePipeline takes 1 to {most:,}"
        )


def _fit(what: str, summary: str | None) -> str | None:
    """Return a summary cut to the limit of the service, or None for an empty one; both warn."""
    if summary is None:
        return None
    text = without_control_characters(summary)
    if not text.strip():
        _LOGGER.warning("warning: the %s is empty, and left out", what)
        return None
    if (length := length_of(text)) <= _MOST_SUMMARY:
        return text
    _LOGGER.warning(
        "warning: the %s of %s characters is cut to %s", what, f"{length:,}", _MOST_SUMMARY
    )
    units = text.encode("utf-16-le", "replace")[: 2 * (_MOST_SUMMARY - len(_CUT))]
    return units.decode("utf-16-le", "ignore") + _CUT


def length_of(text: str) -> int:
    """Return the UTF-16 units, as Java counts characters; no other way of counting counts more."""
    return len(text.encode("utf-16-le", "replace")) // 2


def without_control_characters(text: str) -> str:
    """Return a text without escape sequences and control characters; surrogates become U+FFFD."""
    text = SURROGATE.sub("\ufffd", text)
    text = _ESCAPE_SEQUENCE.sub("", text.replace("\r\n", "\n"))
    return _CONTROL.sub("", text.replace("\r", "\n"))


def given(**members: Any) -> dict[str, Any]:
    """Return the members that are not None."""
    return {name: value for name, value in members.items() if value is not None}


MOST_BYTES = 122_880
"""Of all names and values of an action (quotas of the CodePipeline user guide)."""

_VARIABLE_NAME = re.compile(r"[A-Za-z0-9@\-_]+")
_LINE = re.compile(
    r"""
    [ \t\r]* (?:
        (?: \#[^\n]* )?
      | (?:export[ \t]+)? (?P<name>[^=\s]+) [ \t]* = [ \t]* (?:
            '(?P<single>[^']*)' [ \t\r]*
          | "(?P<double>(?:[^"\\]|\\.)*)" [ \t\r]*
          | (?P<plain>[^\n]*)
        )
    ) (?:\n|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t"}
MOST_READ = 4 * MOST_BYTES
"""Quotes, escapes and comments do not count; a longer file is not a list of variables."""

_CONTROL_IN_VALUE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

_ELSEWHERE = "put large values into an output artifact"


def parse_variables(data: bytes, path: str) -> dict[str, str]:
    """Return the output variables from the content of a file, whose path messages have.

    Raises:
        ConfigurationError: It is too long, holds something else, or CodePipeline would refuse it.
    """
    if len(data) > MOST_READ:
        raise ConfigurationError(
            f"the output variables {path} are longer than {MOST_READ:,} bytes", hint=_ELSEWHERE
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"the output variables {path} are not UTF-8 text", hint="write them as UTF-8"
        ) from error
    variables = _of_json(text, path) if text.lstrip().startswith("{") else _of_lines(text, path)
    return check_variables(variables)


def check_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables; raise ConfigurationError if CodePipeline would refuse them."""
    for name in variables:
        if not _VARIABLE_NAME.fullmatch(name):
            raise ConfigurationError(
                f"{name[:200]!r} cannot be an output variable",
                hint="CodePipeline allows A-Z a-z 0-9 @ - _ in a name",
            )
        if not is_unicode(variables[name]):
            raise ConfigurationError(
                f"the value of the output variable {name} is not Unicode text",
                hint="give it in UTF-8",
            )
        if _CONTROL_IN_VALUE.search(variables[name]):
            raise ConfigurationError(
                f"the value of the output variable {name} has control characters",
                hint="write text; lines and tabs are fine",
            )
    size = sum(len(name.encode()) + len(value.encode()) for name, value in variables.items())
    if size > MOST_BYTES:
        raise ConfigurationError(
            f"the output variables take {size:,} bytes, and CodePipeline allows {MOST_BYTES:,}",
            hint=_ELSEWHERE,
        )
    return dict(variables)


def _of_json(text: str, path: str) -> dict[str, str]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigurationError(
            f"the output variables {path} are not JSON", hint='write {"NAME": "value"}'
        ) from None
    for name, value in document.items():
        if not isinstance(value, str):
            raise ConfigurationError(
                f"the output variable {name!r} in {path} is not a string", hint="quote it"
            )
    return dict(document)


def _of_lines(text: str, path: str) -> dict[str, str]:
    variables = {}
    at, end = 0, len(text)
    while at < end:
        found = _LINE.match(text, at)
        if found is None:
            # The line itself may be a piece of a secret.
            raise ConfigurationError(
                f"line {text.count(chr(10), 0, at) + 1} of the output variables {path} is not of "
                "the form NAME=value",
                hint="a value of several lines is written in quotes",
            )
        at = found.end()
        if found["name"] is not None:
            variables[found["name"]] = _value(found)
    return variables


def _value(found: re.Match[str]) -> str:
    single, double, plain = found.group("single", "double", "plain")
    if double is not None:
        return re.sub(r"(?s)\\(.)", lambda escape: _ESCAPED.get(escape[1], escape[1]), double)
    value: str = plain.strip() if single is None else single
    return value


def end_of(text: str, most: int) -> str:
    """Return the last ``most`` UTF-16 units of a text: no other way of counting counts more."""
    units = text.encode("utf-16-le", "replace")
    return units[-2 * most :].decode("utf-16-le", "ignore") if most > 0 else ""


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


def parse_token(data: bytes, path: str) -> Secret:
    """Return a continuation token from the content of a file, without the end of its line.

    Raises:
        ConfigurationError: The service would not take it.
    """
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
