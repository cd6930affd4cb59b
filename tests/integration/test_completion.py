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


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_bash_completes(tmp_path: Path) -> None:
    source = tmp_path / "completion"
    source.write_text("\n".join(_completed(tmp_path, "bash_source", "", "")))
    command = tmp_path / "cpstage"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m cpstage "$@"\n')
    command.chmod(0o755)
    script = (
        f"source {source}; COMP_WORDS=(cpstage fe); COMP_CWORD=1; "
        f'_cpstage_completion {command}; echo "${{COMPREPLY[@]}}"'
    )

    done = subprocess.run(
        ["bash", "-c", script], env=plain_environment(tmp_path), capture_output=True, text=True
    )

    assert done.stdout == "fetch\n", done.stderr


def test_another_shell_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cpstage"],
        env={**plain_environment(tmp_path), "_CPSTAGE_COMPLETE": "tcsh_source"},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 2
    assert "bash_source, zsh_source and fish_source" in done.stderr
