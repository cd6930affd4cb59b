"""The pages: their links lead somewhere, their commands are commands, their messages are ours."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from cpstage.cli import cpstage
from cpstage.errors import CpstageError
from cpstage.local.sample import add_sample_job

if TYPE_CHECKING:
    from command_line import Cli
    from cpstage.local import LocalAWS
from pages import api

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "examples/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
_BLOCK = re.compile(r"^ *```(?:console|sh|ini|groovy)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _anchors(page: Path) -> set[str]:
    """The fragments of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


def _commands(text: str) -> list[list[str]]:
    """Every command line of cpstage in blocks, and in code within lines, up to what follows it."""
    lines = [
        line.removeprefix("$ ")
        for block in _BLOCK.findall(text)
        for line in block.replace("\\\n", " ").splitlines()
        if "cpstage " in line and not line.lstrip().startswith("#")
    ]
    without_blocks = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines += re.findall(r"`(cpstage [^`]*)`", without_blocks)
    found = []
    for line in lines:
        # In tables a bar is escaped, and stands for a choice.
        lexer = shlex.shlex(re.sub(r"\\\|\w+", "", line), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = [word for part in lexer for word in _inner(part)]
        for at, word in enumerate(words):
            if word == "cpstage" and words[at - 1 : at] != ["-t"]:  # not the name of an image
                found.append(_until_the_next(words[at + 1 :]))
    return found


def _inner(word: str) -> list[str]:
    """The words of a quoted command, such as ``eval "$(cpstage env)"`` has."""
    inner = re.search(r"cpstage [^)]*", word)
    return shlex.split(inner[0]) if inner and " " in word else [word]


def _until_the_next(words: list[str]) -> list[str]:
    ended = next((at for at, word in enumerate(words) if set(word) <= set("();<>|&")), None)
    return words[:ended]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_are_accepted(page: Path) -> None:
    """Parsed as they would be, and not run."""
    refused = []
    for words in _commands(page.read_text()):
        if "…" in "".join(words) or words[:1] in ([], ["COMMAND"], ["${command}"]):
            continue  # is shown in part, or stands for any
        try:
            _parse(cpstage, words)
        except (click.ClickException, CpstageError) as error:
            refused.append(f"cpstage {shlex.join(words)}: {error}")
    assert refused == []


def _parse(group: click.Group, words: list[str]) -> None:
    context = group.make_context("cpstage", list(words))
    while isinstance(context.command, click.Group):
        rest = [*context._protected_args, *context.args]
        _, command, rest = context.command.resolve_command(context, rest)
        assert command is not None
        if not rest:
            return  # is named, and no more
        context = command.make_context(command.name, rest, parent=context)


def test_the_parser_of_pages_refuses_what_is_no_command() -> None:
    text = '```console\n$ FOO=1 x && eval "$(cpstage fetch --nonsense ID)" | cat\n```\n'

    (words,) = _commands(text)

    assert words == ["fetch", "--nonsense", "ID"]
    with pytest.raises(click.UsageError):
        _parse(cpstage, words)


@pytest.mark.parametrize("command", ["fetch", "push", "run", "work", "local serve", "local job"])
def test_the_reference_prints_metavars_as_help_does(user: Cli, command: str) -> None:
    page = (ROOT / "docs/reference.md").read_text().replace("\\|", "|").replace("&lt;", "<")
    section = page.split(f"### cpstage {command}\n", 1)[1].split("\n### ", 1)[0]
    cells = re.findall(r"^\| (`-.*?`) \| ", section, re.MULTILINE)
    shown = {cell.replace("`", "") for cell in cells}

    helped = user(*command.split(), "--help").stdout.split("\nOptions:\n", 1)[1]
    records = re.findall(r"^  (-\S.*?)(?:  .*)?$", helped, re.MULTILINE)
    assert len(records) > 5
    assert {one for one in records if one != "-h, --help"} == shown


def test_messages_that_are_explained_are_messages_of_ours() -> None:
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    page = (ROOT / "docs/troubleshooting.md").read_text()

    explained = re.findall(r"^### `(.+)`$", page, re.MULTILINE)

    assert len(explained) > 15
    assert [message for message in explained if message not in source] == []


def test_the_api_page_is_that_of_the_docstrings() -> None:
    assert api.PAGE.read_text() == api.page(), "run: python tools/pages/api.py"


def test_the_example_of_the_api_page_runs(aws: LocalAWS, user: Cli) -> None:
    text = api.PAGE.read_text()
    code = text[text.index("```python\n") + 10 : text.index("\n```\n")]
    code = re.sub(r'get_job\("[^"]+"\)', f'get_job("{add_sample_job(aws)}")', code)
    dist = user.directory / "workspace/dist"
    dist.mkdir(parents=True)
    (dist / "f").write_text("built")
    build = 'open("workspace/out/AppReport/f", "w").close()'
    code, builds = re.subn("^# Build: .*$", build, code, flags=re.MULTILINE)
    assert builds == 1

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=user.directory,
        env=dict(user.environment),
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        str(user.directory / "workspace/in" / name) for name in ("AppSource", "AppConfig")
    ]
