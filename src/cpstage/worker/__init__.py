"""A job worker: poll, acknowledge, run, report; its health and its events."""

from cpstage.worker.claims import JobQueue, WorkerEvent, claim_job, read_client_tokens
from cpstage.worker.health import WorkerHealth, health_page
from cpstage.worker.job import JobCommand, JobPlaces
from cpstage.worker.loop import Worker, WorkerOptions

__all__ = [
    "JobCommand",
    "JobPlaces",
    "JobQueue",
    "Worker",
    "WorkerEvent",
    "WorkerHealth",
    "WorkerOptions",
    "claim_job",
    "health_page",
    "read_client_tokens",
]
