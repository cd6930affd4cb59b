"""The command behind ``--``, and options of how it is run."""

from __future__ import annotations

import functools
from typing import Any

import click

from cpstage.cli.options import Function, Number, Seconds, add_options

_COMMAND = "cpstage command"


class TakesCommand(click.Command):
    """A command of ours that runs another one, which stands behind ``--`` and is left alone."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set aside what is behind the first ``--``."""
        ours, theirs = args, []
        if "--" in args:
            at = args.index("--")
            ours, theirs = args[:at], args[at + 1 :]
        ctx.meta[_COMMAND] = tuple(theirs)
        return super().parse_args(ctx, ours)


def command_options(function: Function) -> Function:
    """Add how the command is run; ours gets ``command``, ``execution`` and ``surroundings``."""

    @functools.wraps(function)
    def command(
        *,
        cwd: str,
        timeout: float | None,
        kill_after: float | None,
        report_tail: int,
        pass_configuration: bool,
        pass_credentials: bool,
        codebuild_env: bool,
        **others: Any,
    ) -> Any:
        from cpstage import Execution, Surroundings

        return function(
            command=click.get_current_context().meta[_COMMAND],
            execution=Execution(timeout, kill_after, report_tail),
            surroundings=Surroundings(cwd, pass_configuration, pass_credentials, codebuild_env),
            **others,
        )

    return add_options(
        command,
        click.option(
            "--cwd",
            default=".",
            metavar="DIR",
            help="Working directory of CMD: an input artifact's name, or a path. [the workspace]",
        ),
        click.option(
            "--timeout",
            type=Seconds(),
            metavar="SECONDS",
            help="Time limit for CMD. [none]",
        ),
        click.option(
            "--kill-after",
            type=Seconds(),
            metavar="SECONDS",
            help="Kill CMD if it still runs this long after its first signal. [10 after "
            "--timeout; after a signal, when a second signal arrives]",
        ),
        click.option(
            "--report-tail",
            type=Number(0, 1000),
            default=0,
            metavar="N",
            help="Report the last N lines of CMD's output if it fails; CMD then writes to "
            "pipes. [0]",
        ),
        click.option(
            "--pass-configuration",
            is_flag=True,
            help="Pass the action's configuration to CMD in the file CPSTAGE_CONFIGURATION.",
        ),
        click.option(
            "--pass-credentials",
            is_flag=True,
            help="Keep your own AWS credential variables in CMD's environment. CMD never "
            "gets the job's session credentials.",
        ),
        click.option("--codebuild-env", is_flag=True, help="Add CODEBUILD_SRC_DIR variables."),
    )
