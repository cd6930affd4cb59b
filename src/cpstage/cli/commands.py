"""Which commands there are, in groups, each loaded only when it is run.

What a command is for stands here as well as in the command, so that ``cpstage --help`` need not
load them all; a test holds the two together.
"""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

import click

from cpstage.errors import UsageError


class _Command(NamedTuple):
    """A command: its module below :mod:`cpstage.cli`, and what it is for."""

    module: str
    help: str


GROUPS: dict[str, dict[str, _Command]] = {
    "Job artifacts": {
        "fetch": _Command("fetch", "Stage a job's input artifacts."),
        "push": _Command("push", "Upload a job's output artifacts."),
    },
    "Running jobs and reporting results": {
        "run": _Command("run", "Fetch a job's inputs, run CMD, push its outputs."),
        "work": _Command("work", "Run the jobs of an action type, until stopped."),
        "report": _Command("report", "Report the result of a job to CodePipeline."),
        "env": _Command("env", "Print the variables of a job in a workspace."),
        "credentials": _Command(
            "credentials", "Print a job's session credentials, SECRETS included."
        ),
    },
    "Job details": {
        "show": _Command("show", "Show a job and the objects at its locations."),
        "get-job-details": _Command(
            "get_job_details",
            "Print the job's document, as the AWS CLI does.",
        ),
    },
    "Inspecting artifacts and finding problems": {
        "ls": _Command("ls", "List the contents of a job's artifacts, without fetching them."),
        "cat": _Command("cat", "Write one member of an artifact to stdout."),
        "diff": _Command("diff", "Compare a fetched tree with its artifact in S3."),
        "doctor": _Command("doctor", "Check everything that a run of a job needs."),
    },
    "Local files": {
        "unpack": _Command("unpack", "Unpack a zip, tar or tar.gz."),
        "pack": _Command("pack", "Pack a directory into a zip, tar or tar.gz."),
    },
    "Without an AWS account": {
        "demo": _Command("demo", "Run a complete job on an embedded local AWS."),
        "local": _Command(
            "local", "Run an embedded local AWS: S3, KMS and the job API, on loopback."
        ),
    },
}
_COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}


class LazyCommands(click.Group):
    """A group whose commands are loaded when they are run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of all commands."""
        return [*_COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Load a command; its name in its module is that of the command."""
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"cpstage.cli.{_COMMANDS[cmd_name].module}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; of a name that is none, say which ones are like it."""
        if args[0] in _COMMANDS or args[0].startswith("-"):
            return super().resolve_command(ctx, args)
        from difflib import get_close_matches

        close = get_close_matches(args[0], _COMMANDS)
        meant = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        hint = f"{meant}'cpstage --help' lists all"
        raise UsageError(f"there is no command {args[0]!r}", hint=hint)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands in their groups."""
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, command.help) for name, command in commands.items()])
