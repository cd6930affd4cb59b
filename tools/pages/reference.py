"""Write reference.md and json.md: ``python tools/pages/reference.py``.

``reference.md`` is made from the commands, ``json.md`` from the schemas in docs/schemas. With
``--check`` the script writes nothing, and exits with 1 if a page is out of date.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cpstage import errors
from cpstage.cli import GROUPS, cpstage

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[2] / "docs"
MADE = (
    "<!-- Written by tools/pages/reference.py: edit the commands or the schemas, then run it. -->"
)

VARIABLES = {
    "CPSTAGE_JOB_ID": "Job ID, if the command line has no `JOB_ID`.",
    "CPSTAGE_WORKSPACE": "Workspace, if the command line has no `--workspace`.",
    "CPSTAGE_WORKSPACE_ROOT": "Parent of the workspaces of `cpstage work`, if the command line has "
    "no `--workspace-root`.",
    "CPSTAGE_CLIENT_TOKEN": "Client token of a third-party job.",
    "CPSTAGE_CONTINUATION_TOKEN": "Continuation token for `cpstage report success`.",
    "AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL, AWS_CA_BUNDLE and others": "Same meaning as for "
    "the AWS CLI.",
    "HTTPS_PROXY, HTTP_PROXY, NO_PROXY": "Proxies.",
    "NO_COLOR": "Accepted; cpstage prints no colors.",
    "_CPSTAGE_COMPLETE": "Set by the shell to complete a command line.",
}

Leaf = tuple[str, click.Command]


def reference() -> str:
    """Return the reference of the commands."""
    lines = ["# Reference", "", MADE, "", inspect.cleandoc(cpstage.help or ""), ""]
    lines += [
        "This page lists every command with all its options. `cpstage COMMAND --help` prints the",
        "same text. [Environment variables](#environment) and [exit codes](#exit-codes) are at the",
        "end of the page.",
        "",
    ]
    for title, names in GROUPS.items():
        lines += [f"## {title}", ""]
        for name in names:
            for path, command in leaves(name, _command(name)):
                lines += _of_command(path, command)
    return "\n".join([*lines, *_environment(), "", *_exit_codes()]) + "\n"


def json_page() -> str:
    """Return the reference of what commands print with ``--json``."""
    lines = ["# JSON", "", MADE, ""]
    lines += [
        "This page lists the members that each command prints with `--json`, so that you can read",
        "them in a program. A command prints one JSON document on stdout. Unknown values are null.",
        "A minor version may add members. It neither removes a member nor changes its meaning. The",
        "schemas are in [`schemas/`](schemas).",
        "",
    ]
    for path in sorted((DOCS / "schemas").glob("*.json")):
        schema = json.loads(path.read_text(encoding="utf-8"))
        lines += [f"## {schema['title']}", "", f"[Schema](schemas/{path.name})", ""]
        lines += ["| member | type | meaning |", "|---|---|---|"]
        lines += [*_members(schema, schema.get("$defs", {})), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def leaves(path: str, command: click.Command) -> Iterator[Leaf]:
    """Return a command, or all that are below it, with the words that call it."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        if found is not None:
            yield from leaves(f"{path} {name}", found)


def _command(name: str) -> click.Command:
    found = cpstage.get_command(click.Context(cpstage), name)
    if found is None:
        raise LookupError(name)
    return found


def _of_command(path: str, command: click.Command) -> list[str]:
    pieces = command.collect_usage_pieces(click.Context(command))
    synopsis = " ".join([f"cpstage {path}", *pieces])
    lines = [f"### cpstage {path}", "", "```", synopsis, "```", ""]
    lines += [inspect.cleandoc(command.help or "").replace("\b\n", ""), ""]
    lines += ["| option | meaning |", "|---|---|"]
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    lines += [f"| {_cell(_names(one))} | {_cell(_what(one))} |" for one in options]
    said = (command.epilog or "").splitlines()
    lines += ["", "```", *(line[2:] for line in said if line.startswith("  ")), "```", ""]
    return lines


def _names(option: click.Option) -> str:
    """Return the option's names with its metavar, as ``--help`` prints them."""
    if option.secondary_opts:
        return f"`{' / '.join((*option.opts, *option.secondary_opts))}`"
    names = option.opts
    value = "" if option.is_flag or option.count else _metavar(option)
    return ", ".join(f"`{one}`" for one in [*names[:-1], f"{names[-1]} {value}".rstrip()])


def _metavar(option: click.Option) -> str:
    context = click.Context(cpstage)
    if "ctx" in inspect.signature(option.make_metavar).parameters:
        return option.make_metavar(context)
    make: Any = option.make_metavar  # click before 8.2 takes no context
    return str(make())


