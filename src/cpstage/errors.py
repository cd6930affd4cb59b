"""Every error a user can meet: one class for each row of the exit-code table.

A class carries the exit code (``sysexits.h``), the failure type that CodePipeline is told
(``FailureDetails.type`` of PutJobFailureResult), and what to do next. Nothing else in
cpstage decides any of the three. This module is independent of AWS clients, archives or
terminals.
"""

from __future__ import annotations

import copyreg
import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from pathlib import Path

MOST_SHOWN = 10
"""Entries that one error names."""

FailureType = Literal[
    "JobFailed",
    "ConfigurationError",
    "PermissionError",
    "RevisionOutOfSync",
    "RevisionUnavailable",
    "SystemUnavailable",
]


class Reportable(BaseException):
    """What happened, where, and what to do about it, on one line.

    The message says what was wrong and where, without a full stop; a class has a default hint.
    """

    exit_code: int = 70
    failure_type: ClassVar[FailureType] = "SystemUnavailable"
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message = printable(message)
        self.hint = printable(self.default_hint if hint is None else hint)
        super().__init__(self.message, self.hint)

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle what it says, not how it was made: subclasses have other arguments."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class CpstageError(Reportable, Exception):
    """An error of cpstage: it could not do what it was asked to do."""


class UsageError(CpstageError):
    """The command line, or the arguments of a call, are not of the documented form."""

    exit_code = 2
    failure_type = "ConfigurationError"


class ArtifactRejected(CpstageError):
    """An artifact is unsafe, corrupt, over a limit, or failed a checksum or decryption."""

    exit_code = 65
    failure_type = "JobFailed"
    default_hint = "nothing of it was staged"


class NotFound(CpstageError):
    """No such job, or nothing to push."""

    exit_code = 66
    failure_type: ClassVar[FailureType] = "ConfigurationError"


class ObjectNotFound(NotFound):
    """The job names an S3 object that is not there."""

    failure_type = "RevisionUnavailable"
    default_hint = "a lifecycle rule may have removed it: release the change again"


class ServiceUnavailable(CpstageError):
    """AWS could not be reached, or did not answer usefully after retries."""

    exit_code = 69
    failure_type = "SystemUnavailable"
    default_hint = "check the network and try again"


class InternalError(CpstageError):
    """A bug of cpstage."""

    exit_code = 70
    failure_type = "SystemUnavailable"
    default_hint = "this is a bug in cpstage: run again with --debug and report what it prints"


class WorkspaceUnavailable(CpstageError):
    """The workspace holds the target already, is in use by another run, or is read-only."""

    exit_code = 73
    failure_type = "ConfigurationError"


class WorkspaceInUse(WorkspaceUnavailable):
    """Another run is in the workspace; ``job_id`` is its job, where it says so."""

    job_id: str | None = None


class LocalIOError(CpstageError):
    """A local read or write failed, or the disk is full."""

    exit_code = 74
    failure_type = "SystemUnavailable"


class OutOfSync(CpstageError):
    """The object changed while it was read, or the job is no longer in progress."""

    exit_code = 75
    failure_type = "RevisionOutOfSync"
    default_hint = "run the command again"


class ObjectChanged(OutOfSync):
    """The object was replaced since the first request for it."""


class AccessDenied(CpstageError):
    """Credentials, a KMS key or a policy do not allow it."""

    exit_code = 77
    failure_type = "PermissionError"


class ConfigurationError(CpstageError):
    """No region, a bad job document, or outputs that do not match the job."""

    exit_code = 78
    failure_type = "ConfigurationError"


