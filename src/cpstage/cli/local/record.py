"""``cpstage local record``: who called what on a running local AWS."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from cpstage.cli.local.server import asking, endpoint_option
from cpstage.cli.options import output_options
from cpstage.errors import printable

if TYPE_CHECKING:
    from cpstage.cli.terminal import Terminal
    from cpstage.local import Call


@click.command(
    epilog="""\b
Examples:
  cpstage local record
  cpstage local record --json
"""
)
@endpoint_option
@output_options
def record(terminal: Terminal, endpoint_url: str | None) -> None:
    """Print who called what on a running local AWS.

    A line for each call, oldest first: who, service and action, status, place, encryption.
    """
    with asking(endpoint_url) as client:
        calls = client.calls()
    terminal.result(
        {"calls": [asdict(call) for call in calls]}, "\n".join(_line(call) for call in calls)
    )


def _line(call: Call) -> str:
    columns = (
        call.identity,
        f"{call.service}:{call.action}",
        f"{call.status} {call.error or ''}".rstrip(),
        f"{call.bucket or ''}/{call.key or ''}".strip("/"),
        " ".join(filter(None, (call.server_side_encryption, call.kms_key_id))),
    )
    return "\t".join(map(printable, columns)).rstrip()
