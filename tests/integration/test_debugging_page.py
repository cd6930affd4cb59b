"""The session and the policy of docs/debugging.md, run on the local AWS."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cpstage.local.sample import add_sample_history
from cpstage.local.server import DEBUGGER_ACTIONS

if TYPE_CHECKING:
    from command_line import Cli
    from cpstage.local import LocalAWS

PAGE = (Path(__file__).parents[2] / "docs/debugging.md").read_text(encoding="utf-8")


@pytest.fixture
def person(aws: LocalAWS, user: Cli) -> Cli:
    add_sample_history(aws)
    return user.with_variables({**user.environment, **aws.debugger_environment})


def _block(mark: str) -> str:
    """The block of the page that follows a mark."""
    found = re.search(rf"<!-- {mark} -->\n```\w+\n(.*?)```\n", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def _lasting(text: str) -> str:
    """A text without what is another one in each run: ids, times and keys."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)
    text = re.sub(r"20\d\d-\d\d-\d\dT[\d:]{8}Z", "TIME", text)
    return re.sub(r"/[A-Za-z0-9]{7}(?=\.zip|\.tar|$)", "/KEY", text, flags=re.MULTILINE)


def test_the_session_shows_what_the_commands_print(person: Cli) -> None:
    shown = _block("session: past executions")
    commands = re.findall(r"^\$ cpstage (.*)$", shown, re.MULTILINE)

    printed = "".join(
        f"$ cpstage {command}\n{person(*shlex.split(command)).stdout}" for command in commands
    )
    build = 'cd night && eval "$(cpstage env)" && sh in/AppSource/build.sh'
    again = subprocess.run(
        ["sh", "-c", build],
        cwd=person.directory,
        env={**person.environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert len(commands) == 4
    assert _lasting(printed) == _lasting(shown)
    assert f"$ {build}\n" in PAGE
    assert (again.returncode, again.stderr) == (
        1,
        "The unit tests failed; see out/AppReport/tests.txt\n",
    )


def test_the_policy_allows_what_the_commands_need() -> None:
    policy = json.loads(_block("policy: past executions"))

    allowed: set[str] = set()
    for statement in policy["Statement"]:
        actions = statement["Action"]
        allowed.update([actions] if isinstance(actions, str) else actions)
    assert allowed == DEBUGGER_ACTIONS
