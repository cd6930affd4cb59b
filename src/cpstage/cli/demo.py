"""``cpstage demo``: the whole way on the embedded local AWS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cpstage.cli.extra import local_extra
from cpstage.cli.options import output_options, progress_option

if TYPE_CHECKING:
    from cpstage import Progress
    from cpstage.cli.terminal import Terminal


@click.command(
    epilog="""\b
Examples:
  cpstage demo
  cpstage demo --json
"""
)
@output_options
@progress_option
def demo(terminal: Terminal, progress: Progress) -> None:
    """Show the whole way on an embedded local AWS.

    In one process and without an AWS account: a sample pipeline hands out a job, its inputs are
    fetched, a real build runs, its results are pushed, and the bucket is looked at.
    """
    with local_extra():
        from cpstage.demo import run_demo

        said: list[str] = []
        run_demo(said.append if terminal.json else terminal.line, progress)
        if terminal.json:
            terminal.result({"narration": said}, "")
