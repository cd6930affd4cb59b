"""The list of commands, which are loaded only when they are run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from cpstage import Limits
from cpstage import cli as command_line
from cpstage._deflate import DEFAULT_LEVEL
from cpstage.archive.options import MOST_DEPTH
from cpstage.aws.config import DEFAULT_MAX_AGE, DEFAULT_TIMEOUT
from cpstage.cli import GROUPS
from cpstage.worker.health import DEFAULT_PATIENCE
from cpstage.worker.loop import DEFAULT_GRACE, DEFAULT_INTERVAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from command_line import Cli

COMMANDS = {name: listed for group in GROUPS.values() for name, listed in group.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_of_a_command_what_its_own_help_says(name: str) -> None:
    group = command_line.cpstage
    command = group.get_command(click.Context(group), name)

    assert command is not None
    assert command.name == name
    assert (command.help or "").splitlines()[0] == COMMANDS[name].help


def test_help_lists_every_command_on_a_line(cli: Cli) -> None:
    said = cli("--help").stdout.splitlines()

    for name, listed in COMMANDS.items():
        assert any(line.split(maxsplit=1) == [name, listed.help] for line in said)
    assert max(map(len, said)) <= 80


def _leaves(command: click.Command, path: str = "cpstage") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _leaves(found, f"{path} {name}")
    else:
        yield path, command


@pytest.mark.parametrize(("path", "command"), [*_leaves(command_line.cpstage)])
def test_every_command_has_examples_of_itself(path: str, command: click.Command) -> None:
    lines = (command.epilog or "").partition("Example")[2].splitlines()
    examples = [line for line in lines if line.startswith("  ")]

    assert [line for line in examples if path in line]


def test_examples_have_the_names_of_options_of_today() -> None:
    """A former name works, and prints a warning."""
    group = command_line.cpstage
    local = group.get_command(click.Context(group), "local")
    commands = {**dict(_leaves(group)), "cpstage local": local}
    text = "\n".join((command and command.epilog) or "" for command in commands.values())

    unknown = []
    for line in re.findall(r"^  (cpstage .*)$", text.replace("\\\n", ""), re.MULTILINE):
        path = max((path for path in commands if f"{line} ".startswith(f"{path} ")), key=len)
        command = commands[path]
        assert command is not None
        known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        words = line.partition(" -- ")[0].split()
        unknown += [(line, word) for word in words if word[:2] == "--" and word not in known]

    assert not unknown


@pytest.mark.parametrize(("path", "command"), [*_leaves(command_line.cpstage)])
def test_the_help_of_every_command_fits_a_terminal(path: str, command: click.Command) -> None:
    said = command.get_help(click.Context(command, info_name=path, terminal_width=80))

    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize(("path", "command"), [*_leaves(command_line.cpstage)])
def test_a_script_can_give_the_same_options_to_every_command(
    path: str, command: click.Command
) -> None:
    names = {name for one in command.params for name in one.opts}
    wanted = {"--progress", "--verbose", "--quiet", "--debug"}
    if "--ca-bundle" in names:  # commands of the local AWS call nobody else
        wanted |= {"--region", "--profile", "--endpoint-url", "--no-verify-ssl"}
        wanted |= {"--connect-timeout", "--read-timeout", "--retry-timeout"}

    assert wanted <= names


LIMITS = Limits()
DEFAULTS = [
    ("push", "--compression-level", f"default: {DEFAULT_LEVEL};"),
    ("fetch", "--credentials-max-age", f"default: {DEFAULT_MAX_AGE:.0f}]"),
    ("fetch", "--retry-timeout", f"default: {DEFAULT_TIMEOUT:.0f}]"),
    ("fetch", "--max-size", f"[{LIMITS.size >> 30} GiB]"),
    ("fetch", "--max-ratio", f"[{LIMITS.ratio}]"),
    ("fetch", "--max-entries", f"[{LIMITS.entries}]"),
    ("fetch", "--max-depth", f"[{LIMITS.depth}]"),
    ("fetch", "--max-header", f"[{LIMITS.header >> 20} MiB]"),
    ("work", "--poll-interval", f"default: {DEFAULT_INTERVAL}]"),
    ("work", "--grace", f"default: {DEFAULT_GRACE}]"),
    ("work", "--unhealthy-after", f"default: {DEFAULT_PATIENCE}]"),
]


@pytest.mark.parametrize(("name", "option", "says"), DEFAULTS)
def test_help_says_the_default_that_holds(name: str, option: str, says: str) -> None:
    """What is said there is not read from where it holds, which would have to be loaded."""
    command = dict(_leaves(command_line.cpstage))[f"cpstage {name}"]

    said = command.get_help(click.Context(command, terminal_width=500, max_content_width=500))

    _, _, rest = said.partition(f"  {option} ")
    assert says in rest.partition("\n  -")[0]


def test_the_deepest_path_that_an_option_takes_is_the_one_that_errors_name() -> None:
    command = dict(_leaves(command_line.cpstage))["cpstage unpack"]

    (kind,) = (one.type for one in command.params if "--max-depth" in one.opts)

    assert isinstance(kind, click.IntRange)
    assert kind.max == MOST_DEPTH


def test_every_module_of_a_command_is_in_the_list() -> None:
    package = Path(command_line.__file__).parent
    modules = {path for path in package.glob("*.py") if "@click.command(" in path.read_text()}

    assert {path.stem for path in modules} <= {listed.module for listed in COMMANDS.values()}
