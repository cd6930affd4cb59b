"""The input of an AWS CLI command: global options, ``--cli-input-json`` and ``file://``.

Errors never quote a refused value: it can be a token, or a file that was not meant.
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cpstage.errors import UsageError, local_reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cpstage import AwsConfig
    from cpstage.cli.options import Function

_FILE = "file://"
_JSON_TYPES = {
    bool: "a boolean",
    dict: "an object",
    float: "a number",
    int: "a number",
    list: "an array",
    str: "a string",
    type(None): "null",
}


def parameter(value: str | None, option: str) -> str | None:
    """Return the value of a parameter, read from where ``file://`` in front of a path says.

    Args:
        value: The value as it is given.
        option: The name of the option, for messages.

    Raises:
        UsageError: The file cannot be read, or is not UTF-8.
    """
    if value is None or not value.startswith(_FILE):
        return value
    path = os.path.expandvars(os.path.expanduser(value.removeprefix(_FILE)))
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        why = local_reason(error)
        raise UsageError(f"cannot read {path}, the value of {option}: {why}") from error
    except ValueError:
        # The reason holds bytes of the file.
        raise UsageError(f"cannot read {path}, the value of {option}: not UTF-8 text") from None


def input_members(document: str | None) -> dict[str, Any]:
    """Read the members of ``--cli-input-json``; there are none where it is not given.

    Raises:
        UsageError: It is not JSON, or no object.
    """
    text = parameter(document, "--cli-input-json")
    if text is None:
        return {}
    try:
        members = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--cli-input-json is not JSON: {error}") from None
    except RecursionError:
        raise UsageError("--cli-input-json is nested too deeply") from None
    if not isinstance(members, dict):
        raise UsageError(f"--cli-input-json is {_JSON_TYPES[type(members)]}, not an object")
    return members


def check_members(members: Mapping[str, Any], known: str) -> None:
    """Check the input against an operation that takes one member, a string.

    Raises:
        UsageError: There are unknown members, or the known one is not a string.
    """
    unknown = [json.dumps(name, ensure_ascii=False) for name in members if name != known]
    if unknown:
        names = ", ".join(unknown)
        raise UsageError(
            f"unknown {'member' if len(unknown) == 1 else 'members'} in --cli-input-json: {names}",
            hint=f"its only member is {json.dumps(known)}",
        )
    value = members.get(known, "")
    if not isinstance(value, str):
        kind = _JSON_TYPES[type(value)]
        raise UsageError(f"{json.dumps(known)} in --cli-input-json is {kind}, not a string")


def sample_output(service: str, operation: str) -> dict[str, Any]:
    """Return a sample of what an operation returns, with every member that its model has.

    Args:
        service: The name of the service in botocore's data, such as ``codepipeline``.
        operation: The name of the operation in the API reference.
    """
    sample: dict[str, Any] = _sample(_output_shape(service, operation), operation)
    return sample


@cache
def _output_shape(service: str, operation: str) -> Any:
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    model = ServiceModel(Loader().load_service_model(service, "service-2"))
    return model.operation_model(operation).output_shape


def _sample(shape: Any, name: str) -> Any:
    """Return a value of the shape: the first of an enumeration, or else its own name."""
    if shape.type_name == "structure":
        return {key: _sample(member, key) for key, member in shape.members.items()}
    if shape.type_name == "list":
        return [_sample(shape.member, name)]
    if shape.type_name == "map":
        return {shape.key.name: _sample(shape.value, shape.value.name)}
    return next(iter(shape.enum), name)


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
    """Add how a call is signed to the ``config``. Stands below ``aws_options``."""

    @functools.wraps(function)
    def command(config: AwsConfig, no_sign_request: bool, **others: Any) -> Any:
        return function(config=replace(config, sign_requests=not no_sign_request), **others)

    option = click.option(
        "--no-sign-request", is_flag=True, help="Send the call without credentials."
    )
    return option(command)


def options_without_effect(function: Function) -> Function:
    """Accept options without effect here: pages, pagers, prompts, colours and blobs."""
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
