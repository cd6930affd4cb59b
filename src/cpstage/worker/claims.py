"""Claiming jobs: polling for them, and acknowledging those that a poll returns.

A poll only offers a job; the acknowledgement with the nonce of that poll makes it the worker's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cpstage.aws.codepipeline import acknowledge_job, get_job_details, poll_for_jobs
from cpstage.aws.config import AwsConfig
from cpstage.errors import (
    AccessDenied,
    ConfigurationError,
    CpstageError,
    OutOfSync,
    ServiceUnavailable,
    local_reason,
)
from cpstage.job import ActionTypeId, check_job_directory, parse_job
from cpstage.job.masking import Secret

POLL_TIMEOUT = 10.0
"""Seconds that a call may take before it counts as failed: the next poll is the other try, and
a worker that is stopped waits for it."""

ACKNOWLEDGE_TIMEOUT = 30.0
"""Seconds. A lost answer may have been a yes: the job is then in progress without a worker."""

_MOST_LOST = 10
"""Jobs that are polled for without a pause while other workers acknowledge each of them first."""


@dataclass(frozen=True)
class Offer:
    """A job that a poll returned; another worker may acknowledge it first."""

    job_id: str
    document: Mapping[str, Any] | None = field(default=None, repr=False)
    """The job as PollForJobs has it; None for a third-party job, which has a client."""
    client_id: str | None = None


@dataclass(frozen=True)
class Claim:
    """A job that was acknowledged; its id is safe as the name of a directory."""

    job_id: str
    document: Mapping[str, Any] = field(repr=False)
    client_token: Secret | None = field(default=None, repr=False)

    def members(self) -> dict[str, Any]:
        """Return what ``cpstage claim --json`` prints: the client token is revealed."""
        return {
            "job_id": self.job_id,
            "status": "InProgress",
            "pipeline_context": parse_job(self.document).pipeline_context._asdict(),
            "client_token": self.client_token.reveal() if self.client_token else None,
        }


@dataclass(frozen=True)
class JobQueue:
    """The jobs of one action type that wait in CodePipeline.

    Attributes:
        action_type: The action type of the worker.
        config: The configuration of the AWS clients, with the worker's own credentials.
        query: A configuration property that jobs must have, and its value.
        client_tokens: A JSON file with the token of each client by the client's id, for
            third-party jobs; it is read anew for every job.
    """

    action_type: ActionTypeId
    config: AwsConfig = field(default_factory=AwsConfig)
    query: Mapping[str, str] | None = None
    client_tokens: Path | None = None

    def poll(self, most: int) -> list[Offer]:
        """Ask for jobs.

        Raises:
            ConfigurationError: The action type does not exist, or no region is known.
            AccessDenied: The worker may not poll.
            ServiceUnavailable: CodePipeline could not be reached.
        """
        config = self._within(POLL_TIMEOUT)
        jobs = poll_for_jobs(self.action_type, most=most, query=self.query, config=config)
        return [self._offer(job) for job in jobs[:most]]

    def claim(self, offer: Offer) -> Claim:
        """Acknowledge a job.

        Raises:
            OutOfSync: Another worker has it, or it is not to be worked on any more.
            CpstageError: It could not be acknowledged.
        """
        check_job_directory(offer.job_id)
        token: Secret | None = None
        document = offer.document
        if document is None:
            token = self._client_token(offer)
            config = self._within(POLL_TIMEOUT)
            answer = get_job_details(offer.job_id, client_token=token, config=config)
            document = answer["jobDetails"]
        try:
            status = acknowledge_job(
                offer.job_id,
                _text(document, "nonce"),
                client_token=token,
                config=self._within(ACKNOWLEDGE_TIMEOUT),
            )
        except ServiceUnavailable as error:
            raise ServiceUnavailable(
                f"{error.message}; the job may have been acknowledged: it is then in progress "
                "until CodePipeline times it out",
                hint=error.hint,
            ) from error
        if status != "InProgress":
            raise OutOfSync(f"job {offer.job_id} is {status}, not ours to work on", hint="")
        return Claim(offer.job_id, document, token)

    def _within(self, seconds: float) -> AwsConfig:
        return replace(self.config, timeout=min(seconds, self.config.timeout))

    def _offer(self, job: Mapping[str, Any]) -> Offer:
        if self.action_type.is_third_party:
            return Offer(_text(job, "jobId"), client_id=_text(job, "clientId"))
        return Offer(_text(job, "id"), job)

    def _client_token(self, offer: Offer) -> Secret:
        if self.client_tokens is None:
            raise ConfigurationError(
                "third-party jobs take their clients' tokens", hint="give --client-tokens FILE"
            )
        token = read_client_tokens(self.client_tokens).get(offer.client_id or "")
        if token is None:
            raise AccessDenied(
                f"job {offer.job_id} is client {offer.client_id}'s, whose token is not known",
                hint=f"enter it into {self.client_tokens}",
            )
        return token


def claim_job(
    queue: JobQueue, *, wait: float = 0.0, interval: float = 10.0, tell: Callable[[str], None]
) -> Claim:
    """Poll for jobs, and acknowledge the first one that no other worker has.

    Args:
        queue: The queue of the jobs.
        wait: Seconds to go on polling; 0 polls once.
        interval: Seconds between two polls.
        tell: Is called with a line about each job that was polled and not claimed.

    Raises:
        OutOfSync: No job waits, or other workers acknowledged all of them first.
        CpstageError: A poll or an acknowledgement failed, and no job could be claimed.
    """
    deadline = time.monotonic() + wait
    lost: list[CpstageError] = []
    while True:
        unreachable: CpstageError | None = None
        offers: list[Offer] = []
        try:
            offers = queue.poll(1)  # any more would be kept from other workers for a while
        except ServiceUnavailable as error:
            unreachable = error
        for offer in offers:
            try:
                return queue.claim(offer)
            except CpstageError as error:
                tell(f"job {offer.job_id} was not claimed: {error.message}")
                lost.append(error)
            except BaseException:
                tell(f"job {offer.job_id} may have been acknowledged: report its result")
                raise
        if offers and len(lost) < _MOST_LOST:
            continue
        left = deadline - time.monotonic()
        if left <= 0:
            nothing = OutOfSync(
                f"no job waits for action type {queue.action_type}",
                hint="run the command again later, or give a longer --wait",
            )
            refused = (error for error in lost if not isinstance(error, OutOfSync))
            raise unreachable or next(refused, nothing)
        time.sleep(min(interval, left))


def read_client_tokens(file: Path) -> dict[str, Secret]:
    """Read the tokens of third-party clients, by the clients' ids.

    Raises:
        ConfigurationError: The file cannot be read, or is not a JSON object of strings.
    """
    try:
        tokens = json.loads(file.read_bytes())
    except OSError as error:
        why = local_reason(error)
        raise ConfigurationError(f"cannot read the client tokens {file}: {why}") from error
    except (ValueError, RecursionError):
        tokens = None  # what stopped the parser holds the tokens
    if not isinstance(tokens, dict) or not all(isinstance(one, str) for one in tokens.values()):
        raise ConfigurationError(
            f"the client tokens {file} are not a JSON object of strings",
            hint='write {"CLIENT_ID": "TOKEN"}',
        )
    return {client: Secret(token) for client, token in tokens.items()}


def _text(document: Mapping[str, Any], member: str) -> str:
    """Return a member that every job has."""
    value = document.get(member)
    if not isinstance(value, str):
        raise ConfigurationError(f"a job came without {member!r}", hint="check the endpoint")
    return value
