"""What a release consists of, each tried where nothing else of cpstage is."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cpstage import __version__
from cpstage.local.sample import BUILD_COMMAND, add_sample_job
from run_jobs import puts

if TYPE_CHECKING:
    from command_line import Cli
    from cpstage.local import LocalAWS

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(one) is None for one in ("build", "hatchling", "pex")),
        reason="build, hatchling or pex is missing",
    ),
]


def _build(into: Path, *parts: str) -> list[Path]:
    command = [sys.executable, str(ROOT / "tools/release/build.py"), "--into", str(into)]
    done = subprocess.run([*command, "--only", *parts], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = [into / line.split()[1] for line in done.stdout.splitlines()]
    sums = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=into, capture_output=True)
    assert sums.returncode == 0
    return built


def test_wheel_and_source_distribution_hold_the_same_and_install(tmp_path: Path) -> None:
    wheel, sdist = _build(tmp_path / "dist", "wheel", "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("cpstage-*")
    again = tmp_path / "again"
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(again)]
    assert subprocess.run([*build, str(source)], capture_output=True).returncode == 0
    assert _names(next(again.iterdir())) == _names(wheel)
    assert (source / "packaging/Dockerfile").exists()
    assert (source / "tests/conftest.py").exists()

    # The executable holds the dependencies that the wheel names; here they are those of the tests.
    installed = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(installed)]
    done = subprocess.run([*pip, str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    _assert_packs_and_unpacks(installed, tmp_path / "user")


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {*archive.namelist()}


def _assert_packs_and_unpacks(installed: Path, directory: Path) -> None:
    (directory / "tree").mkdir(parents=True)
    (directory / "tree/file").write_text("content")
    home = str(directory / "home")
    environment = {"PATH": os.defpath, "HOME": home, "PYTHONPATH": str(installed)}
    cpstage = installed / "bin/cpstage"
    for arguments, said in [
        (["--version"], __version__),
        (["pack", "tree", "--output", "tree.zip"], "tree.zip"),
        (["unpack", "tree.zip", "--into", "again"], "again"),
    ]:
        done = subprocess.run(
            [cpstage, *arguments], cwd=directory, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
    assert (directory / "again/file").read_text() == "content"


def test_the_executable_does_a_whole_job(aws: LocalAWS, user: Cli, tmp_path: Path) -> None:
    _, executable = _build(tmp_path / "dist", "executable")
    job_id = add_sample_job(aws)
    command = ["run", job_id, "--report", "--", *BUILD_COMMAND]
    python = Path(sys.executable).resolve().parent
    variables = {**user.environment, "PATH": f"{python}:{os.defpath}"}

    done = subprocess.run(
        [str(executable), *command], cwd=user.directory, env=variables, capture_output=True
    )

    assert done.returncode == 0, done.stderr.decode()
    assert [call.status for call in puts(aws, job_id)] == [200, 200]
    assert aws.job(job_id).status == "Succeeded"


_IN_A_ROOT = """
mount -t overlay overlay -o lowerdir=/,upperdir=$1/changed,workdir=$1/work $1/root
for directory in dev proc sys; do mount --rbind /$directory $1/root/$directory; done
for file in /etc/resolv.conf /etc/hosts; do
    if [ -e $file ]; then mount --bind $file $1/root$file; fi
done
cd $1/root
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change the root directory")
def test_the_steps_of_the_image_make_a_container_that_jenkins_can_use(tmp_path: Path) -> None:
    """There is no container engine: the steps change a copy of this machine's root."""
    instructions = _instructions(ROOT / "packaging/Dockerfile")
    last = dict(instructions)
    entry, default = json.loads(last["ENTRYPOINT"]), json.loads(last["CMD"])
    as_user = ["chroot", f"--userspec={last['USER']}", ".", *entry]
    lines = [_IN_A_ROOT, f"ln -sf {Path(sys.executable).resolve()} usr/local/bin/python"]
    for name, rest in instructions:
        if name == "RUN":
            lines.append(f"chroot . sh -ec '{rest}' >&2")
        elif name == "COPY" and not rest.startswith("--from"):
            *sources, target = rest.split()
            whole = "/. " if len(sources) == 1 else " "
            copied = " ".join(f"{ROOT / source}" for source in sources)
            lines.append(f"mkdir -p .{target} && cp -r {copied}{whole}.{target}")
    lines += [
        "rm -rf src",
        # The image's Python is everybody's; this machine's may be in a home directory.
        *(f"chmod a+x .{parent}" for parent in Path(sys.executable).resolve().parents),
        " ".join([*as_user, *default]),
        f"{' '.join(as_user)} sleep 60 & running=$!",  # Jenkins runs a command that waits, too
        "until chroot . ps -o args --ppid $running | grep -x 'sleep 60'; do kill -0 $running; done",
        "kill $running",
        "wait $running || echo ended with $?",
    ]
    for name in ("changed", "work", "root"):
        (tmp_path / name).mkdir()

    done = subprocess.run(
        ["unshare", "-m", "sh", "-exc", "\n".join(lines), "sh", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=180,
    )

    if "mount:" in done.stderr:
        pytest.skip("this machine mounts no overlay")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("Usage: cpstage")
    assert "ended with 143" in done.stdout
    assert int(last["USER"]) > 0


def _instructions(dockerfile: Path) -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.split(None, 1)[1]) for line in lines if line.strip()]
