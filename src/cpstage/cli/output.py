"""What the commands print: results on stdout, messages for people on stderr."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

import click

from cpstage.errors import LocalIOError, local_reason, printable, printable_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from _typeshed import ReadableBuffer

    from cpstage.errors import Reportable
    from cpstage.job import S3Location

_STDOUT = 1

_LOGGERS_WITHOUT_SECRETS = ("botocore.credentials", "urllib3.connectionpool")
"""Where the credentials come from, and each request's line. botocore's other loggers print headers
and bodies, and with them the token of a job."""

_READERS_OF_ANSWERS = {"botocore", "boto3", "http", "json", "s3transfer", "urllib3", "xml"}
"""Packages whose exceptions may quote an answer, or what was signed."""


class Terminal:
    """How much to print, and in which form.

    Attributes:
        json: Whether the result is one JSON document.
        verbosity: -1 prints errors only, 1 also logs each call to AWS.
        debug: Whether an error comes with its traceback.
        select: Applies ``--query`` to a document.
    """

    def __init__(self) -> None:
        self.json = False
        self.verbosity = 0
        self.debug = False
        self.select: Callable[[Any], Any] = lambda document: document

    def result(self, document: Mapping[str, Any], text: str) -> None:
        """Print the result of a command, as a document or as text.

        A path or name in the text has been made printable: here, its newlines look like ours.
        """
        if self.json:
            self.document(document)
        elif text:
            self.line(printable_lines(text))

    def document(self, document: Mapping[str, Any]) -> None:
        """Print a document with ``--json``."""
        if self.json:
            self.line(
                json.dumps(self.select(document), indent=2, ensure_ascii=not _speaks_unicode())
            )

    def line(self, text: str) -> None:
        """Print text on stdout; what its encoding does not have, as escapes."""
        if not _speaks_unicode():
            text = text.encode(sys.stdout.encoding, "backslashreplace").decode(sys.stdout.encoding)
        # Without color=True escape sequences would be cut out of values on a pipe.
        click.echo(text.encode(errors="backslashreplace").decode(), color=True)

    def raw(self, data: bytes) -> None:
        """Print bytes on stdout as they are: names of files may be no text."""
        click.echo(data, nl=False)

    def note(self, message: str) -> None:
        """Print a note on stderr."""
        if self.verbosity >= 0:
            _say(printable_lines(message))

    def warn(self, message: str) -> None:
        """Print a warning on stderr, on one line."""
        if self.verbosity >= 0:
            _say(f"cpstage: {coloured('warning:', 'yellow', sys.stderr)} {printable(message)}")

    def fail(self, error: Reportable) -> None:
        """Print an error on one line; with ``--debug`` the traceback before it.

        A traceback shows source lines and messages, and no values of variables. Our messages hold
        no secret; those of libraries are left out where they may quote an answer.
        """
        if self.debug:
            _say(printable_lines(_traceback(error)))
        _say(f"cpstage: {coloured('error:', 'red', sys.stderr)} {error}")

    def log_calls(self) -> None:
        """Send the log to stderr: warnings, and each call where that is wanted."""
        if sys.stderr is not None and (self.verbosity >= 0 or self.debug):
            everything = self.verbosity > 0 or self.debug
            _log_to_stderr("cpstage", logging.INFO if everything else logging.WARNING, "")
        if sys.stderr is not None and self.debug:
            for name in _LOGGERS_WITHOUT_SECRETS:
                _log_to_stderr(name, logging.DEBUG, f"{name}: ")


def _traceback(error: BaseException) -> str:
    """Format an exception, without the messages of libraries that read answers of AWS."""
    from cpstage.job.model import MASK

    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    for one in _chain(error):
        frames = [frame for frame, _ in traceback.walk_tb(one.__traceback__)]
        module = str(frames[-1].f_globals.get("__name__")) if frames else ""
        if module.partition(".")[0] in _READERS_OF_ANSWERS and str(one):
            text = text.replace(f": {one}\n", f": {MASK}\n")
    return text


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those that led to it."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _without_exception(record: logging.LogRecord) -> bool:
    """Drop the exception of a record: its text may quote what was signed."""
    record.exc_info = record.exc_text = None
    return True


def _without_quotes(record: logging.LogRecord) -> bool:
    """Drop texts of exceptions, which quote answers, and queries of URLs, which may be signed."""
    from cpstage.job.model import mask_queries

    given = record.args if isinstance(record.args, tuple) else ()
    named = tuple(type(one).__name__ if isinstance(one, BaseException) else one for one in given)
    record.msg, record.args = mask_queries(str(record.msg) % named), ()
    return True


class _OneLine(logging.Formatter):
    """Formats a record as one line, without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _log_to_stderr(name: str, level: int, prefix: str) -> None:
    logger = logging.getLogger(name)
    logger.setLevel(level)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(f"cpstage: {prefix}%(message)s"))
    handler.addFilter(_without_exception)
    if prefix:
        handler.addFilter(_without_quotes)
    logger.handlers[:] = [handler]
    logger.propagate = False


