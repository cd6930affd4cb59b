"""The variables that tell a command where its job's artifacts are. Never a credential."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from cpstage.errors import ConfigurationError
from cpstage.filesystem.tree import local_failures
from cpstage.job import ArtifactSet
from cpstage.transfer.inventory import job_of, staged_inputs
from cpstage.workspace.layout import Workspace
from cpstage.workspace.leftovers import staging_in, sweep


def job_environment(
    job: ArtifactSet,
    workspace: Workspace,
    inputs: Mapping[str, Path] | None = None,
    *,
    codebuild: bool = False,
) -> dict[str, str]:
    """Return the variables of a job in a workspace.

    Args:
        job: The job.
        workspace: Where it is staged.
        inputs: Where which input artifact is; by default each in its own directory.
        codebuild: Add the names that AWS CodeBuild has for input artifacts:
            ``CODEBUILD_SRC_DIR`` for the first and ``CODEBUILD_SRC_DIR_<artifact>`` for each.

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
    """Return the variables of the job that has been fetched into a workspace.

    Args:
        workspace: The workspace.
        job_id: The job it has to be, if that matters.
        codebuild: As for :func:`job_environment`.

    Returns:
        The variables; None where no job or another one has been fetched.
    """
    job = job_of(workspace.record())
    if job is None or job_id not in (None, job.id):
        return None
    return job_environment(job, workspace, staged_inputs(workspace, job), codebuild=codebuild)


@contextmanager
def env_file(
    path: Path | str, workspace: Workspace
) -> Iterator[Callable[[Mapping[str, str]], object]]:
    """Make a file of ``NAME=value`` lines, quoted only where a shell needs it.

    The context's value writes the variables. The file takes its place when the context ends well;
    that it can be made is known before anything else is done. A workspace that it is to lie in is
    made for it.

    Raises:
        WorkspaceUnavailable, LocalIOError: It cannot be written.
    """
    place = Path(path)
    if place.parent.resolve() == workspace.root:
        workspace.create()
    sweep(place.parent)
    with staging_in(place.parent, place) as staging, local_failures(place):
        new = os.open(staging / "variables", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(new, "wb") as file:
            yield lambda variables: file.write(render(variables, "dotenv"))
        (staging / "variables").replace(place)


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

_FISH_SPECIAL = re.compile(r"([\\'])")


def render(variables: Mapping[str, str], syntax: Syntax) -> bytes:
    """Write variables in the syntax of a shell, a line each; or as a JSON object.

    Names of files may be no text: such bytes come out as they are, but in JSON, which has none.
    """
    if syntax == "json":
        return (json.dumps(dict(variables), indent=2) + "\n").encode("ascii")
    line = _LINES[syntax]
    return os.fsencode("".join(f"{line(name, value)}\n" for name, value in variables.items()))


def _sh(name: str, value: str) -> str:
    return f"export {name}={shlex.quote(value)}"


def _fish(name: str, value: str) -> str:
    escaped = _FISH_SPECIAL.sub(r"\\\1", value)
    return f"set -gx {name} '{escaped}'"


def _powershell(name: str, value: str) -> str:
    doubled = _POWERSHELL_QUOTES.sub(r"\1\1", value)
    return f"$env:{name} = '{doubled}'"


def _dotenv(name: str, value: str) -> str:
    return f"{name}={shlex.quote(value)}"


_LINES: dict[str, Callable[[str, str], str]] = {
    "sh": _sh,
    "fish": _fish,
    "powershell": _powershell,
    "dotenv": _dotenv,
}
