"""``cpstage diff`` of two executions and of local archives, and local archives in ls and cat."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from cpstage.inspect import Texts, compare_local
from cpstage.local import ActionRun, Input, LocalAWS
from samples import tar_of, zip_of, zip_with_link
from zip_bytes import file, zip_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from command_line import Cli

MIB = 1 << 20
LARGE = 40 * MIB
OLD: dict[str, str | bytes] = {
    "same": "s",
    "text": "one\ntwo\n",
    "gone": "x\n",
    "run": "r",
    "image": b"\0\1",
}
NEW: dict[str, str | bytes] = {
    "same": "s",
    "text": "one\n2\n",
    "run": "r",
    "image": b"\0\2",
    "new\x1b": "y\n",
}


@pytest.fixture
def debug(aws: LocalAWS, cli: Cli) -> Cli:
    return cli.with_variables(aws.debugger_environment)


def _add(aws: LocalAWS, pipeline: str, *outputs: Input, status: str = "Succeeded") -> str:
    return aws.history.add(pipeline, [ActionRun("Build", outputs=outputs)], status=status)


def _new_zip() -> bytes:
    return zip_of(NEW, modes={"run": stat.S_IFREG | 0o755})


def _diff(debug: Cli, *arguments: str, code: int = 1) -> dict[str, Any]:
    done = debug("diff", *arguments, "--json")
    assert done.returncode == code, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _changes(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    return ((one["what"], one["path"]) for one in found["changes"])


EXPECTED = [
    ("removed", "gone"),
    ("content", "image"),
    ("added", "new\x1b"),
    ("executable", "run"),
    ("size", "text"),
]


def test_two_executions_are_compared_by_member(aws: LocalAWS, debug: Cli) -> None:
    before = _add(aws, "compared", Input("App", zip_of(OLD)), Input("Same", zip_of({"f": "x"})))
    after = _add(aws, "compared", Input("App", _new_zip()), Input("Same", zip_of({"f": "x"})))
    options = ("--pipeline", "compared", "--execution", after, "--with", before)

    document = _diff(debug, *options)
    text = debug("diff", *options)
    one = _diff(debug, *options, "Same", code=0)
    reverse = _diff(debug, "--pipeline", "compared", "--execution", before, "--with", after)

    app, same = document["changed"]
    assert document["between"] == {"before": before, "after": after}
    assert [*_changes(app)] == EXPECTED
    assert (same["name"], same["changes"], same["entries"]) == ("Same", [], 1)
    assert "added\tApp/new\\x1b\tfile" in text.stdout.splitlines()
    assert "same\tSame\t1 entry" in text.stdout.splitlines()
    assert [found["name"] for found in one["changed"]] == ["Same"]
    assert ("added", "gone") in [*_changes(reverse["changed"][0])]


def test_objects_whose_keys_are_printed_alike_are_compared(aws: LocalAWS, debug: Cli) -> None:
    """Control characters of a key are printed as escapes, which another key may consist of."""
    before = _add(aws, "alike", Input("App", zip_of(OLD), key="a\tb/App.zip"))
    after = _add(aws, "alike", Input("App", zip_of(NEW), key=r"a\tb/App.zip"))

    found = _diff(debug, "--pipeline", "alike", "--execution", after, "--with", before)

    changed = found["changed"][0]
    assert changed["before"] == changed["after"]
    assert ("size", "text") in _changes(changed)


def test_previous_is_the_last_success_before(aws: LocalAWS, debug: Cli) -> None:
    bodies = [zip_of({"version": f"{number}\n"}) for number in range(5)]
    _add(aws, "previous", Input("App", bodies[0]))
    good = _add(aws, "previous", Input("App", bodies[1]))
    _add(aws, "previous", Input("App", bodies[2]), status="Failed")
    bad = _add(aws, "previous", Input("App", bodies[3]), status="Failed")
    _add(aws, "previous", Input("App", bodies[4]))
    command = ("--pipeline", "previous", "--execution", bad, "--with", "previous")

    document = _diff(debug, *command, "-u")

    assert document["between"] == {"before": good, "after": bad}
    assert document["changed"][0]["text"] == [
        "--- a/version",
        "+++ b/version",
        "@@ -1 +1 @@",
        "-1",
        "+3",
    ]
    first = debug("executions", "previous", "--json")
    oldest = json.loads(first.stdout)["executions"][-1]["id"]
    none = debug("diff", "--pipeline", "previous", "--execution", oldest, "--with", "previous")
    assert none.returncode == 66
    assert "no execution of pipeline previous succeeded before" in none.stderr


def test_texts_are_shown_as_a_unified_diff(aws: LocalAWS, debug: Cli) -> None:
    before = _add(aws, "texts", Input("App", zip_of(OLD)))
    after = _add(aws, "texts", Input("App", tar_of(NEW), ".tar"))
    options = ("--pipeline", "texts", "--execution", after, "--with", before)

    every = debug("diff", *options, "-u")
    one = debug("diff", *options, "--content", "te*", "--content", "gone")

    assert every.returncode == 1
    assert "Binary members image differ" in every.stdout
    assert "+++ b/new\\x1b" in every.stdout
    assert "\x1b" not in every.stdout
    shown = one.stdout[one.stdout.index("---") :].splitlines()
    assert shown[:4] == ["--- a/gone", "+++ /dev/null", "@@ -1 +0,0 @@", "-x"]
    assert shown[4:] == ["--- a/text", "+++ b/text", "@@ -1,2 +1,2 @@", " one", "-two", "+2"]


def test_large_zips_are_compared_by_a_few_small_requests(aws: LocalAWS, debug: Cli) -> None:
    data = os.urandom(LARGE)
    bodies = [zip_bytes(file("large", data), file("small", text)) for text in (b"1\n", b"2\n")]
    before, after = (_add(aws, "large", Input("App", body)) for body in bodies)
    start = len(aws.calls())

    document = _diff(debug, "--pipeline", "large", "--execution", after, "--with", before)

    assert [*_changes(document["changed"][0])] == [("content", "small")]
    reads = [one.byte_range for one in aws.calls()[start:] if one.action == "GetObject"]
    sizes = [int(last) - int(first) + 1 for first, last in map(_bounds, reads)]
    assert len(reads) == 4  # the start and the end of each
    assert sum(sizes) < 5 * MIB


def _bounds(byte_range: str | None) -> tuple[str, str]:
    first, _, last = (byte_range or "").removeprefix("bytes=").partition("-")
    return first, last


def test_artifacts_of_one_execution_only(aws: LocalAWS, debug: Cli) -> None:
    before = _add(aws, "only", Input("Old", zip_of({"f": "x"})), Input("Gone", None))
    after = _add(aws, "only", Input("New", zip_of({"f": "x"})))
    options = ("--pipeline", "only", "--execution", after, "--with", before)

    missing = debug("diff", *options)
    rest = debug("diff", *options, "--skip-missing")

    assert missing.returncode == 66
    assert rest.returncode == 1
    kinds = [line.split("\t")[:2] for line in rest.stdout.splitlines()]
    assert kinds == [["removed", "Old"], ["added", "New"]]
    assert "Gone" in rest.stderr


def test_local_archives_and_trees_are_compared(debug: Cli) -> None:
    place = debug.directory
    (place / "old.zip").write_bytes(zip_of(OLD))
    (place / "new.tar").write_bytes(tar_of(NEW))
    tree = place / "tree"
    tree.mkdir()
    for name, content in NEW.items():
        data = content.encode() if isinstance(content, str) else content
        (tree / name).write_bytes(data)
    (tree / "run").chmod(0o755)

    archives = _diff(debug, "--local", "old.zip", "new.tar")
    trees = _diff(debug, "--local", "old.zip", "tree", "-u")

    expected = [one for one in EXPECTED if one[0] != "executable"]
    assert [*_changes(archives["changed"][0])] == expected
    assert [*_changes(trees["changed"][0])] == EXPECTED
    assert "+2" in trees["changed"][0]["text"]
    assert archives["read_with"] is None
    document = compare_local(place / "old.zip", tree, texts=Texts(wanted=True)).document()
    assert document == json.loads(json.dumps(document))
    same = debug("diff", "--local", "old.zip", "old.zip")
    assert (same.returncode, same.stdout) == (0, "same\told.zip\t5 entries\n")


def test_local_archives_are_listed_and_read(debug: Cli) -> None:
    archive = debug.directory / "a.zip"
    archive.write_bytes(zip_with_link("link", "f", {"f": "x\n", "d/g": "y\n"}))

    listed = debug("ls", "--archive", "a.zip", "d/*")
    whole = json.loads(debug("ls", "--archive", "a.zip", "--json").stdout)
    read = debug("cat", "--archive", "a.zip", "d/*", "f")

    assert listed.stdout.startswith(f"a.zip: zip, {archive.stat().st_size} bytes at a.zip\n")
    assert [line.split()[-1] for line in listed.stdout.splitlines()[1:]] == ["d/g"]
    assert whole["artifacts"][0]["location"] is None
    assert whole["artifacts"][0]["path"] == "a.zip"
    assert read.stdout == "y\nx\n"


def test_the_first_of_several_members_waits_for_the_names_of_all(debug: Cli) -> None:
    (debug.directory / "a.zip").write_bytes(zip_of({"f": "x"}))

    done = debug("cat", "--archive", "a.zip", "f", "missing")

    assert (done.returncode, done.stdout) == (66, "")
    assert "does not contain 'missing'" in done.stderr


def test_several_members_of_a_tar_come_in_its_order(debug: Cli) -> None:
    (debug.directory / "a.tar.gz").write_bytes(tar_of({"f": "1", "g": "2", "h": "3"}, mode="w:gz"))

    done = debug("cat", "--archive", "a.tar.gz", "h", "f")
    globbed = debug("cat", "--archive", "a.tar.gz", "[gh]")

    assert (done.stdout, globbed.stdout) == ("13", "23")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["diff", "--with", "previous"], 2, "--with is given without --pipeline"),
        (["diff", "--local", "a", "b", "c"], 2, "'c' is a third one"),
        (["diff", "--local", "a", "b"], 66, "a does not exist"),
        (["diff", "--pipeline", "p", "-u"], 2, "give --with or --local"),
        (["diff", "--pipeline", "p", "--local", "a", "b"], 2, "both an execution and --local"),
        (["diff", "--local", "a", "b", "--with", "previous"], 2, "both --with and --local"),
        (["ls", "--archive", "a", "--pipeline", "p"], 2, "both an execution and --archive"),
        (["ls", "--archive", "a", "--job-file", "f"], 2, "both a job and --archive"),
        (["ls", "--archive", "a"], 66, "a does not exist"),
        (["ls", "--archive", "."], 65, "is not a regular file"),
        (["cat", "--archive", "a"], 2, "PATH is missing"),
    ],
)
def test_bad_arguments(debug: Cli, arguments: list[str], code: int, words: str) -> None:
    done = debug(*arguments)

    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_file_that_cannot_be_read_is_named(debug: Cli, tmp_path: Path) -> None:
    broken = tmp_path / "broken.zip"
    broken.write_bytes(zip_of({"f": "x"})[:-10])

    done = debug("diff", "--local", str(broken), str(broken))

    assert done.returncode == 65
    assert str(broken) in done.stderr


def test_the_texts_of_a_comparison_are_bounded_together(cli: Cli) -> None:
    """9 times 4 MiB on each side are more than 64 MiB: the last ones are not read."""
    for name, end in (("old.zip", b"1"), ("new.zip", b"2")):
        members = {f"m{number}": bytes((4 << 20) - 1) + end for number in range(9)}
        (cli.directory / name).write_bytes(zip_of(members))

    done = cli("diff", "--local", "old.zip", "new.zip", "-u")

    assert done.returncode == 1, done.stderr
    assert "Binary members m7 differ" in done.stdout
    assert "Members m8 differ, and are too large to compare as text" in done.stdout


def test_lines_that_would_take_difflib_hours_are_not_compared(cli: Cli) -> None:
    for name, cycle in (("old.zip", 109), ("new.zip", 110)):
        text = "".join(f"line {number % cycle}\n" for number in range(200_000))
        (cli.directory / name).write_bytes(zip_of({"log": text, "note": f"{cycle}\n"}))

    done = cli("diff", "--local", "old.zip", "new.zip", "-u")

    assert done.returncode == 1, done.stderr
    assert "Members log differ, and repeat too many lines to compare them" in done.stdout
    assert "-109\n+110\n" in done.stdout
