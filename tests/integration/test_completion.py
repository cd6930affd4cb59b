"""Shell completion: what the shells are told, and what a real bash makes of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from command_line import plain_environment

if TYPE_CHECKING:
    from pathlib import Path


def _completed(tmp_path: Path, instruction: str, words: str, at: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "cpstage"],
        env={
            **plain_environment(tmp_path),
            "_CPSTAGE_COMPLETE": instruction,
            "COMP_WORDS": words,
            "COMP_CWORD": at,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_and_options_are_completed(tmp_path: Path, shell: str) -> None:
    second = "fe" if shell == "fish" else "1"
    third = "--lay" if shell == "fish" else "2"

    commands = _completed(tmp_path, f"{shell}_complete", "cpstage fe", second)
    options = _completed(tmp_path, f"{shell}_complete", "cpstage fetch --lay", third)

    assert "fetch" in "\n".join(commands).replace(",", "\n").split()
    assert "push" not in "\n".join(commands)
    assert "--layout" in "\n".join(options).replace(",", "\n").replace("\t", "\n").split()


@pytest.mark.parametrize(
    ("words", "at", "completed"),
    [
        ("cpstage --region eu-west-1 fe", "3", ["plain,fetch"]),
        ("cpstage --region eu-west-1 fetch --lay", "4", ["plain,--layout"]),
        ("cpstage nope fe", "2", []),
        ("cpstage --json nope fe", "3", []),
    ],
)
def test_a_line_that_is_not_complete_or_wrong_is_no_error(
    tmp_path: Path, words: str, at: str, completed: list[str]
) -> None:
    found = _completed(tmp_path, "bash_complete", words, at)

    assert [one for one in found if one in completed] == completed


def test_values_and_paths_are_completed(tmp_path: Path) -> None:
    complete = "bash_complete"

    values = _completed(tmp_path, complete, "cpstage push --format ", "3")
    directory = _completed(tmp_path, complete, "cpstage ls --job-file sa", "3")

    assert values == ["plain,auto", "plain,zip", "plain,tar", "plain,tar.gz", "plain,raw"]
    assert directory == ["file,sa"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_read_what_it_is_given(tmp_path: Path, shell: str) -> None:
    source = tmp_path / "completion"
    source.write_text("\n".join(_completed(tmp_path, f"{shell}_source", "", "")))

    assert "_CPSTAGE_COMPLETE" in source.read_text()
    if shutil.which(shell):
        subprocess.run([shell, "-n", str(source)], check=True)


def _run_in_shell(tmp_path: Path, shell: str, script: str) -> str:
    """Run a script in a shell that has read the completion of a ``cpstage`` on its PATH."""
    source = tmp_path / "completion"
    source.write_text("\n".join(_completed(tmp_path, f"{shell}_source", "", "")) + "\n")
    command = tmp_path / "bin/cpstage"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m cpstage "$@"\n')
    command.chmod(0o755)
    environment = plain_environment(tmp_path)
    environment["PATH"] = f"{command.parent}:{environment['PATH']}"
    bare = {"bash": "--norc", "zsh": "-f", "fish": "--no-config"}[shell]
    done = subprocess.run(
        [shell, bare, "-c", f"source {source}; {script}"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_bash_completes(tmp_path: Path) -> None:
    words = "COMP_WORDS=(cpstage fe); COMP_CWORD=1"

    said = _run_in_shell(
        tmp_path, "bash", f'{words}; _cpstage_completion cpstage; echo "${{COMPREPLY[@]}}"'
    )

    assert said == "fetch\n"


@pytest.mark.skipif(not shutil.which("zsh"), reason="there is no zsh")
def test_zsh_reads_its_script_before_compinit(tmp_path: Path) -> None:
    assert _run_in_shell(tmp_path, "zsh", "echo $_comps[cpstage]") == "_cpstage_completion\n"


@pytest.mark.skipif(not shutil.which("fish"), reason="there is no fish")
def test_fish_shows_descriptions_with_commas(tmp_path: Path) -> None:
    said = _run_in_shell(tmp_path, "fish", "complete -C 'cpstage ru'")

    assert said.startswith("run\tFetch a job's inputs, run CMD,")  # fish cuts the rest


@pytest.mark.parametrize("instruction", ["tcsh_source", "bash_complete"])
def test_what_is_no_script_of_a_shell_is_refused(tmp_path: Path, instruction: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cpstage"],
        env={**plain_environment(tmp_path), "_CPSTAGE_COMPLETE": instruction},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 2
    assert "bash_source, zsh_source or fish_source" in done.stderr
