"""``cpstage demo``: the whole way on the embedded local AWS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cpstage.cli.extra import local_extra
from cpstage.cli.options import output_options, progress_option
from cpstage.cli.terminal import Terminal

if TYPE_CHECKING:
    from cpstage import Progress


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
    """Run a complete job on an embedded local AWS.

    The demo needs no AWS account. A sample pipeline offers a job; the demo fetches its inputs, runs
    a real build, pushes the outputs, and lists the bucket.
    """
    with local_extra():
        from cpstage.demo import run_demo

        said: list[str] = []
        run_demo(said.append if terminal.json else terminal.line, progress)
        if terminal.json:
            terminal.result({"narration": said}, "")