def _what(option: click.Option) -> str:
    said = option.help or ""
    default = f" [{option.default}]" if option.show_default else ""
    variables = [option.envvar] if isinstance(option.envvar, str) else option.envvar or ()
    others = [one for one in variables if not one.startswith("CPSTAGE_") and one not in said]
    named = [f"`{one}`" for one in others]
    return f"{said}{default}" + (f" Else {', '.join(named)}." if named else "")


def _environment() -> list[str]:
    return [
        "## Environment",
        "",
        "Every option has a variable: `CPSTAGE_` and the option's name, such as `CPSTAGE_MAX_SIZE`",
        "for `--max-size`. The option counts before its variable. Spaces separate the values of a",
        "repeatable option. `--query JMESPATH` and options of past executions have no variable.",
        "",
        "| variable | meaning |",
        "|---|---|",
        *(f"| `{name}` | {said} |" for name, said in VARIABLES.items()),
    ]


def _exit_codes() -> list[str]:
    """Return the table of exit codes, made from the error classes."""
    classes = [
        one
        for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, errors.CpstageError)
        if one not in (errors.CommandFailed, errors.CommandNotStarted)
    ]
    rows = {0: ("Success.", "success"), 1: ("`cpstage diff` found a difference.", "")}
    for one in classes:
        if "exit_code" not in vars(one):
            continue
        said = inspect.cleandoc(one.__doc__ or "").splitlines()[0]
        types = [other.failure_type for other in classes if other.exit_code == one.exit_code]
        rows[one.exit_code] = (said, " or ".join(f"`{kind}`" for kind in dict.fromkeys(types)))
    lines = [
        "## Exit codes",
        "",
        "| code | meaning | reported to CodePipeline as |",
        "|---|---|---|",
    ]
    lines += [f"| {code} | {_cell(said)} | {kind} |" for code, (said, kind) in sorted(rows.items())]
    return [
        *lines,
        "| 126, 127 | `cpstage run` cannot start or find CMD. | `ConfigurationError` |",
        "| any | `cpstage run`: the exit code of CMD; 124 after `--timeout`. | `JobFailed` |",
        "| 128+n | Signal n stopped cpstage. `in/` and `out/` are unchanged or complete. "
        "| `JobFailed` |",
    ]


def _members(schema: dict[str, Any], shared: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Return a row for each member of a document, those inside of others behind a dot."""
    if "properties" not in schema and isinstance(schema.get("additionalProperties"), dict):
        kind = _type(schema["additionalProperties"], shared)
        yield f"| `{prefix}NAME` | {kind} | {_cell(schema.get('description', ''))} |"
    for name, member in schema.get("properties", {}).items():
        found = _resolved(member, shared)
        path = f"{prefix}{name}"
        optional = "" if name in schema.get("required", ()) else ", may be missing"
        said = member.get("description") or found.get("description", "")
        yield f"| `{path}` | {_type(member, shared)}{optional} | {_cell(said)} |"
        if _has_page(member):
            continue
        inner = found.get("items", found)
        behind = f"{path}[]." if "items" in found else f"{path}."
        yield from _members(_resolved(inner, shared), shared, behind)


def _has_page(schema: dict[str, Any]) -> bool:
    """Whether a member is a document that another command prints."""
    name = next((one["$ref"] for one in [schema, *schema.get("anyOf", ())] if "$ref" in one), "")
    return (DOCS / "schemas" / f"{name.rpartition('/')[2]}.json").exists()


def _resolved(schema: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference, and leave null out of what may be null."""
    for one in schema.get("anyOf", ()):
        if one != {"type": "null"}:
            return _resolved(one, shared)
    reference = schema.get("$ref")
    found: dict[str, Any] = shared[reference.rpartition("/")[2]] if reference else schema
    return found


def _type(schema: dict[str, Any], shared: dict[str, Any]) -> str:
    found = _resolved(schema, shared)
    kinds = found["type"] if isinstance(found["type"], list) else [found["type"]]
    if {"type": "null"} in schema.get("anyOf", ()):
        kinds = [*kinds, "null"]
    if "enum" in found:
        kinds = [f'`"{one}"`' if one is not None else "null" for one in found["enum"]]
    return " or ".join(map(str, kinds))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


PAGES = {"reference.md": reference, "json.md": json_page}


def main() -> int:
    """Write the pages, or check them."""
    stale = []
    for name, make in PAGES.items():
        path, text = DOCS / name, make()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
    return int(bool(stale) and "--check" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
