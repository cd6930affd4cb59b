"""One workspace, several jobs: what is reported is what was built."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import Cli
from cpstage.local import Input, LocalAWS
from mounts import without_privileges
from run_jobs import BUILD, add_job, failure, puts, run, shell
from samples import zip_of
from trees import names

pytestmark = pytest.mark.e2e


def statuses(cli: Cli, *arguments: str) -> tuple[dict[str, str], str]:
    """What a fetch says of each input, and on stderr."""
    done = cli("fetch", *arguments, "--json", "--progress", "none")
    assert done.returncode == 0, done.stderr
    return {one["name"]: one["status"] for one in json.loads(done.stdout)["inputs"]}, done.stderr


# The outputs.


def test_a_build_that_makes_nothing_does_not_push_an_earlier_jobs_outputs(
    aws: LocalAWS, cli: Cli
) -> None:
    first, second = add_job(aws), add_job(aws)
    assert run(cli, first, "--report").returncode == 0

    done = run(cli, second, "--replace", "--report", command=("true",))

    assert done.returncode == 66
    assert puts(aws, second) == []
    assert failure(aws, second)["type"] == "ConfigurationError"


@pytest.mark.parametrize("left", ["out/Built/f", "out/Built/directory/", "out/stray", "out/Old/f"])
def test_outputs_of_another_job_are_refused_replaced_or_kept(
    aws: LocalAWS, cli: Cli, left: str
) -> None:
    first, second = add_job(aws), add_job(aws)
    assert cli("fetch", first).returncode == 0
    path = cli.directory / left
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if left.endswith("/") else path.write_text("old")
    before = names(cli.directory)

    refused = run(cli, second)
    assert refused.returncode == 73
    assert f"{cli.directory}/out holds the outputs of job {first}" in refused.stderr
    assert names(cli.directory) == before

    kept = cli("fetch", second, "--artifact", "App", "--keep-out", "--workspace", "kept")
    assert kept.returncode == 0
    replaced = cli("fetch", second, "--replace")
    assert replaced.returncode == 0, replaced.stderr
    assert not os.path.lexists(path)
    assert os.listdir(cli.directory / "out") == ["Built"]
    assert run(cli, second).returncode == 0


def test_outputs_that_are_kept_are_the_next_jobs(aws: LocalAWS, cli: Cli) -> None:
    app = [Input("App", zip_of({"f": "same"}))]
    first, second = add_job(aws, inputs=app), add_job(aws, inputs=app)
    assert run(cli, first).returncode == 0
    (cli.directory / "in").rename(cli.directory / "elsewhere")

    done = cli("fetch", second, "--keep-out")

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("out is kept, with") == 1
    assert f"out is kept, with the outputs of job {first}" in done.stderr
    assert cli("push", second).returncode == 0
    assert cli("push", first).returncode == 73


def test_a_push_refuses_outputs_that_were_made_for_another_job(aws: LocalAWS, cli: Cli) -> None:
    first, second = add_job(aws), add_job(aws)
    assert run(cli, first).returncode == 0

    done = cli("push", second)

    assert done.returncode == 73
    assert f"holds the outputs of job {first}, not of job {second}" in done.stderr
    assert puts(aws, second) == []
    assert cli("push", second, "Built=in/App/f").returncode == 0  # given, and not found in out/


def test_a_job_that_is_run_again_keeps_its_outputs(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    assert run(cli, job_id, command=shell("echo 1 > out/Built/one")).returncode == 0

    assert run(cli, job_id, "--replace", command=shell("test -e out/Built/one")).returncode == 0


def test_files_in_out_that_were_there_before_the_first_fetch_are_kept(
    aws: LocalAWS, cli: Cli
) -> None:
    (cli.directory / "out/Built").mkdir(parents=True)
    (cli.directory / "out/Built/mine").write_text("x")

    done = run(cli, add_job(aws))

    assert done.returncode == 0, done.stderr
    assert "out is kept, with files that no fetch has recorded" in done.stderr


@pytest.mark.parametrize("state", [".cpstage", ".cpstage/run.lock", ".cpstage/manifest.json"])
def test_outputs_of_a_build_that_removed_our_state_are_not_the_next_jobs(
    aws: LocalAWS, cli: Cli, state: str
) -> None:
    first, second = add_job(aws), add_job(aws)
    run(cli, first, "--report", command=shell(f"{BUILD[2]}; rm -rf {state}"))

    done = run(cli, second, "--report", command=("true",))

    assert done.returncode == 73
    assert "out holds " in done.stderr
    assert puts(aws, second) == []


def test_files_in_out_that_nobody_recorded_are_refused(aws: LocalAWS, cli: Cli) -> None:
    first, second = add_job(aws), add_job(aws)
    command = shell(BUILD[2] + "; rm -rf .cpstage")
    done = run(cli, first, "--report", command=command)
    assert done.returncode == 73
    assert failure(aws, first)["type"] == "ConfigurationError"
    assert puts(aws, first) == []

    done = run(cli, second)

    assert done.returncode == 73
    assert f"holds the outputs of job {first}" in done.stderr


def test_a_directory_of_an_earlier_job_without_files_is_cleared_away(
    aws: LocalAWS, cli: Cli
) -> None:
    assert cli("fetch", add_job(aws, inputs=[], outputs=["Old"])).returncode == 0

    assert run(cli, add_job(aws)).returncode == 0
    assert os.listdir(cli.directory / "out") == ["Built"]


# The inputs.


def _edit(app: Path) -> None:
    (app / "f").write_text("edited!")


def _touch(app: Path) -> None:
    os.utime(app / "f", (1, 1))


def _delete(app: Path) -> None:
    (app / "sub/g").unlink()


def _add(app: Path) -> None:
    (app / "new").write_text("x")


def _empty_directory(app: Path) -> None:
    (app / "sub/new").mkdir()


def _execute(app: Path) -> None:
    (app / "f").chmod(0o755)


def _link(app: Path) -> None:
    (app / "f").unlink()
    (app / "f").symlink_to("sub/g")


@pytest.mark.parametrize(
    "change", [_edit, _touch, _delete, _add, _empty_directory, _execute, _link]
)
@pytest.mark.parametrize("is_retry", [False, True])
def test_a_tree_that_was_changed_is_modified_and_replaced(
    aws: LocalAWS, cli: Cli, change: Callable[[Path], None], is_retry: bool
) -> None:
    job_id = add_job(aws, outputs=[])
    assert statuses(cli, job_id)[0] == {"App": "staged"}
    assert statuses(cli, job_id) == ({"App": "unchanged"}, "")
    change(cli.directory / "in/App")

    again, said = statuses(cli, job_id)
    assert again == {"App": "modified"}
    assert f"{cli.directory}/in/App was modified since it was staged" in said
    assert statuses(cli, job_id)[0] == {"App": "modified"}  # it does not become the new state

    assert statuses(cli, job_id, "--replace")[0] == {"App": "staged"}
    assert (
        names(cli.directory)
        == ["in", "in/App", "in/App/f", "in/App/sub", "in/App/sub/g", "out"][:5]
    )
    assert (cli.directory / "in/App/f").read_text() == "content"
    assert statuses(cli, job_id)[0] == {"App": "unchanged"}


def test_replace_stages_also_what_looks_unchanged(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    cli("fetch", job_id)
    script = cli.directory / "in/App/f"
    status = script.stat()
    script.write_text("CONTENT")
    os.utime(script, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert statuses(cli, job_id)[0] == {"App": "unchanged"}
    assert statuses(cli, job_id, "--replace")[0] == {"App": "staged"}
    assert script.read_text() == "content"


def test_verify_compares_contents(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    cli("fetch", job_id)
    script = cli.directory / "in/App/f"
    status = script.stat()
    assert statuses(cli, job_id, "--verify") == ({"App": "unchanged"}, "")

    script.write_text("CONTENT")
    os.utime(script, ns=(status.st_atime_ns, status.st_mtime_ns))
    verified, said = statuses(cli, job_id, "--verify")
    assert verified == {"App": "modified"}
    assert "in/App differs from its object: 'f'" in said
    assert script.read_text() == "CONTENT"

    script.write_text("content")
    os.utime(script, (1, 1))
    assert statuses(cli, job_id, "--verify") == ({"App": "unchanged"}, "")
    assert list((cli.directory / ".cpstage/staging").iterdir()) == []


def test_verify_and_merged_artifacts(aws: LocalAWS, cli: Cli) -> None:
    inputs = [Input("App", zip_of({"f": "1"})), Input("Lib", zip_of({"g": "2"}))]
    job_id = add_job(aws, inputs=inputs)
    merged = ("--layout", "merged")
    assert statuses(cli, job_id, *merged)[0] == {"App": "staged", "Lib": "staged"}
    assert statuses(cli, job_id, *merged, "--verify")[0] == {"App": "unchanged", "Lib": "unchanged"}
    (cli.directory / "in/g").write_text("3")

    assert statuses(cli, job_id, *merged)[0] == {"App": "modified", "Lib": "modified"}
    assert statuses(cli, job_id, *merged, "--verify")[0] == {"App": "modified", "Lib": "modified"}


def test_what_was_staged_before_a_boot_is_compared_with_its_contents(
    aws: LocalAWS, cli: Cli
) -> None:
    job_id = add_job(aws)
    cli("fetch", job_id)
    _boot(cli)
    calls = len(aws.calls())
    assert statuses(cli, job_id)[0] == {"App": "unchanged"}
    assert "GetObject" in [call.action for call in aws.calls()[calls:]]
    calls = len(aws.calls())
    assert statuses(cli, job_id)[0] == {"App": "unchanged"}
    assert "GetObject" not in [call.action for call in aws.calls()[calls:]]

    lost = cli.directory / "in/App/f"
    status = lost.stat()
    lost.write_bytes(bytes(7))
    os.utime(lost, ns=(status.st_atime_ns, status.st_mtime_ns))
    _boot(cli)
    found, said = statuses(cli, job_id)
    assert found == {"App": "modified"}
    assert "differs from its object: 'f'" in said
    assert statuses(cli, job_id)[0] == {"App": "modified"}


def _boot(cli: Cli) -> None:
    """Let the manifest be of an earlier run of the system."""
    manifest = cli.directory / ".cpstage/manifest.json"
    document = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**document, "boot_id": "another"}))


# What a build leaves of the workspace.


def test_a_read_only_workspace_is_usable_again(aws: LocalAWS, cli: Cli) -> None:
    first, second = add_job(aws), add_job(aws)
    script = f"{BUILD[2]}; chmod -R a-w ."
    prefix = without_privileges()

    def run_alone(job_id: str, *options: str) -> subprocess.CompletedProcess[str]:
        arguments = ["run", job_id, "--progress", "none", *options, "--", "sh", "-c", script]
        return subprocess.run(
            [*prefix, *_cpstage(), *arguments],
            cwd=cli.directory,
            env=dict(cli.environment),
            capture_output=True,
            text=True,
        )

    done = run_alone(first, "--report", "--pass-configuration")
    assert done.returncode == 0, done.stderr
    assert not (cli.directory / ".cpstage/run").exists()
    done = run_alone(second, "--report", "--replace")
    assert done.returncode == 0, done.stderr
    assert aws.job(second).status == "Succeeded"
    assert "warning" not in done.stderr


def _cpstage() -> list[str]:
    import sys

    return [sys.executable, "-m", "cpstage"]


def test_a_deep_tree_is_replaced(aws: LocalAWS, cli: Cli) -> None:
    first, second = add_job(aws), add_job(aws)
    deep = "import os\nfor _ in range(1300):\n os.mkdir('deep'); os.chdir('deep')"
    command = ("python3", "-c", f"import os; os.chdir('in/App')\n{deep}")

    assert run(cli, first, "--if-empty", "ignore", command=command).returncode == 0
    done = run(cli, second, "--replace")

    assert done.returncode == 0, done.stderr
    assert statuses(cli, second)[0] == {"App": "unchanged"}


def test_files_of_another_owner_in_our_state_are_named_by_doctor(aws: LocalAWS, cli: Cli) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make files of another owner")
    job_id = add_job(aws)
    cli("fetch", job_id)
    theirs = cli.directory / ".cpstage/staging/old"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)

    done = cli("doctor", job_id)

    assert f"an earlier run left {theirs}" in done.stdout


def test_a_key_can_be_given_for_a_pipeline_without_one(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws, encryption_key=None)
    assert run(cli, job_id).returncode == 0

    done = cli("push", job_id, "--sse-kms-key-id", aws.key_arn, "--json")

    # The session of such a job may not use the key here: S3 refuses what it was asked for.
    assert done.returncode == 77
    assert f"under {aws.key_arn}" in done.stderr
    other = cli("push", add_job(aws), "Built=in/App/f", "--sse-kms-key-id", "another")
    assert other.returncode == 78


def test_a_first_fetch_that_fails_leaves_no_new_workspace(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws, inputs=[Input("App", zip_of({"../f": "x"}))])

    assert cli("fetch", job_id, "-w", "new").returncode == 65
    assert not (cli.directory / "new").exists()
    assert run(cli, job_id, "-w", "new").returncode == 65
    assert not (cli.directory / "new").exists()
