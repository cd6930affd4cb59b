"""The start of the command: what it may not import, and that it can be found at all."""

from __future__ import annotations

import pkgutil
import platform
import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

import cpstage
from cpstage.local import Input, LocalAWS
from cpstage.local.sample import PIPELINE, add_sample_history
from samples import zip_of

if TYPE_CHECKING:
    from command_line import Cli

MOST_MODULES = 54
"""Modules of cpstage that a fetch of a small zip loads, at most."""

RUN_AND_NAME_THE_MODULES = """
import sys
from cpstage.__main__ import main
try:
    main(sys.argv[1:])
finally:
    print(*sys.modules, file=sys.stderr)
"""

HEAVY = {
    *("boto3", "botocore", "aws_encryption_sdk", "moto", "flask", "s3transfer", "tqdm"),
    *("cpstage.archive", "cpstage.transfer"),
}


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)


def _loaded(times: str) -> set[str]:
    """Return the packages and modules that ``-X importtime`` names."""
    names = {line.rpartition("|")[2].strip() for line in times.splitlines()}
    return names | {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_nothing_heavy(option: str) -> None:
    said = _run("-X", "importtime", "-m", "cpstage", option).stderr

    loaded = _loaded(said)
    assert "click" in loaded
    assert not loaded.intersection({*HEAVY, "cpstage.job"})


@pytest.mark.parametrize(
    "command",
    [
        *("fetch", "push", "run", "work", "report success", "report failure", "env", "credentials"),
        *("show", "ls", "doctor", "get-job-details", "local", "local serve", "demo"),
    ],
)
def test_every_command_explains_itself_without_loading_anything(command: str) -> None:
    done = _run("-X", "importtime", "-m", "cpstage", *command.split(), "--help")

    loaded = _loaded(done.stderr)
    assert done.stdout.startswith("Usage: ")
    assert not loaded.intersection(HEAVY)


def _loaded_by(cli: Cli, *arguments: str) -> set[str]:
    said = subprocess.run(
        [sys.executable, "-c", RUN_AND_NAME_THE_MODULES, *arguments],
        cwd=cli.directory,
        env=cli.environment,
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    return set(said.split())


def test_a_small_fetch_loads_what_it_needs(aws: LocalAWS, cli: Cli) -> None:
    """Each of these takes a part of the start that a small fetch is nearly all of."""
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))])

    loaded = _loaded_by(cli, "fetch", job_id, "--progress", "none")

    assert "boto3" in loaded
    assert not loaded.intersection(
        {"aws_encryption_sdk", "cryptography", "tqdm", "moto"}
        | {f"cpstage.aws.{one}" for one in ("errors", "executions", "uploads")}
        | {f"cpstage.{one}" for one in ("inspect", "job.result", "runner", "worker")}
        | {"cpstage.transfer.push"}
    )
    assert len({name for name in loaded if name.partition(".")[0] == "cpstage"}) <= MOST_MODULES


def test_show_and_executions_load_no_comparison(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))])
    add_sample_history(aws)

    shown = _loaded_by(cli, "show", job_id)
    listed = _loaded_by(
        cli.with_variables(aws.debugger_environment), "executions", PIPELINE, "--max", "1"
    )

    assert "cpstage.inspect.job" in shown
    assert "cpstage.aws.executions" in listed
    for loaded in (shown, listed):
        assert not loaded.intersection({"difflib", "cpstage.inspect.comparison"})
    assert "cpstage.transfer" not in listed


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, cpstage; print(*sorted(sys.modules))"

    loaded = {name.partition(".")[0] for name in _run("-c", code).stdout.split()}

    assert not loaded.intersection({*HEAVY, "click"})


def test_only_encrypted_messages_load_what_decrypts_them(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))])

    loaded = _loaded_by(cli, "ls", job_id)

    assert "cpstage.inspect.content" in loaded
    assert not loaded.intersection(f"cpstage.encryption.{one}" for one in ("kms", "messages"))


def test_every_public_name_is_there() -> None:
    assert all(getattr(cpstage, name) is not None for name in cpstage.__all__)
    assert len(cpstage.__all__) <= 30, "move some to a submodule, such as cpstage.inspect"
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = cpstage.no_such_name


def test_every_public_name_of_inspect_is_there() -> None:
    assert all(getattr(cpstage.inspect, name) is not None for name in cpstage.inspect.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = cpstage.inspect.no_such_name


def test_public_names_are_completed_in_an_interactive_python() -> None:
    assert {*cpstage.__all__, "inspect", "worker"} <= {*dir(cpstage)}
    assert {*cpstage.inspect.__all__} <= {*dir(cpstage.inspect)}


def test_no_module_takes_the_place_of_a_public_name() -> None:
    """Python makes a module that is loaded an attribute of its package."""
    modules = {module.name for module in pkgutil.iter_modules(cpstage.__path__)}

    assert modules.intersection(cpstage.__all__) == set()


def test_the_version_is_that_of_the_distribution() -> None:
    said = _run("-m", "cpstage", "--version").stdout

    assert said.startswith(f"cpstage {cpstage.__version__} (Python {platform.python_version()}, ")
    assert f"boto3 {version('boto3')}" in said