def coloured(text: str, colour: str, stream: TextIO | None) -> str:
    """Return text in a colour if the stream is a terminal that shows it (https://no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if stream is None or plain or not stream.isatty():
        return text
    return click.style(text, fg=colour)


def took(seconds: int | None) -> str:
    """Write a duration, such as ``1 h 02 min`` or ``45 s``."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def relative(path: str | os.PathLike[str]) -> str:
    """Return a path relative to the current directory, if it lies below it."""
    try:
        below = os.path.relpath(path)
    except OSError:  # a command has removed the current directory
        return os.fspath(path)
    return os.fspath(path) if below.startswith(os.pardir) else below


def shortened(location: S3Location) -> str:
    """Return the end of a key, which tells objects of one job apart."""
    return printable(f".../{'/'.join(location.key.split('/')[-2:])}")


def counted(count: int, noun: str) -> str:
    """Write a number of things, such as ``1 file`` or ``2,000 files``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def flush_or_drop() -> None:
    """Flush our streams; what cannot be written goes nowhere, or the flush at exit would fail."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError, LocalIOError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _speaks_unicode() -> bool:
    return sys.stdout.encoding.lower().replace("-", "") == "utf8"


class _Stdout(io.FileIO):
    """Stdout, whose failures are our errors; that its reader has left is a BrokenPipeError."""

    def __init__(self, *, is_closed: bool) -> None:
        super().__init__(_STDOUT, "w", closefd=False)
        self._is_closed = is_closed

    def write(self, data: ReadableBuffer, /) -> int:
        if self._is_closed and memoryview(data).nbytes:  # click tries to write nothing
            raise LocalIOError(
                "cannot write to stdout: it is closed", hint="redirect it to a file or to /dev/null"
            )
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise LocalIOError(f"cannot write to stdout: {local_reason(error)}") from error


def use_checked_stdout() -> None:
    """Let a result that cannot be printed raise LocalIOError; descriptor 1 is open.

    Python has None in the place of a closed stdout, to which click prints without an error. A
    command that prints nothing succeeds there, as those of coreutils do.
    """
    found = sys.stdout
    if found is None:  # without a buffer, which would be written again at the end
        closed = _Stdout(is_closed=True)
        sys.stdout = io.TextIOWrapper(closed, encoding="utf-8", write_through=True)
    elif found is sys.__stdout__:  # and not what a caller in Python has put in its place
        names = ("encoding", "errors", "line_buffering", "write_through")
        settings = {name: getattr(found, name) for name in names}
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(_Stdout(is_closed=False)), **settings)


def is_stdout_closed() -> bool:
    """Whether stdout was closed when cpstage started."""
    return isinstance(sys.stdout.buffer, _Stdout)


def _say(message: str) -> None:
    """Write to stderr, unless it is closed."""
    with suppress(AttributeError, OSError, ValueError):
        click.echo(message.rstrip("\n"), err=True)
