"""``cpstage diff``: a fetched tree beside its artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cpstage.local import Input, LocalAWS
from samples import tar_member, tar_of, tar_of_members, zip_of, zip_with_link

if TYPE_CHECKING:
    from command_line import Cli

pytestmark = pytest.mark.slow

FILES = {"a/one": "1\n", "two": "2\n", "three": "3\n"}


def _differences(cli: Cli, *arguments: str) -> tuple[int, dict[str, str]]:
    done = cli("diff", *arguments, "--json")
    document = json.loads(done.stdout)
    found = {
        str(Path(compared["path"], one["path"]).relative_to(cli.directory / "in")): one["what"]
        for compared in document["compared"]
        for one in compared["differences"]
    }
    assert document["same"] == (not found)
    return done.returncode, found


@pytest.mark.parametrize("how", [[], ["--no-unpack"], ["--layout", "merged"]], ids=" ".join)
def test_what_was_fetched_is_the_same(aws: LocalAWS, cli: Cli, how: list[str]) -> None:
    bodies = {
        "Zip": zip_of(FILES),
        "Tar": tar_of({"b/one": "1\n"}),
        "Gz": tar_of({"c/one": "1\n"}, mode="w:gz"),
        "Raw": b"no archive",
        "Empty": b"",
    }
    job_id = aws.add_job([Input(name, body, "") for name, body in bodies.items()])
    assert cli("fetch", job_id, *how).returncode == 0

    assert _differences(cli, job_id) == (0, {})


def test_every_kind_of_difference_is_found(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_with_link("link", "two", FILES))])
    assert cli("fetch", job_id).returncode == 0
    app = cli.directory / "in" / "App"
    (app / "a" / "one").write_text("x\n")
    (app / "two").write_text("longer\n")
    (app / "three").unlink()
    (app / "three").mkdir()
    (app / "more").write_text("")
    (app / "link").unlink()
    (app / "link").symlink_to("three")

    assert _differences(cli, job_id) == (
        1,
        {
            "App/a/one": "content",
            "App/two": "size",
            "App/three": "kind",
            "App/more": "added",
            "App/link": "target",
        },
    )
    shown = cli("diff", job_id)
    assert shown.returncode == 1
    assert f"size\t{app}/two\t2 became 7" in shown.stdout.splitlines()
    assert f"added\t{app}/more\tfile" in shown.stdout.splitlines()


def test_execute_bits_and_missing_entries_of_a_tar(aws: LocalAWS, cli: Cli) -> None:
    hard = tar_member("again", b"1", "two")
    plain = tar_member("two", b"0")
    plain.size = 2
    body = tar_of_members([(plain, "2\n"), (hard, ""), (tar_member("empty/", b"5"), "")])
    job_id = aws.add_job([Input("App", body, "")])
    assert cli("fetch", job_id).returncode == 0
    assert _differences(cli, job_id) == (0, {})
    app = cli.directory / "in" / "App"
    (app / "again").unlink()
    (app / "two").chmod(0o755)
    (app / "empty").rmdir()

    assert _differences(cli, job_id) == (
        1,
        {"App/again": "missing", "App/two": "executable", "App/empty": "missing"},
    )


def test_artifacts_of_a_merged_tree_by_one(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("A", zip_of({"a": "1"})), Input("B", zip_of({"b": "2"}))])
    assert cli("fetch", job_id, "--layout", "merged").returncode == 0
    (cli.directory / "in" / "more").write_text("")

    assert _differences(cli, job_id, "A") == (0, {})
    assert _differences(cli, job_id) == (1, {"more": "added"})


def test_what_was_not_fetched_is_an_error(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of(FILES))])

    done = cli("diff", job_id)

    assert done.returncode == 66
    assert "artifact App has not been fetched" in done.stderr


@pytest.mark.parametrize("layout", ["per-artifact", "merged"])
def test_a_symlink_in_place_of_an_artifact_is_refused(aws: LocalAWS, cli: Cli, layout: str) -> None:
    job_id = aws.add_job([Input("App", zip_of(FILES))])
    assert cli("fetch", job_id, "--layout", layout).returncode == 0
    place = cli.directory / ("in/App" if layout == "per-artifact" else "in")
    place.rename(cli.directory / "elsewhere")
    place.symlink_to(cli.directory / "elsewhere")

    done = cli("diff", job_id)

    assert done.returncode == 65
    assert f"{place} is a symlink to '{cli.directory}/elsewhere'; fetch it again" in done.stderr


def test_a_symlink_in_place_of_an_artifact_is_replaced_by_a_fetch(aws: LocalAWS, cli: Cli) -> None:
    """As the error says."""
    job_id = aws.add_job([Input("App", zip_of(FILES))])
    assert cli("fetch", job_id).returncode == 0
    (cli.directory / "in/App").rename(cli.directory / "elsewhere")
    (cli.directory / "in/App").symlink_to(cli.directory / "elsewhere")

    assert cli("fetch", job_id, "--replace").returncode == 0
    assert _differences(cli, job_id) == (0, {})


def test_an_object_that_was_replaced_is_named(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of(FILES))])
    assert cli("fetch", job_id).returncode == 0
    other = aws.add_job([Input("App", zip_of({**FILES, "two": "x\n"}))])

    done = cli("diff", other)

    assert done.returncode == 1
    assert "the object of App is another one than was fetched" in done.stderr
