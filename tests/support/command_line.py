"""The ``cpstage`` command as a user runs it: a process with an environment and a directory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cpstage


@dataclass(frozen=True)
class Cli:
    """Runs the command in a directory of its own, as the caller that the local AWS knows."""

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
        variables = {**self.environment, **environment}
        return subprocess.run(
            [sys.executable, "-m", "cpstage", *arguments],
            cwd=cwd or self.directory,
            env={name: value for name, value in variables.items() if name not in without},
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
    source = str(Path(cpstage.__file__).parent.parent)
    return {
        **variables,
        "PYTHONPATH": source,
        "HOME": str(home),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
