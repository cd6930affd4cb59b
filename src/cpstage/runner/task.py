"""What a run is asked to do, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cpstage.job import Job
from cpstage.transfer.options import Encryption, IfEmpty, Packing, Unpacking

FetchInputs = Literal["always", "first", "never"]
"""Whether a run fetches inputs: always, only for a job without a continuation token, or never."""


@dataclass(frozen=True)
class Staging:
    """What a run fetches, and how: the arguments of :func:`cpstage.fetch`."""

    artifacts: Sequence[str] = ()
    unpacking: Unpacking = field(default_factory=Unpacking)
    replace: bool = False
    wait: float = 0
    verify: bool = False
    keep_out: bool = False
    inputs: FetchInputs = "always"

    def arguments(self) -> dict[str, Any]:
        """Return them as keyword arguments."""
        return {name: value for name, value in vars(self).items() if name != "inputs"}

    def skips_inputs(self, job: Job) -> bool:
        """Whether the inputs of a job are not to be fetched."""
        is_first = job.continuation_token is None
        return self.inputs == "never" or (self.inputs == "first" and not is_first)


@dataclass(frozen=True)
class Delivery:
    """What a run pushes, and how: the arguments of :func:`cpstage.push`.

    Attributes:
        always: Push also when the command has failed.
    """

    paths: Mapping[str, Path | str] = field(default_factory=dict)
    packing: Packing = field(default_factory=Packing)
    encryption: Encryption = field(default_factory=Encryption)
    if_empty: IfEmpty = "error"
    always: bool = False

    def arguments(self) -> dict[str, Any]:
        """Return them as keyword arguments."""
        return {name: value for name, value in vars(self).items() if name != "always"}


@dataclass(frozen=True)
class Surroundings:
    """What a command finds around it.

    Attributes:
        directory: Where it runs: the name of an input artifact, or a path from the workspace.
        pass_configuration: Whether it is handed the action's configuration, secrets and all.
        pass_credentials: Whether it keeps the caller's own AWS credentials.
        codebuild: Whether it gets the variables that AWS CodeBuild has for input artifacts.
    """

    directory: str = "."
    pass_configuration: bool = False
    pass_credentials: bool = False
    codebuild: bool = False
