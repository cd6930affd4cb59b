"""Commands of cpstage or the AWS CLI, each forked off a process that has loaded the program.

A start takes a third of the time that a new interpreter takes. Everything else is as in a shell: a
directory, an environment, descriptors and an exit code. Commands have no terminal.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Main = Callable[[list[str]], "int | None"]

LONGEST = 120
"""Seconds after which a command is killed."""


class Forks:
    """Starts commands, also in several threads at once; use it as a context manager.

    Args:
        directory: Where the address of the loaded process lies.
        environment: Its own variables.
        program: What it loads: ``cpstage`` or ``aws``.
    """

    def __init__(
        self, directory: Path, environment: Mapping[str, str], program: str = "cpstage"
    ) -> None:
        self.directory = directory
        self._address = str(directory / "forks")
        # The loaded process is no child of this one: tests count the children of theirs.
        done = subprocess.run(
            [sys.executable, __file__, program, self._address, str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={**environment},
            timeout=LONGEST,
            check=True,
        )
        self._pid = int(done.stdout)

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)

    def run(
        self,
        arguments: Sequence[str],
        directory: Path,
        environment: Mapping[str, str],
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with a text on its stdin."""
        with tempfile.TemporaryDirectory(dir=self.directory) as files:
            return self._run(arguments, directory, environment, stdin, Path(files))

    def _run(
        self,
        arguments: Sequence[str],
        directory: Path,
        environment: Mapping[str, str],
        stdin: str | None,
        files: Path,
    ) -> subprocess.CompletedProcess[str]:
        given, out, err = (files / name for name in ("in", "out", "err"))
        given.write_text(stdin or "")
        order = {
            "arguments": [*arguments],
            "directory": str(directory),
            "environment": {**environment},
            "streams": [os.devnull if stdin is None else str(given), str(out), str(err)],
        }
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(LONGEST + 60)
            connection.connect(self._address)
            connection.sendall(json.dumps(order).encode() + b"\n")
            code = int(connection.recv(100))
        return subprocess.CompletedProcess([*arguments], code, out.read_text(), err.read_text())


def _load_aws() -> None:
    """Load the AWS CLI, which includes a second botocore."""
    import awscli.clidriver

    from botocore_files import read_once  # of the botocore that is imported by now

    read_once()
    commands = awscli.clidriver.create_clidriver().create_help_command().command_table
    for service in ("codepipeline", "s3api"):
        commands[service].create_help_command()


def _load_cpstage() -> None:
    """Load what commands load; the local AWS is not among it."""
    import cpstage

    importlib.import_module("ctypes")  # which commands load late
    for module in pkgutil.walk_packages(cpstage.__path__, "cpstage."):
        if not module.name.startswith(("cpstage.local", "cpstage.cli.local", "cpstage.__main__")):
            importlib.import_module(module.name)
    os.environ.update(AWS_ACCESS_KEY_ID="none", AWS_SECRET_ACCESS_KEY="none")
    config = cpstage.AwsConfig(region="us-east-1")
    # Making clients loads the models of the services, and parsers and serializers.
    for client in (config.codepipeline(), config.s3(None), config.kms(None, None)):
        client.boto3_client.close()


def _serve(program: str, address: str, tests: int) -> None:
    """Start a command for each connection, as long as the process of the tests lives."""
    load, main = _PROGRAMS[program]
    load()
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    if pid := os.fork():
        print(pid)
        return
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    listener.settimeout(LONGEST)
    while Path(f"/proc/{tests}").exists():
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if os.fork() == 0:
            listener.close()
            _start(connection, main)
            os._exit(0)
        connection.close()


def _start(connection: socket.socket, main: Main) -> None:
    """Read an order, have a child become the command, and tell its exit code."""
    order = json.loads(connection.makefile().readline())
    child = os.fork()
    if child == 0:
        connection.close()
        _become(main, **order)
    _, status = os.waitpid(child, 0)
    with suppress(OSError):  # nobody may want to know any more
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def _become(
    main: Main,
    arguments: list[str],
    directory: str,
    environment: dict[str, str],
    streams: list[str],
) -> NoReturn:
    for descriptor, name in enumerate(streams):
        mode = os.O_RDWR | os.O_CREAT if descriptor else os.O_RDONLY
        opened = os.open(name, mode, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    signal.alarm(LONGEST)
    try:
        raise SystemExit(main(arguments))
    except SystemExit as request:
        threading._shutdown()  # type: ignore[attr-defined]
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(request.code or 0))  # a separate process would take memory apart first


def _cpstage(arguments: list[str]) -> int | None:
    from cpstage.__main__ import main

    return main(arguments)


def _aws(arguments: list[str]) -> int | None:
    import awscli
    from awscli.clidriver import main

    importlib.reload(awscli)  # it puts its data on AWS_DATA_PATH
    code: int | None = main()
    return code


_PROGRAMS: dict[str, tuple[Callable[[], None], Main]] = {
    "cpstage": (_load_cpstage, _cpstage),
    "aws": (_load_aws, _aws),
}

if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
