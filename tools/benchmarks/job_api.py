"""A CodePipeline that answers GetJobDetails, from documents in a directory.

The session credentials in them are SeaweedFS's static identity, with an empty token. Run as a
program it is the server; imported it writes the documents, and starts that program.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TARGET = "CodePipeline_20150709.GetJobDetails"
_START_SECONDS = 30.0
_ACCOUNT = "123456789012"


class JobApi:
    """A running job API, and the jobs that it knows."""

    def __init__(self, endpoint_url: str, directory: Path, credentials: Mapping[str, str]) -> None:
        self.endpoint_url = endpoint_url
        self._directory = directory
        self._credentials = dict(credentials)

    def add(
        self, bucket: str, key_arn: str, inputs: Mapping[str, str], outputs: Mapping[str, str]
    ) -> str:
        """Make a job, and return its id; artifacts are given as keys by their names."""
        job_id = str(uuid.uuid4())
        details = {
            "id": job_id,
            "accountId": _ACCOUNT,
            "data": {
                "actionTypeId": {
                    **{"category": "Build", "owner": "Custom"},
                    **{"provider": "Benchmark", "version": "1"},
                },
                "actionConfiguration": {"configuration": {}},
                "pipelineContext": {
                    "pipelineName": "Benchmark",
                    "stage": {"name": "Build"},
                    "action": {"name": "Build", "actionExecutionId": str(uuid.uuid4())},
                },
                "inputArtifacts": _artifacts(bucket, inputs),
                "outputArtifacts": _artifacts(bucket, outputs),
                "artifactCredentials": self._credentials,
                "encryptionKey": {"id": key_arn, "type": "KMS"},
            },
        }
        (self._directory / job_id).write_text(json.dumps({"jobDetails": details}))
        return job_id


@contextmanager
def running(directory: Path, credentials: Mapping[str, str]) -> Iterator[JobApi]:
    """Start a job API whose jobs lie in a directory of their own."""
    from benchmarks.servers import LOOPBACK, Server, free_ports, listens

    jobs = directory / "jobs"
    jobs.mkdir(parents=True)
    (port,) = free_ports(1)
    command = [sys.executable, __file__, LOOPBACK, str(port), str(jobs)]
    with Server(command, directory / "job-api.log", {"PATH": os.environ["PATH"]}) as server:
        server.wait_until(lambda: listens(port), _START_SECONDS)
        yield JobApi(f"http://{LOOPBACK}:{port}", jobs, credentials)


def _artifacts(bucket: str, keys: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "location": {"type": "S3", "s3Location": {"bucketName": bucket, "objectKey": key}},
        }
        for name, key in keys.items()
    ]


class _Handler(BaseHTTPRequestHandler):
    """Answers JSON 1.1 as CodePipeline does; it takes every signature."""

    protocol_version = "HTTP/1.1"
    jobs: Path

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.headers.get("X-Amz-Target") != _TARGET:
            self._answer(400, b'{"__type": "UnknownOperationException"}')
            return
        job = self.jobs / Path(json.loads(body)["jobId"]).name
        if job.is_file():
            self._answer(200, job.read_bytes())
        else:
            self._answer(400, b'{"__type": "JobNotFoundException", "message": "no such job"}')

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _serve(address: str, port: str, jobs: str) -> None:
    _Handler.jobs = Path(jobs)
    ThreadingHTTPServer((address, int(port)), _Handler).serve_forever()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
