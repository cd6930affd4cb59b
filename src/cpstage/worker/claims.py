"""Claiming jobs, and the events that a worker tells of them.

A poll only offers a job; the acknowledgement with the nonce of that poll makes it the worker's. An
event for each change of state holds no secret.

Workers that start together must not poll together: after an empty poll, the wait is a quarter of
the interval plus a random time with a long tail; after a failure, it has full jitter up to a bound
that doubles, to a minute at most: a worker finds the end of an outage no later than that.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from queue import Empty, SimpleQueue
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
    printable,
)
from cpstage.job import ActionTypeId, check_job_directory, parse_job
from cpstage.job.model import Secret

POLL_TIMEOUT = 10.0
"""Seconds that a call may take before it counts as failed: the next poll is the other try, and
a worker that is stopped waits for it."""

ACKNOWLEDGE_TIMEOUT = 30.0
"""Seconds. A lost answer may have been a yes: the job is then in progress without a worker."""

_READ_TIMEOUT = 60.0
"""Seconds, where the connection has none: botocore's default."""

_MOST_POLLS = 4
"""Polls that were given up and have not ended, after which there are no more."""

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


_Answers = SimpleQueue["list[Offer] | BaseException"]


class Poller:
    """Polls a queue in threads, and gives up on a poll that does not end."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._polls: list[threading.Thread] = []
        self._answers = _Answers()
        self._is_stopped = False

    def stop(self) -> None:
        """Make a poll in progress, and all later ones, return no jobs at once.

        A signal handler may call it. CodePipeline offers a job again that is not acknowledged.
        """
        self._is_stopped = True
        self._answers.put([])

    def poll(self, most: int) -> list[Offer]:
        """Ask for jobs; raise ServiceUnavailable if no answer comes within the read timeout."""
        self._answers = answers = _Answers()
        if self._is_stopped:  # checked last: a signal from here on writes to this queue
            return []

        def poll() -> None:
            try:
                answers.put(self._queue.poll(most))
            except BaseException as error:
                answers.put(error)

        self._polls = [thread for thread in self._polls if thread.is_alive()]
        seconds = self._queue.config.read_timeout or _READ_TIMEOUT
        try:
            if len(self._polls) >= _MOST_POLLS:
                raise Empty
            self._polls.append(threading.Thread(target=poll, name="poll", daemon=True))
            self._polls[-1].start()
            answer = answers.get(timeout=seconds)
        except Empty:
            raise ServiceUnavailable(f"a poll did not end within {seconds:g} seconds") from None
        if isinstance(answer, BaseException):
            raise answer
        return answer


_LEAST, _LONGEST = 0.25, 5.0
"""Both in intervals."""

_LEAST_BACKOFF, _LONGEST_BACKOFF = 0.1, 60.0
"""Both in seconds."""


class Pace:
    """The waits of one worker, in seconds; ``interval`` is that of :class:`WorkerOptions`."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._failures = 0

    def found_jobs(self) -> float:
        """Return the seconds to wait after a poll that brought jobs: more of them may wait."""
        self._failures = 0
        return 0.0

    def found_nothing(self) -> float:
        """Return the seconds to wait after a poll that brought no job."""
        self._failures = 0
        tail = random.expovariate(1 / (1 - _LEAST))
        return self._interval * min(_LEAST + tail, _LONGEST)

    def failed(self) -> float:
        """Return the seconds to wait after a poll that failed: the more, the more there were."""
        self._failures = min(self._failures + 1, 32)
        bound = min(_LONGEST_BACKOFF, self._interval * 2**self._failures)
        return max(_LEAST_BACKOFF, random.uniform(0, bound))  # noqa: S311 (it hides nothing)


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


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Subject:
    """The job that an event is about, and where in which pipeline it runs."""

    job_id: str
    pipeline: str | None = None
    stage: str | None = None
    action: str | None = None


@dataclass(frozen=True)
class WorkerEvent:
    """One change of state.

    Attributes:
        name: What happened: of the worker ``polling``, ``health``, ``poll-failed``, ``unwell``,
            ``well``, ``left``, ``draining`` or ``stopped``; of a job ``dropped``, or ``claimed``,
            ``started``, ``warning``, ``reported`` or ``report-failed``, and ``succeeded`` or
            ``failed``.
        about: The job.
        seconds: How long it took.
        exit_code: Of the job's process.
        workspace: What is kept of it.
        message: More about it, for people.
        time: When, in UTC.
    """

    name: str
    about: Subject | None = None
    seconds: float | None = None
    exit_code: int | None = None
    workspace: str | None = None
    message: str | None = None
    time: str = field(default_factory=_now)

    def members(self) -> dict[str, Any]:
        """Return the members that have a value, in a fixed order."""
        found = {
            "time": self.time,
            "event": self.name,
            **(vars(self.about) if self.about else {}),
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "exit_code": self.exit_code,
            "workspace": self.workspace,
            "message": self.message,
        }
        return {name: value for name, value in found.items() if value is not None}

    def text(self) -> str:
        """Return it as a line for a person: the time, the event, and the rest by name."""
        members = self.members()
        head = f"{members.pop('time')} {members.pop('event')}"
        message = members.pop("message", "")
        rest = " ".join(f"{name}={value}" for name, value in members.items())
        return printable(" ".join(filter(None, (head, rest, message))))


Tell = Callable[[WorkerEvent], object]


def described(job_id: str, document: Mapping[str, Any] | None = None) -> Subject:
    """Describe a job by its document, which is not validated yet."""

    def name(*path: str) -> str | None:
        found: Any = document
        for member in ("data", "pipelineContext", *path):
            found = found.get(member) if isinstance(found, dict) else None
        return found if isinstance(found, str) else None

    return Subject(job_id, name("pipelineName"), name("stage", "name"), name("action", "name"))
