"""``cpstage get-job-details``: the drop-in for ``aws codepipeline get-job-details``.

It takes what a command of the AWS CLI takes: global options, ``--cli-input-json`` and ``file://``.
Errors never quote a refused value: it can be a token, or a file that was not meant.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import click

import cpstage
from cpstage._version import __version__
from cpstage.cli.aws_output import FORMATS, compile_query, output_format, render
from cpstage.cli.job_options import refuse_document
from cpstage.cli.options import Command, Function, a_file, aws_options, flag, json_options
from cpstage.cli.output import Terminal
from cpstage.errors import ConfigurationError, UsageError, local_reason

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


def _parameter(value: str | None, option: str) -> str | None:
    """Return the value of an option, or the content of the file that ``file://`` names."""
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


def _input_members(document: str | None) -> dict[str, Any]:
    """Read the members of ``--cli-input-json``; empty where it is not given."""
    text = _parameter(document, "--cli-input-json")
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


def _check_members(members: Mapping[str, Any]) -> None:
    """Check the input of an operation that has one member, the string ``jobId``."""
    unknown = [json.dumps(name, ensure_ascii=False) for name in members if name != "jobId"]
    if unknown:
        what = f"unknown {'member' if len(unknown) == 1 else 'members'}"
        raise UsageError(
            f"{what} in --cli-input-json: {', '.join(unknown)}", hint='its only member is "jobId"'
        )
    value = members.get("jobId", "")
    if not isinstance(value, str):
        raise UsageError(f'"jobId" in --cli-input-json is {_JSON_TYPES[type(value)]}, not a string')


def _sample_output(operation: str) -> Any:
    """Return a sample of what an operation returns, with every member that its model has."""
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    model = ServiceModel(Loader().load_service_model("codepipeline", "service-2"))
    return _sample(model.operation_model(operation).output_shape, operation)


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
    "ca-bundle cli-connect-timeout cli-input-json cli-read-timeout color debug endpoint-url "
    "generate-cli-skeleton job-id no-paginate no-sign-request no-verify-ssl output profile query "
    "region v2-debug version"
)
"""What ``aws codepipeline get-job-details`` takes."""


def _in_full(name: str) -> str:
    """Complete the beginning of an option of the AWS CLI, for ``token_normalize_func`` of click.

    Options of ours cannot be shortened: more of them must not change what a script means. A
    single letter stays a short option.
    """
    found = [option for option in _AWS_OPTIONS.split() if option.startswith(name)]
    return found[0] if len(found) == 1 and len(name) > 1 else name


def _options_without_effect(function: Function) -> Function:
    """Accept options without effect here: pages, pagers, prompts, colours and blobs."""
    option = partial(click.option, expose_value=False, hidden=True)
    for name in ("--no-paginate", "--v2-debug", "--no-cli-pager", "--no-cli-auto-prompt"):
        function = option(name, is_flag=True)(function)
    function = option("--color", type=click.Choice(["on", "off", "auto"]))(function)
    formats = click.Choice(["base64", "raw-in-base64-out"])
    return option("--cli-binary-format", type=formats)(function)


_EXAMPLES = """\b
Examples:
  cpstage get-job-details --job-id JOB_ID
  cpstage get-job-details --job-id JOB_ID --query jobDetails.data
  cpstage get-job-details --job-id JOB_ID --save job.json
  cpstage get-job-details --cli-input-json file://input.json --output table

Options of the AWS CLI that change nothing here, such as --no-paginate, are accepted.
"""


