"""The environment of a command: its job's variables, and the files that it reads and writes.

No variable holds a credential of the job. The files are readable by their owner only, and removed
when the command has ended:

=========================================  ===================================================
``CPSTAGE_OUTPUT_VARIABLES``               empty; the command appends ``NAME=value`` lines
``CPSTAGE_NEXT_CONTINUATION_TOKEN_FILE``   empty; with a token in it, another job continues the
                                           action
``CPSTAGE_CONTINUATION_TOKEN_FILE``        the token that an earlier job left, where one did
``CPSTAGE_CONFIGURATION``                  the action's configuration as JSON, where it is wanted
=========================================  ===================================================

Two files for tokens, and not one, let a command go on with the token that it came with.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cpstage.errors import (
    ConfigurationError,
    LocalIOError,
    WorkspaceUnavailable,
    local_failures,
    local_reason,
)
from cpstage.filesystem.files import replaced_file, require_writable, write_private
from cpstage.filesystem.removal import removed_at_end
from cpstage.job import ArtifactSet, Job
from cpstage.job.document import reveal
from cpstage.job.model import Secret
from cpstage.job.result import MOST_READ, MOST_TOKEN_BYTES, parse_token, parse_variables
from cpstage.transfer.manifest import job_of, staged_inputs
from cpstage.workspace.layout import Workspace
from cpstage.workspace.state import NotOurs, read_own

_SECRETS = {
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
}
"""Variables whose values are credentials of the caller."""

_CREDENTIALS = _SECRETS | {
    "AWS_ACCESS_KEY_ID",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
}
"""Variables with credentials of the caller, or with what they can be obtained by."""

_BEARERS = "AWS_BEARER_TOKEN_"
"""The prefix of the names of bearer tokens: botocore has one for each service."""

_CLIENT_TOKEN = "CPSTAGE_CLIENT_TOKEN"  # noqa: S105 (the name of a variable)

_OURS = {_CLIENT_TOKEN, "CPSTAGE_CONTINUATION_TOKEN"}


def inherited(environment: Mapping[str, str], *, credentials: bool) -> dict[str, str]:
    """Return the variables that a command inherits, with or without the caller's credentials."""
    withheld = _OURS if credentials else _OURS | _CREDENTIALS
    return {
        name: value
        for name, value in environment.items()
        if name not in withheld and (credentials or not name.startswith(_BEARERS))
    }


def secrets_of(environment: Mapping[str, str]) -> list[Secret]:
    """Return the credentials that are values of our environment."""
    return [
        Secret(value)
        for name, value in environment.items()
        if name in _SECRETS or name == _CLIENT_TOKEN or name.startswith(_BEARERS)
    ]


def job_environment(
    job: ArtifactSet,
    workspace: Workspace,
    inputs: Mapping[str, Path] | None = None,
    *,
    codebuild: bool = False,
) -> dict[str, str]:
    """Return the variables of a job in a workspace; by default each input has its own directory.

    ``codebuild`` adds the names that AWS CodeBuild has for input artifacts: ``CODEBUILD_SRC_DIR``
    for the first and ``CODEBUILD_SRC_DIR_<artifact>`` for each.

    Raises:
        ConfigurationError: Two artifacts have the same name as a variable.
    """
    if inputs is None:
        inputs = {one.name: workspace.input(one.name) for one in job.input_artifacts}
    context = job.pipeline_context
    facts = {
        "CPSTAGE_JOB_ID": job.id if job.read_with == "job" else None,
        "CPSTAGE_WORKSPACE": str(workspace.root),
        "CPSTAGE_PIPELINE": context.pipeline_name,
        "CPSTAGE_STAGE": context.stage_name,
        "CPSTAGE_ACTION": context.action_name,
        "CPSTAGE_EXECUTION_ID": context.pipeline_execution_id,
    }
    variables = {name: value for name, value in facts.items() if value}
    for name, path in inputs.items():
        _add(variables, f"CPSTAGE_IN_{name.upper()}", path)
    for artifact in job.artifacts_to_build:
        _add(variables, f"CPSTAGE_OUT_{artifact.name.upper()}", workspace.output(artifact.name))
    if codebuild:
        for name, path in inputs.items():
            variables.setdefault("CODEBUILD_SRC_DIR", str(path))
            _add(variables, f"CODEBUILD_SRC_DIR_{name}", path)
    return variables


