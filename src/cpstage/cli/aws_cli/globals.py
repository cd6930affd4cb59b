"""The global options of the AWS CLI that only its drop-in has, and its shortened option names."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cpstage import Connection
    from cpstage.cli.options import Function

_AWS_OPTIONS = (
    "ca-bundle",
    "cli-connect-timeout",
    "cli-input-json",
    "cli-read-timeout",
    "color",
    "debug",
    "endpoint-url",
    "generate-cli-skeleton",
    "job-id",
    "no-paginate",
    "no-sign-request",
    "no-verify-ssl",
    "output",
    "profile",
    "query",
    "region",
    "v2-debug",
    "version",
)
"""What ``aws codepipeline get-job-details`` takes."""


def in_full(name: str) -> str:
    """Complete the beginning of an option of the AWS CLI, for ``token_normalize_func`` of click.

    Options of ours cannot be shortened: more of them must not change what a script means. A
    single letter stays a short option.
    """
    found = [option for option in _AWS_OPTIONS if option.startswith(name)]
    return found[0] if len(found) == 1 and len(name) > 1 else name


def call_options(function: Function) -> Function:
    """Add how a call is signed to the ``connection``. Stands below ``aws_options``."""

    @functools.wraps(function)
    def command(connection: Connection, no_sign_request: bool, **others: Any) -> Any:
        return function(connection=replace(connection, sign_requests=not no_sign_request), **others)

    option = click.option(
        "--no-sign-request", is_flag=True, help="Send the call without credentials."
    )
    return option(command)


def options_without_effect(function: Function) -> Function:
    """Accept what changes nothing here: there are no pages, pagers, prompts, colours or blobs."""
    flags = ("--no-paginate", "--v2-debug", "--no-cli-pager", "--no-cli-auto-prompt")
    for flag in flags:
        function = click.option(flag, is_flag=True, expose_value=False, hidden=True)(function)
    choices = {
        "--color": ["on", "off", "auto"],
        "--cli-binary-format": ["base64", "raw-in-base64-out"],
    }
    for name, values in choices.items():
        function = click.option(name, type=click.Choice(values), expose_value=False, hidden=True)(
            function
        )
    return function
