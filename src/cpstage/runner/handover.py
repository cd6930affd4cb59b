"""What a command is handed besides its artifacts, and what it leaves: files that only it may read.

======================================  ====================================================
``CPSTAGE_OUTPUT_VARIABLES``            empty; the command appends ``NAME=value`` lines
``CPSTAGE_NEXT_CONTINUATION_TOKEN_FILE``  empty; a token in it lets the action go on in another job
``CPSTAGE_CONTINUATION_TOKEN_FILE``     the token that an earlier job left, where one did
``CPSTAGE_CONFIGURATION``               the action's configuration as JSON, where it is wanted
======================================  ====================================================

They are gone when the command has ended, however it has. Two files for tokens, and not one, let a
command go on with the token that it came with.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cpstage.aws.job_result import MOST_TOKEN_BYTES, parse_token
from cpstage.errors import ConfigurationError, LocalIOError, WorkspaceUnavailable, local_reason
from cpstage.filesystem.removal import remove_tree
from cpstage.filesystem.tree import local_failures, write_private
from cpstage.job import Job
from cpstage.job.masking import Secret, reveal
from cpstage.job.result import MOST_READ, parse_variables
from cpstage.workspace.statefile import NotOurs, read_own

_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
}
"""What is a caller's credential, or buys one."""

BEARERS = "AWS_BEARER_TOKEN_"
"""What the names of bearer tokens begin with: botocore has one for each service."""

_OURS = {"CPSTAGE_CLIENT_TOKEN", "CPSTAGE_CONTINUATION_TOKEN"}


@dataclass(frozen=True)
class Left:
    """What a command has left behind.

    Attributes:
        output_variables: Its output variables.
        continuation_token: The token of the job that is to follow.
    """

    output_variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    continuation_token: Secret | None = field(default=None, repr=False)


class Handover:
    """The files of one command.

    Args:
        directory: Where they are.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._variables = directory / "output-variables"
        self._next_token = directory / "next-continuation-token"
        self.environment = {
            "CPSTAGE_OUTPUT_VARIABLES": str(self._variables),
            "CPSTAGE_NEXT_CONTINUATION_TOKEN_FILE": str(self._next_token),
        }

    def prepare(self, job: Job, *, pass_configuration: bool) -> None:
        """Write them."""
        with local_failures(self._directory, "create"):
            self._directory.mkdir(mode=0o700)
        write_private(self._variables, "")
        write_private(self._next_token, "")
        if job.continuation_token is not None:
            path = self._directory / "continuation-token"
            write_private(path, job.continuation_token.reveal())
            self.environment["CPSTAGE_CONTINUATION_TOKEN_FILE"] = str(path)
        if pass_configuration:
            path = self._directory / "configuration.json"
            write_private(path, json.dumps(reveal(job.action_configuration), indent=2) + "\n")
            self.environment["CPSTAGE_CONFIGURATION"] = str(path)

    def collect(self, secrets: Iterable[Secret]) -> Left:
        """Read what the command has left.

        Args:
            secrets: The credentials that this process holds, which no value may contain.

        Raises:
            WorkspaceUnavailable: The files are gone.
            ConfigurationError: They are not what was made, or hold what cannot be reported.
            LocalIOError: They cannot be read.
        """
        written = _left_in(self._variables, MOST_READ, "output variables")
        variables = parse_variables(written, str(self._variables))
        text = _left_in(self._next_token, MOST_TOKEN_BYTES, "continuation token")
        token = parse_token(text, str(self._next_token)) if text else None
        values = [*variables.values(), *([token.reveal()] if token else [])]
        if any(one.reveal() in value for one in secrets for value in values):
            raise ConfigurationError(
                "the command left a credential in its output variables or continuation token",
                hint="they are shown in the pipeline: leave credentials out",
            )
        if token is not None and variables:
            raise ConfigurationError(
                "the command left output variables and a continuation token: "
                "CodePipeline takes one of them",
                hint="leave output variables to the last job of the action",
            )
        return Left(variables, token)


@contextmanager
def handover(directory: Path, job: Job, *, pass_configuration: bool) -> Iterator[Handover]:
    """Make the files of a command, and remove them at the end.

    Args:
        directory: Where; it is made for them.
        job: The job.
        pass_configuration: Whether the action's configuration, with its secrets, is one of them.

    Raises:
        WorkspaceUnavailable, LocalIOError: They cannot be written.
    """
    files = Handover(directory)
    try:
        files.prepare(job, pass_configuration=pass_configuration)
        yield files
    finally:
        remove_tree(directory)


def inherited(environment: Mapping[str, str], *, credentials: bool) -> dict[str, str]:
    """Return what of our environment a command may have.

    Args:
        environment: Ours.
        credentials: Whether the caller's own AWS credentials are for the command, too. A job's
            never are: they are in no environment.
    """
    withheld = _OURS if credentials else _OURS | _CREDENTIALS
    given = {name: value for name, value in environment.items() if name not in withheld}
    if credentials:
        return given
    return {name: value for name, value in given.items() if not name.startswith(BEARERS)}


def _left_in(path: Path, most: int, what: str) -> bytes:
    """Read a file that the command could do anything to."""
    try:
        return read_own(path, most)
    except NotOurs as error:
        raise ConfigurationError(
            f"the {what} {path} cannot be used: {error}",
            hint="let the command write to the file that it is handed, or rename a new one to it",
        ) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise WorkspaceUnavailable(
            f"the file for the {what} {path} was removed while the command ran",
            hint="let the build leave .cpstage/ alone, and run it again",
        ) from error
    except OSError as error:
        raise LocalIOError(f"cannot read the {what} {path}: {local_reason(error)}") from error