@click.command(
    "get-job-details",
    cls=Command,
    epilog=_EXAMPLES,
    context_settings={"token_normalize_func": _in_full, "allow_extra_args": True},
)
@click.option(
    "--job-id",
    allow_from_autoenv=False,  # the input as JSON counts before it
    metavar="ID|file://F",
    help="Job ID; else CPSTAGE_JOB_ID.",
)
@click.option(
    "--client-token",
    metavar="TOKEN|file://F",
    help="Client token of a third-party job; cpstage then calls GetThirdPartyJobDetails.",
)
@click.option(
    "--cli-input-json", metavar="JSON|file://F", help="Input as a JSON object; options override it."
)
@click.option(
    "--generate-cli-skeleton",
    is_flag=False,
    flag_value="input",
    type=click.Choice(["input", "output"]),
    help="Print a sample of the input or output, and make no call.",
)
@click.option(
    "--query",
    allow_from_autoenv=False,
    metavar="JMESPATH",
    help="JMESPath expression that selects what is printed.",
)
@click.option(
    "--output",
    type=click.Choice(FORMATS),
    help="Format; else AWS_DEFAULT_OUTPUT, then the profile's, then json.",
)
@flag("--reveal-secrets", help="Print the document with its secrets.")
@flag("--mask", help="Print masked values with --output text, too.")
@click.option(
    "--save",
    "saved",
    type=a_file,
    metavar="FILE",
    help="Save the document, SECRETS included, in FILE (mode 0600), with the time at which "
    "CodePipeline issued its credentials; print nothing.",
)
@aws_options(flag("--no-sign-request", help="Send the call without credentials."))
@json_options
@_options_without_effect
@click.version_option(__version__, prog_name="cpstage")
def get_job_details(
    *,
    job_id: str | None,
    client_token: str | None,
    cli_input_json: str | None,
    generate_cli_skeleton: str | None,
    query: str | None,
    output: str | None,
    reveal_secrets: bool,
    mask: bool,
    saved: str | None,
    config: cpstage.AwsConfig,
    terminal: Terminal,
) -> None:
    """Print the job's document, as the AWS CLI does.

    The command masks secrets before it applies --query: session credentials, all values of the
    action's configuration, and the continuation token. --reveal-secrets prints what the AWS CLI
    prints. With --output text, which scripts read, the command exits with 78 where it would print
    a masked value. --save also saves the time at which CodePipeline issued the credentials.
    """
    more = click.get_current_context().args
    if more:
        raise UsageError("the job ID is an option here", hint=f"write --job-id {more[0]}")
    search = compile_query(query)
    members = _input_members(cli_input_json)
    if job_id is not None:
        members["jobId"] = _parameter(job_id, "--job-id")
    # A file that holds an id or a token usually ends in a newline, which is not part of the value.
    token = (_parameter(client_token, "--client-token") or "").strip()
    if generate_cli_skeleton == "input":
        _print('{\n    "jobId": ""\n}\n')
        return
    _check_members(members)
    chosen = output_format(output, terminal.json, config, terminal.note)
    operation = "GetThirdPartyJobDetails" if token else "GetJobDetails"
    if saved is not None:
        _save(members.get("jobId"), token, config, saved)
        return
    if generate_cli_skeleton == "output":
        document = _sample_output(operation)
    else:
        document = _job_document(members.get("jobId"), token, config, reveal_secrets)
        if not reveal_secrets:
            terminal.note("cpstage: secrets are masked; --reveal-secrets shows them")
    selected = search(document)
    if chosen == "text" and not (mask or reveal_secrets) and _is_masked(selected):
        raise ConfigurationError(
            "a masked value is selected, which a script would take for the value",
            hint="add --reveal-secrets, or --mask to print masked values",
        )
    _print(render(selected, chosen, operation))


def _is_masked(selected: object) -> bool:
    """Whether a selected value is masked, or holds a masked one."""
    if isinstance(selected, dict):
        return any(_is_masked(value) for value in selected.values())
    if isinstance(selected, list):
        return any(_is_masked(value) for value in selected)
    from cpstage.job.model import MASK

    return selected == MASK


def _job_document(
    given: str | None, token: str, config: cpstage.AwsConfig, reveal_secrets: bool
) -> dict[str, Any]:
    job_id = (os.environ.get("CPSTAGE_JOB_ID", "") if given is None else given).strip()
    refuse_document(job_id, "--job-id")
    if not job_id:
        raise UsageError(
            "no job is given" if given is None else "the job id is empty",
            hint="give --job-id, 'jobId' in --cli-input-json, or CPSTAGE_JOB_ID",
        )
    document = cpstage.get_job_details(job_id, client_token=token or None, config=config)
    return document if reveal_secrets else cpstage.job.mask_document(document)


def _save(given: str | None, token: str, config: cpstage.AwsConfig, file: str) -> None:
    """Save the document for ``--job-file``; an existing file is replaced in one step."""
    from cpstage.filesystem.files import replaced_file
    from cpstage.job import saved_document

    asked_at = datetime.now(timezone.utc)
    document = saved_document(_job_document(given, token, config, True), asked_at)
    with replaced_file(Path(file)) as output:
        output.write(f"{json.dumps(document, indent=4)}\n".encode("ascii"))


def _print(text: str) -> None:
    try:
        # Without color=True escape sequences would be cut out of values when stdout is a pipe.
        click.echo(text, nl=False, color=True)
    except UnicodeEncodeError:
        # The reason holds a character of the document.
        raise ConfigurationError(
            f"the document cannot be printed in the encoding {sys.stdout.encoding}",
            hint="use a UTF-8 locale, or set PYTHONIOENCODING=utf-8",
        ) from None
