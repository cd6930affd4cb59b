"""How commands reach a local AWS that runs elsewhere."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from cpstage.errors import ServiceUnavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cpstage.local import LocalAWSClient

endpoint_option = click.option(
    "--endpoint-url",
    envvar="AWS_ENDPOINT_URL",
    help="Where 'cpstage local serve' listens; else AWS_ENDPOINT_URL.",
)


@contextmanager
def asking(endpoint_url: str | None) -> Iterator[LocalAWSClient]:
    """Reach the local AWS at an endpoint.

    Raises:
        UsageError: No endpoint is given, or the local AWS would not have the request.
        ServiceUnavailable: None listens there.
    """
    from cpstage.local import LocalAWSClient

    if not endpoint_url:
        raise UsageError(
            "no local AWS is given",
            hint="start one with 'cpstage local serve', and export what it prints",
        )
    try:
        yield LocalAWSClient(endpoint_url)
    except ConnectionError as error:
        raise ServiceUnavailable(str(error), hint="start one with 'cpstage local serve'") from error
    except ValueError as error:
        raise UsageError(str(error)) from error
