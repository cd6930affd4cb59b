"""``cpstage env``: variables that every shell reads as they are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cpstage import Workspace, parse_job
from cpstage.local import Input, LocalAWS
from cpstage.runner.environment import Syntax, render, staged_environment
from cpstage.transfer.manifest import record_of
from samples import zip_of

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import Cli

_VALUES = {
    "PLAIN": "/srv/job",
    "EMPTY": "",
    "SPACES": "  a  b ",
    "SINGLE": "it's 'quoted' ''",
    "DOUBLE": 'say "hi"',
    "DOLLAR": "$HOME ${HOME} $(id) $env:PATH",
    "BACKTICK": "`id` `n",
    "BACKSLASH": r"a\b\\c\n\'",
    "LINES": "one\ntwo\r\nthree\n",
    "SPECIAL": "!#%^&*()[]{}<>|;~?=,\t\x1b",
    "UNICODE": "grüße/🎉/\u2018quoted\u2019\u201aso\u201b",
    "BYTES": os.fsdecode(b"/tmp/\xff\xfe"),
}
_SHELLS: list[tuple[Syntax, list[str]]] = [
    ("sh", ["dash", "-c"]),
    ("sh", ["bash", "-c"]),
    ("dotenv", ["dash", "-ac"]),
    ("fish", ["fish", "--no-config", "-c"]),
]


@pytest.mark.parametrize(("syntax", "shell"), _SHELLS, ids="-".join)
def test_shells_read_what_was_written(tmp_path: Path, syntax: Syntax, shell: list[str]) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed")
    (tmp_path / "variables").write_bytes(render(_VALUES, syntax))
    read = "source ./variables" if shell[0] == "fish" else ". ./variables"

    said = subprocess.run(
        [*shell, f"{read}; env -0"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=True,
    ).stdout

    found = dict(os.fsdecode(one).split("=", 1) for one in said.split(b"\0") if one)
    assert {name: found.get(name) for name in _VALUES} == _VALUES


def test_powershell_reads_what_was_written() -> None:
    """By its grammar, since there is none here: a verbatim string, in which quotes are doubled."""
    quote = "['\u2018\u2019\u201a\u201b]"
    statement = re.compile(rf"\$env:(\w+) = '((?:[^'\u2018-\u201b]|({quote})\3)*)'\n")
    text = os.fsdecode(render(_VALUES, "powershell"))

    found, at = {}, 0
    while at < len(text):
        match = statement.match(text, at)
        assert match, text[at:]
        found[match[1]] = re.sub(f"({quote})\\1", r"\1", match[2])
        at = match.end()

    assert found == _VALUES


def test_json_is_one_object() -> None:
    assert json.loads(render(_VALUES, "json")) == _VALUES


def _fetched(aws: LocalAWS, cli: Cli, *options: str) -> str:
    job_id = aws.add_job(
        [Input("App", zip_of({"f": "x"})), Input("My-Lib", zip_of({"g": "y"}))], outputs=["Built"]
    )
    assert cli("fetch", job_id, *options).returncode == 0
    return job_id


@pytest.mark.parametrize("named", [True, False])
def test_a_fetched_workspace_tells_it_without_aws(aws: LocalAWS, cli: Cli, named: bool) -> None:
    job_id = _fetched(aws, cli, "--env-file", "job.env")
    before = len(aws.calls())

    done = cli("env", *([job_id] if named else []), "--format", "dotenv")

    assert done.stdout == (cli.directory / "job.env").read_text()
    assert len(aws.calls()) == before


def test_another_job_is_asked_for(aws: LocalAWS, cli: Cli) -> None:
    _fetched(aws, cli)
    other = aws.add_job(outputs=["Other"])

    done = cli("env", other, "--json")

    assert json.loads(done.stdout)["CPSTAGE_OUT_OTHER"] == str(cli.directory / "out/Other")
    assert done.stderr.endswith(f"{other} has not been fetched into {cli.directory}\n")


def test_an_empty_workspace_and_no_job_is_a_usage_error(cli: Cli) -> None:
    done = cli("env")

    assert done.returncode == 2
    assert "no job is given" in done.stderr


def test_a_merged_layout(aws: LocalAWS, cli: Cli) -> None:
    _fetched(aws, cli, "--layout", "merged")

    found = json.loads(cli("env", "--json", "--codebuild-env").stdout)

    assert {found["CPSTAGE_IN_APP"], found["CPSTAGE_IN_MY_LIB"]} == {str(cli.directory / "in")}
    assert found["CODEBUILD_SRC_DIR_My_Lib"] == found["CODEBUILD_SRC_DIR"]


def test_only_inputs_that_are_there(aws: LocalAWS, cli: Cli) -> None:
    _fetched(aws, cli, "--artifact", "App")

    found = json.loads(cli("env", "--json").stdout)

    assert "CPSTAGE_IN_APP" in found
    assert "CPSTAGE_IN_MY_LIB" not in found


def test_a_workspace_with_an_odd_name(aws: LocalAWS, cli: Cli, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/it's $HOME `x`\n\xff"
    _fetched(aws, cli, "--workspace", os.fsdecode(odd))

    script = 'eval "$("$PYTHON" -m cpstage env --workspace "$1")"; printf %s "$CPSTAGE_IN_APP"'
    said = subprocess.run(
        ["sh", "-c", script, "sh", odd],
        env={**cli.environment, "PYTHON": sys.executable},
        capture_output=True,
        check=True,
    ).stdout

    assert said == odd + b"/in/App"


_RECORD = record_of(parse_job({"id": "some-job", "data": {}}))


@pytest.mark.parametrize(
    "damage",
    [
        "{}",
        "[]",
        "not JSON",
        json.dumps({**_RECORD, "pipeline": ["x"]}),
        json.dumps({**_RECORD, "pipeline": "\ud800"}),
        json.dumps({**_RECORD, "stage": "a\0b"}),
        json.dumps({**_RECORD, "inputs": {"../x": {"bucket": "b", "key": "k"}}}),
        json.dumps({**_RECORD, "outputs": ["x"]}),
    ],
)
def test_a_damaged_record_counts_as_none(workspace: Path, damage: str) -> None:
    (workspace / ".cpstage").mkdir()
    (workspace / ".cpstage/job.json").write_text(damage)

    assert staged_environment(Workspace(workspace)) is None


def test_a_record_of_little_tells_what_it_can(workspace: Path) -> None:
    (workspace / ".cpstage").mkdir()
    (workspace / ".cpstage/job.json").write_text(json.dumps(_RECORD))

    assert staged_environment(Workspace(workspace)) == {
        "CPSTAGE_JOB_ID": "some-job",
        "CPSTAGE_WORKSPACE": str(workspace),
    }
