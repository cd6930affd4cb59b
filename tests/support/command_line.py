"""The ``cpstage`` command as a user runs it: a process with an environment and a directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cpstage
from forked_commands import Forks

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCE = str(Path(cpstage.__file__).parent.parent)


@dataclass(frozen=True)
class Cli:
    """Runs the command in a new directory, as the caller that the local AWS knows.

    Each command is a process, forked off one that has loaded cpstage; where a test changes what
    Python itself reads from its environment, the command gets a new interpreter.
    """

    environment: Mapping[str, str]
    directory: Path

    def with_variables(self, variables: Mapping[str, str]) -> Cli:
        """The same with other variables."""
        return Cli({**self.environment, **variables}, self.directory)

    def __call__(
        self,
        *arguments: str,
        cwd: Path | None = None,
        stdin: str | None = None,
        without: tuple[str, ...] = (),
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        given = {**self.environment, **environment}
        variables = {name: value for name, value in given.items() if name not in without}
        directory = cwd or self.directory
        if _can_fork(variables):
            return forks().run(arguments, directory, variables, stdin=stdin)
        return subprocess.run(
            [sys.executable, "-m", "cpstage", *arguments],
            cwd=directory,
            env=variables,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def plain_environment(home: Path) -> dict[str, str]:
    """An environment without any AWS setting."""
    kept = ("PATH", "LANG", "TMPDIR", "VIRTUAL_ENV")
    variables = {name: os.environ[name] for name in kept if name in os.environ}
    return {
        **variables,
        "PYTHONPATH": SOURCE,
        "HOME": str(home),
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _can_fork(variables: Mapping[str, str]) -> bool:
    """Whether Python reads from the environment what the loaded process has read."""
    python = {name: value for name, value in variables.items() if name.startswith("PYTHON")}
    locale = any(name.startswith("LC_") for name in variables)
    same = variables.get("LANG") == os.environ.get("LANG") and not locale
    return same and {**python, "PYTHON": ""} == {"PYTHONPATH": SOURCE, "PYTHON": ""}


_loaded: dict[str, Forks] = {}


def forks(program: str = "cpstage") -> Forks:
    """The process of this test process that has loaded a program; :func:`end_forks` ends it."""
    if program not in _loaded:
        directory = Path(tempfile.mkdtemp(prefix="forks-"))
        _loaded[program] = Forks(directory, plain_environment(directory), program)
    return _loaded[program]


def end_forks() -> None:
    """End the processes that have loaded programs."""
    while _loaded:
        _, running = _loaded.popitem()
        running.__exit__()
        shutil.rmtree(running.directory)
