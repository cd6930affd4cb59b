"""A secret that is planted wherever there can be one, and the search for it.

A canary is made of letters and digits, so that no JSON, URL, XML or repr changes it; and secrets
are made of canaries, so that any piece of one that is long enough to be of use holds one.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aws_clients import codepipeline
from cpstage.local import Input, LocalAWS, access
from samples import zip_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from command_line import Cli

CANARY = "Pl4nt3dC4nary"
CALLERS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

Done = subprocess.CompletedProcess[str]


def planted(length: int) -> str:
    """A secret of some characters that differs from all others."""
    unit = f"{CANARY}{secrets.token_hex(6)}"
    return (unit * (length // len(unit) + 1))[:length]


@contextmanager
def planted_aws() -> Iterator[LocalAWS]:
    """A local AWS that hands out no secret without the canary in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(access, "_secret", planted)
        with LocalAWS() as running:
            assert CANARY in running.environment["AWS_SECRET_ACCESS_KEY"]
            yield running


def _needles(secret: str) -> Iterator[bytes]:
    """What a secret looks like, plain or encoded; the case of its letters is none."""
    raw = secret.encode()
    yield raw.lower()
    yield raw.hex().encode()
    for shift in range(3):
        # What comes before shifts the groups of base64; those at the edges hold other bits too.
        encoded = base64.b64encode(bytes(shift) + raw).rstrip(b"=")
        yield encoded[4 if shift else 0 : len(encoded) - 2].lower()


def is_in(data: bytes | str, others: Iterable[str] = ()) -> bool:
    """Whether a marker, or one of some other secrets, is in there in any form."""
    lowered = (data.encode(errors="surrogatepass") if isinstance(data, str) else data).lower()
    return any(needle in lowered for one in (CANARY, *others) for needle in _needles(one))


def files_below(*roots: Path) -> Iterator[Path]:
    """Regular files below some directories."""
    for root in roots:
        for directory, _, names in os.walk(root):
            for path in (Path(directory, name) for name in names):
                if path.is_file() and not path.is_symlink():
                    yield path


def files_with_it(root: Path, others: Iterable[str] = (), less: Collection[Path] = ()) -> list[str]:
    """The files below a directory that hold a secret, less those that it was planted in."""
    return [
        str(path.relative_to(root))
        for path in files_below(root)
        if path not in less and (is_in(path.read_bytes(), others) or is_in(str(path), others))
    ]


def open_to_others(root: Path) -> list[str]:
    """What is below a directory, and who is not its owner may read, write or enter."""
    return [
        f"{path.relative_to(root)} {path.lstat().st_mode & 0o777:o}"
        for path in (root, *root.rglob("*"))
        if path.lstat().st_mode & 0o077 and not path.is_symlink()
    ]


def places(cli: Cli) -> Path:
    """The directory that holds all that a run may write to: its workspace, HOME and TMPDIR."""
    return cli.directory.parent


def noisy(*arguments: str) -> list[str]:
    """The command line of a command that says all that it can."""
    return [sys.executable, "-m", "cpstage", *arguments, "--debug", "-v"]


def variables(cli: Cli, others: Mapping[str, str], without: Collection[str] = ()) -> dict[str, str]:
    """The environment of a run, with a separate directory for temporary files."""
    scratch = places(cli) / "tmp"
    scratch.mkdir(exist_ok=True)
    known = {**cli.environment, "TMPDIR": str(scratch), **others}
    return {name: value for name, value in known.items() if name not in without}


def run(
    cli: Cli,
    *arguments: str,
    stdin: str | None = None,
    without: Collection[str] = (),
    prefix: Collection[str] = (),
    **others: str,
) -> Done:
    """Run a command with nothing to close its files but itself, and let it say all that it can."""
    return subprocess.run(
        [*prefix, *noisy(*arguments)],
        cwd=cli.directory,
        env=variables(cli, others, without),
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        umask=0,
    )


def leaks(
    cli: Cli, done: Done, others: Iterable[str] = (), less: Collection[Path] = ()
) -> list[str]:
    """Where a secret is that should not be: on stdout, on stderr, or in a file.

    Args:
        cli: Whose places are searched.
        done: What was said.
        others: Secrets besides the canary.
        less: Files that a secret was planted in.
    """
    said = {"stdout": done.stdout, "stderr": done.stderr}
    found = [name for name, text in said.items() if is_in(text, others)]
    return found + files_with_it(places(cli), others, less)


def add_job(aws: LocalAWS, body: bytes | None = None, **others: object) -> str:
    """A job with a secret in every member that can have one."""
    return aws.add_job(
        [Input("App", zip_of({"f": "x"}) if body is None else body)],
        outputs=["Built"],
        configuration={"Password": planted(20), "Url": f"https://me:{planted(20)}@example.com"},
        continuation_token=planted(40),
        **others,  # type: ignore[arg-type]
    )


def revealed(aws: LocalAWS, job_id: str) -> str:
    """The job's document as the service gives it, with its secrets."""
    answer = codepipeline(aws.environment).get_job_details(jobId=job_id)
    return json.dumps({"jobDetails": answer["jobDetails"]})


def write_result(cli: Cli) -> None:
    (cli.directory / "out/Built").mkdir(parents=True, exist_ok=True)
    (cli.directory / "out/Built/result").write_text("x" * 1000)


def keeps_quiet(cli: Cli, code: int, *arguments: str, less: Collection[Path] = ()) -> str:
    """Expect an exit code and no secret, and return what was said to people."""
    done = run(cli, *arguments)
    assert done.returncode == code, done.stderr
    assert leaks(cli, done, less=less) == []
    return done.stderr


def descendants(pid: int) -> list[int]:
    """A process and all that it has started, which are still there."""
    found = [pid]
    for one in found:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
                found += [int(child) for child in children.read_text().split()]
    return found