class CommandFailed(CpstageError):
    """The command of a run failed, or exceeded its time limit; the exit code is the command's."""

    exit_code = 1
    failure_type: ClassVar[FailureType] = "JobFailed"

    def __init__(self, message: str, exit_code: int, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class CommandNotStarted(CommandFailed):
    """The command of a run cannot be started: it does not exist (127), or cannot run (126)."""

    exit_code = 127
    failure_type = "ConfigurationError"
    default_hint = "check the command behind --, and PATH"


class Stopped(Reportable):
    """A signal ended the command; the exit code is 128 plus its number, as in a shell.

    It is a ``BaseException``: it can be raised anywhere, and code that handles ``Exception``, such
    as botocore's retries, must not continue.
    """

    failure_type = "JobFailed"

    def __init__(self, signal_number: int, signal_name: str) -> None:
        super().__init__(f"stopped by {signal_name}")
        self.exit_code = 128 + signal_number


NO_ROOM_HINT = "raise its limits (ulimit -u and -v), or run less at a time"
"""For a system that gives no more processes, threads or memory."""


def extra_hint(extra: str) -> str:
    """Return the commands that install an extra, one for each way to install cpstage."""
    return (
        f"in a clone, install the extra as you installed cpstage: pip install '.[{extra}]', "
        f"uv tool install '.[{extra}]' or pipx install --force '.[{extra}]'"
    )


def reportable(error: BaseException) -> Reportable:
    """Return the error of the exit-code table for any exception: the last line of defence."""
    if isinstance(error, Reportable):
        return error
    found: Reportable
    if isinstance(error, FileNotFoundError) and _is_in_removed_directory():
        found = LocalIOError(
            "the current directory was removed", hint="change to a directory that exists"
        )
    elif isinstance(error, OSError):
        where = (
            f" of {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
        )
        found = LocalIOError(f"a local read or write{where} failed: {local_reason(error)}")
    elif isinstance(error, MemoryError):
        found = LocalIOError("the system gives no more memory", hint=NO_ROOM_HINT)
    elif isinstance(error, RuntimeError) and error.args == ("can't start new thread",):
        found = LocalIOError("the system starts no more threads", hint=NO_ROOM_HINT)
    else:
        # Nobody knows what the message of an unforeseen error holds: it is for --debug.
        found = InternalError(f"unexpected {type(error).__name__}")
    found.__cause__ = error
    return found


def _is_in_removed_directory() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def require_type(what: str, value: object, *kinds: type) -> None:
    """Raise TypeError unless an argument of a caller has one of the types."""
    if not isinstance(value, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{what} is of type {type(value).__name__}, and not {wanted}")


def refuse_text(what: str, value: object) -> None:
    """Raise TypeError for a string in place of a list: it would be a list of its characters."""
    if isinstance(value, str | bytes):
        raise TypeError(f"{what} is of type {type(value).__name__}, and not a list of strings")


def unreadable_input(error: OSError, what: str) -> ConfigurationError | LocalIOError:
    """Return our error for a file of the caller that cannot be read; ``what`` has its path.

    It is a LocalIOError where the disk or the system failed, else a ConfigurationError.
    """
    text = f"cannot read {what}: {local_reason(error)}"
    if error.errno in (errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ESTALE):
        return LocalIOError(text)
    return ConfigurationError(text)


def local_reason(error: OSError) -> str:
    """Return the system's message for a failure, without file names."""
    return os.strerror(error.errno) if error.errno else type(error).__name__


def printable(text: str) -> str:
    """Return text on one line, with control characters as escapes.

    Names out of archives and answers of services end up in messages: they must not be able to
    move the cursor of the terminal that shows them, nor to forge a second line of a log.
    """
    if text.isprintable():  # most are, and a listing has 200,000 names
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def printable_lines(text: str) -> str:
    """Return text of several lines, with control characters but tabs as escapes."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def listing(texts: Iterable[str], shown: int = MOST_SHOWN) -> str:
    """Return the first texts in one line, and how many more there are."""
    found = list(texts)
    more = f" and {len(found) - shown:,} more" if len(found) > shown else ""
    return ", ".join(found[:shown]) + more


_OCCUPIED = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENOTEMPTY}
_FORBIDDEN = {errno.EACCES, errno.EPERM}
_HINTS = {
    **dict.fromkeys([errno.ENOSPC, errno.EDQUOT], "free some space, or use another disk"),
    errno.ENOENT: "check that its directory is there",
    errno.ENAMETOOLONG: "give shorter names, or a shorter path",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EFBIG: "raise the limit of the size of a file (ulimit -f)",
}
_ONE_FILE_SYSTEM = (
    "a mount or a lower layer of an overlay (a container's image) is in the way: give a path "
    "outside of it"
)


@contextmanager
def local_failures(path: Path, doing: str = "write") -> Iterator[None]:
    """Turn a failure of the file system into one of our errors, which says what was done to a path.

    Raises:
        WorkspaceUnavailable: Something else is in the place, or it may not be written to.
        LocalIOError: The disk is full or broken, or the name is too long for it, or has characters
            that file names do not have in this locale.
    """
    try:
        yield
    except (OSError, UnicodeEncodeError) as error:
        raise local_failure(error, path, doing) from error


def local_failure(
    error: OSError | UnicodeEncodeError, path: Path, doing: str = "write"
) -> WorkspaceUnavailable | LocalIOError:
    """Return our error for one of the file system; see :func:`local_failures`."""
    if isinstance(error, UnicodeEncodeError):
        return LocalIOError(
            f"cannot {doing} {path}: file names are in {error.encoding} here, and lack a character",
            hint="use a UTF-8 locale, or set PYTHONUTF8=1",
        )
    what = f"cannot {doing} {path}: {local_reason(error)}"
    if error.errno in _OCCUPIED:
        return WorkspaceUnavailable(what, hint="something else is in its place")
    if error.errno == errno.EROFS:
        return WorkspaceUnavailable(what, hint="give a path on another file system")
    if error.errno == errno.EXDEV:  # overlayfs answers so for a directory of a lower layer
        return WorkspaceUnavailable(what, hint=_ONE_FILE_SYSTEM)
    if error.errno in _FORBIDDEN:
        return WorkspaceUnavailable(what, hint="check the owner and mode of it")
    return LocalIOError(what, hint=_HINTS.get(error.errno or 0))
