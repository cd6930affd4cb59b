"""Where tools are measured: the servers, the programs, the environment and the work directory."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import job_api, measure, object_store
from benchmarks.object_store import ACCESS_KEY, REGION, SECRET_KEY, ObjectStore
from benchmarks.servers import Network

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.job_api import JobApi
    from benchmarks.machine import Credentials
    from benchmarks.measure import Sample, Step
    from benchmarks.peers import Programs

_LOCAL = Network()
_MEMORY = Path("/dev/shm")
_ENOUGH = 12 << 30
_SESSION_CREDENTIALS = {
    "accessKeyId": ACCESS_KEY,
    "secretAccessKey": SECRET_KEY,
    "sessionToken": "",
}
_PROFILE = "benchmark"
_CONFIG = f"[profile {_PROFILE}]\nregion = {REGION}\n"
_CREDENTIALS_FILE = f"""\
[{_PROFILE}]
aws_access_key_id = {ACCESS_KEY}
aws_secret_access_key = {SECRET_KEY}
"""


class Testbed:
    """Runs tools against a running object store and job API.

    Args:
        programs: Where the tools are.
        store: The object store.
        jobs: The job API.
        work: A directory for everything that they write.
        credentials: Where the tools find their access keys.
        network: How the tools reach the servers.

    Attributes:
        environment: Of the tools.
        file_system: The type of the file system that it lies on.
        in_memory: Whether that file system is memory.
    """

    def __init__(
        self,
        programs: Programs,
        store: ObjectStore,
        jobs: JobApi,
        work: Path,
        credentials: Credentials,
        network: Network,
    ) -> None:
        self.programs = programs
        self.store = store
        self.jobs = jobs
        self.work = work
        self.file_system = _file_system(work)
        self.in_memory = self.file_system in ("tmpfs", "ramfs")
        self._numbers = count(1)
        self._inside = network.inside
        self.environment = {**_environment(store, jobs, work, credentials), **_trust(network)}

    def run(self, steps: Sequence[Step], *, watch: bool = False) -> Sample:
        """Run the steps of a tool; with `watch` the memory of all its processes is read.

        Raises:
            Failed: One of its commands did.
        """
        log = self.work / "tool.log"
        return measure.run(
            *(steps, self.environment, log, self.store.cpu_seconds),
            watch=watch,
            inside=self._inside,
        )

    def free_bytes(self) -> int:
        """Return how much more can be written; memory that programs use is not free."""
        free = shutil.disk_usage(self.work).free
        return min(free, _available_memory()) if self.in_memory else free

    @contextmanager
    def directory(self, *, many_files: bool) -> Iterator[Path]:
        """Make a directory for one run, and remove it after.

        A tree of many files on a disk is kept until the end: ext4 needs many times as long to
        create files in the minutes after so many were removed.
        """
        directory = self.work / f"run-{next(self._numbers)}"
        directory.mkdir()
        try:
            yield directory
        finally:
            if self.in_memory or not many_files:
                shutil.rmtree(directory)


@contextmanager
def running(
    programs: Programs,
    work: Path | None,
    credentials: Credentials,
    network: Network = _LOCAL,
) -> Iterator[Testbed]:
    """Start everything, in a new directory below the given one; all of it is removed at the end."""
    parent = work or _roomy_directory()
    directory = Path(tempfile.mkdtemp(prefix="cpstage-benchmark-", dir=parent))
    print(f"working in {directory}", flush=True)
    try:
        with (
            object_store.running(programs.weed, directory / "store", network) as store,
            job_api.running(directory / "job-api", _SESSION_CREDENTIALS, network) as jobs,
        ):
            yield Testbed(programs, store, jobs, directory, credentials, network)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _roomy_directory() -> Path:
    """Return memory if there is enough of it, else the directory for temporary files."""
    room = shutil.disk_usage(_MEMORY).free if _MEMORY.is_dir() else 0
    if min(room, _available_memory()) >= _ENOUGH:
        return _MEMORY
    print("there are not 12 GiB free in memory: working on a disk, which is slower", flush=True)
    return Path(tempfile.gettempdir())


def _available_memory() -> int:
    """Return what programs can still have without swapping (proc(5)); 0 where nobody tells."""
    information = Path("/proc/meminfo")
    if information.exists():
        for line in information.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
    return 0


def _file_system(directory: Path) -> str:
    """Return the type of the file system that a directory lies on; nothing where that is secret."""
    mounts = Path("/proc/self/mounts")
    types = {}
    for line in mounts.read_text().splitlines() if mounts.exists() else ():
        _, mount_point, kind, *_ = line.split(" ")
        types[mount_point] = kind
    place = directory.resolve()
    return next((types[str(at)] for at in (place, *place.parents) if str(at) in types), "")


def _environment(
    store: ObjectStore, jobs: JobApi, work: Path, credentials: Credentials
) -> dict[str, str]:
    """Return the environment of every tool, without the settings of the user.

    With credentials from a profile no access key is in the environment: the keys are in the AWS
    configuration files of a home directory below `work`.
    """
    home, temporary = work / "home", work / "tmp"
    home.mkdir()
    temporary.mkdir()
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    if credentials == "profile":
        (home / ".aws").mkdir()
        (home / ".aws" / "config").write_text(_CONFIG)
        (home / ".aws" / "credentials").write_text(_CREDENTIALS_FILE)
        keys = {"AWS_PROFILE": _PROFILE}
    return {
        **keys,
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL_S3": store.endpoint_url,
        "AWS_ENDPOINT_URL_KMS": store.kms_endpoint_url,
        "AWS_ENDPOINT_URL_CODEPIPELINE": jobs.endpoint_url,
        "S3_ENDPOINT_URL": store.endpoint_url,
    }


def _trust(network: Network) -> dict[str, str]:
    """Return the environment in which tools reach the servers directly and trust them."""
    trusted = {"NO_PROXY": network.address}
    if network.tls:
        # s5cmd and other programs in Go read the second one.
        trusted |= dict.fromkeys(("AWS_CA_BUNDLE", "SSL_CERT_FILE"), str(network.tls.ca))
    return trusted