def staged_environment(
    workspace: Workspace, job_id: str | None = None, *, codebuild: bool = False
) -> dict[str, str] | None:
    """Return the variables of the job that was fetched into a workspace; None for another job."""
    job = job_of(workspace.record())
    if job is None or job_id not in (None, job.id):
        return None
    return job_environment(job, workspace, staged_inputs(workspace, job), codebuild=codebuild)


def _add(variables: dict[str, str], name: str, path: Path) -> None:
    name = re.sub("[^A-Za-z0-9_]", "_", name)
    if name in variables:
        raise ConfigurationError(
            f"two artifacts of the job both become the variable {name}",
            hint="rename one of them in the pipeline",
        )
    variables[name] = str(path)


Syntax = Literal["sh", "fish", "powershell", "dotenv", "json"]

_POWERSHELL_QUOTES = re.compile("(['\u2018\u2019\u201a\u201b])")
"""All of these end a string in single quotes (about_Quoting_Rules); doubled, they do not."""


def render(variables: Mapping[str, str], syntax: Syntax) -> bytes:
    """Write variables in the syntax of a shell, a line each; or as a JSON object.

    Names of files may be no text: such bytes come out as they are, but in JSON, which has none.
    """
    if syntax == "json":
        return (json.dumps(dict(variables), indent=2) + "\n").encode("ascii")
    lines = (f"{_line(name, value, syntax)}\n" for name, value in variables.items())
    return os.fsencode("".join(lines))


def _line(name: str, value: str, syntax: Syntax) -> str:
    """Return an assignment in the syntax of a shell."""
    if syntax == "fish":
        escaped = re.sub(r"([\\'])", r"\\\1", value)
        return f"set -gx {name} '{escaped}'"
    if syntax == "powershell":
        doubled = _POWERSHELL_QUOTES.sub(r"\1\1", value)
        return f"$env:{name} = '{doubled}'"
    line = f"{name}={shlex.quote(value)}"
    return line if syntax == "dotenv" else f"export {line}"


def check_env_file(path: Path, workspace: Workspace) -> None:
    """Check that :func:`write_env_file` can write a file; make the workspace that it lies in."""
    if path.parent.resolve() == workspace.root:
        workspace.create()
    require_writable(path)


def write_env_file(path: Path, variables: Mapping[str, str]) -> None:
    """Write ``NAME=value`` lines, quoted only where a shell needs it, into a file.

    Raises:
        WorkspaceUnavailable, LocalIOError: It cannot be written.
    """
    with replaced_file(path) as file:
        file.write(render(variables, "dotenv"))


@dataclass(frozen=True)
class Left:
    """The output of a command in its files: variables, or a token for the job that follows."""

    output_variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    continuation_token: Secret | None = field(default=None, repr=False)


class HandedFiles:
    """The files of one command, in one directory, and the variables that name them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.environment: dict[str, str] = {}
        self._variables = self.write("CPSTAGE_OUTPUT_VARIABLES", "output-variables")
        self._next_token = self.write(
            "CPSTAGE_NEXT_CONTINUATION_TOKEN_FILE", "next-continuation-token"
        )

    def write(self, variable: str, name: str, text: str = "") -> Path:
        """Write a file, note the variable that names it, and return its path."""
        path = self._directory / name
        write_private(path, text)
        self.environment[variable] = str(path)
        return path

    def collect(self, secrets: Iterable[Secret]) -> Left:
        """Read what the command has left; no value may contain one of the secrets.

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
def handed_files(directory: Path, job: Job, *, pass_configuration: bool) -> Iterator[HandedFiles]:
    """Make the files of a command in a new directory, and remove it at the end.

    Raises:
        WorkspaceUnavailable, LocalIOError: They cannot be written.
    """
    with removed_at_end(directory):
        with local_failures(directory, "create"):
            directory.mkdir(mode=0o700)
        files = HandedFiles(directory)
        if job.continuation_token is not None:
            token = job.continuation_token
            files.write("CPSTAGE_CONTINUATION_TOKEN_FILE", "continuation-token", token.reveal())
        if pass_configuration:  # in no variable of this function: a traceback may show those
            files.write(
                "CPSTAGE_CONFIGURATION",
                "configuration.json",
                json.dumps(reveal(job.action_configuration), indent=2) + "\n",
            )
        yield files


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
