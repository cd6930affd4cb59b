"""Lost, cut and false answers, exhaustively: each request of a small job, once and for ever.

A request that is struck once is sent again, and the command succeeds. Where every answer is struck,
the command fails with a documented exit code and one line, and leaves nothing half done. The kinds
of faults are in ``answer_kinds``.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from answer_faults import PAGE, RESULTS, Kind, kinds_of
from aws_clients import s3
from command_line import plain_environment
from cpstage.local import Input, LocalAWS
from fault_plans import Rule
from fault_proxy import FaultProxy
from faults import ACCESS_DENIED, SLOW_DOWN, Answer, Close, Document, Fault, Meanwhile
from forked_commands import Forks
from samples import zip_of
from trees import names

if TYPE_CHECKING:
    from pathlib import Path

    from _pytest.mark.structures import ParameterSet
    from mypy_boto3_s3 import S3Client

    from fault_connection import Exchange

pytestmark = pytest.mark.slow

SMALL = random.Random(1).randbytes(2000)
LARGE = SMALL * 4500
"""Two parts."""

QUICK = "2.5"
"""Seconds for which a request is tried again that is struck for ever."""

QUICK_IN_PARTS = "4"
"""The same, of a push that has to send 9 MB through the fault proxy, eight at once, meanwhile."""

Kinds = Mapping[str, Kind]

NEVER_SAID = ("Traceback", "unexpected ", "under the key None", "holds no job", "is damaged")
COUNTS_AS_REPORTED = "a try whose answer was lost counts as reported"


def faults(*operations: str) -> list[ParameterSet]:
    """A case for each operation, with every kind of fault that strikes it."""
    return [pytest.param(name, kinds_of(name), id=name) for name in operations]


def faults_with_one_cut(*operations: str) -> list[ParameterSet]:
    """The same, with one cut in an answer's head and body: the HTTP client sees to these."""
    return [
        pytest.param(name, {**_firsts(name, "cut"), **_other_than(name, "cut")}, id=name)
        for name in operations
    ]


def first_faults(*operations: str) -> list[ParameterSet]:
    """A case for each operation, with the first kind of fault of each group."""
    return [pytest.param(name, _firsts(name, ""), id=name) for name in operations]


def _firsts(operation: str, groups: str) -> Kinds:
    """The first kind of each group whose name begins so."""
    kinds = [*kinds_of(operation).items()]
    firsts = {kind.group: (name, kind) for name, kind in reversed(kinds)}
    return dict(first for group, first in firsts.items() if group.startswith(groups))


def _other_than(operation: str, groups: str) -> Kinds:
    kinds = kinds_of(operation).items()
    return {name: kind for name, kind in kinds if not kind.group.startswith(groups)}


def each(kinds: Mapping[str, Kind], check: Callable[[Kind], object], at_once: int = 8) -> None:
    """Check kinds of faults at the same time, since each mostly waits; name all that fail."""
    with ThreadPoolExecutor(at_once) as pool:
        futures = {name: pool.submit(check, kind) for name, kind in kinds.items()}
    failures = {name: one.exception() for name, one in futures.items() if one.exception()}
    assert not failures, "\n\n".join(f"{name}: {error}" for name, error in failures.items())


@dataclass(frozen=True)
class Done:
    """What a command has done, as a user sees it, and what it asked for."""

    job_id: str
    code: int
    output: str
    said: str
    directory: Path
    log: Sequence[Exchange]

    @property
    def lines(self) -> list[str]:
        return self.said.splitlines()

    @property
    def errors(self) -> list[str]:
        return [line for line in self.lines if line.startswith("cpstage: error: ")]

    @property
    def struck(self) -> int:
        return sum(one.struck for one in self.log)

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """The log of a worker."""
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    def message(self, event: str) -> str:
        """What the one event of a name says."""
        [found] = [one for one in self.events if one["event"] == event]
        return str(found.get("message", ""))

    def succeeds(self, code: int = 0, *, struck: int = 1) -> None:
        assert self.code == code, self.said
        assert self.struck == struck
        assert len(self.errors) == (1 if code else 0), self.said
        self._says_nothing_false()

    def fails(self, code: int, *, lines: int = 1) -> str:
        """Expect an error of so many lines, and return the last."""
        assert self.code == code, self.said
        assert self.struck
        assert len(self.errors) == lines, self.said
        assert self.lines[-1] == self.errors[-1], self.said
        self._says_nothing_false()
        return self.errors[-1]

    def _says_nothing_false(self) -> None:
        for text in NEVER_SAID:
            assert text not in self.said


class Bench:
    """Runs commands through a fault proxy, each in a new directory."""

    def __init__(self, aws: LocalAWS, forks: Forks, directory: Path) -> None:
        self.aws = aws
        self._forks = forks
        self._directory = directory
        self._numbers = count()
        self._environment = {**plain_environment(directory), **aws.environment}

    @cached_property
    def admin(self) -> S3Client:
        return s3(self.aws.admin_environment)

    def run(
        self,
        plan: Sequence[Rule],
        job_id: str,
        *arguments: str,
        files: Mapping[str, bytes] | None = None,
    ) -> Done:
        directory = self._directory / f"{next(self._numbers)}"
        directory.mkdir()
        for name, content in (files or {}).items():
            (directory / name).write_bytes(content)
        with FaultProxy(self.aws.endpoint_url, plan) as proxy:
            environment = {**self._environment, "AWS_ENDPOINT_URL": proxy.url}
            done = self._forks.run(arguments, directory, environment)
        return Done(job_id, done.returncode, done.stdout, done.stderr, directory, proxy.log)

    def fetch(self, plan: Sequence[Rule], *options: str) -> Done:
        job_id = self.aws.add_job([Input("App", zip_of({"f": SMALL}))])
        return self.run(plan, job_id, "fetch", job_id, *QUIET, *options)

    def push(self, plan: Sequence[Rule], body: bytes, *options: str) -> Done:
        job_id = self.aws.add_job(outputs=["Built"])
        arguments = ("push", job_id, "Built=noise", *QUIET, *options)
        return self.run(plan, job_id, *arguments, files={"noise": body})

    def report(self, plan: Sequence[Rule], *options: str, command: Sequence[str]) -> Done:
        """Run a command for a job without artifacts, and report it."""
        job_id = self.aws.add_job()
        return self.run(plan, job_id, "run", job_id, "--report", *QUIET, *options, "--", *command)

    def build(self, plan: Sequence[Rule], *options: str) -> Done:
        """Run a command between fetch and push, and report it."""
        job_id = self.aws.add_job([Input("App", zip_of({"f": SMALL}))], ["Built"])
        options = ("--report", *QUIET, *options, "--", *BUILD)
        return self.run(plan, job_id, "run", job_id, *options)

    def work(
        self,
        plan: Sequence[Rule],
        *options: str,
        command: Sequence[str] = ("true",),
        **members: Any,
    ) -> Done:
        """Have a worker poll once, for a job of a new action type."""
        provider = f"Provider{next(self._numbers)}"
        job_id = self.aws.add_job(status="Queued", provider=provider, **members)
        action = ("--category", "Build", "--provider", provider, "--version", "1")
        arguments = ("work", *action, "--once", "--log-format", "json", *options, "--", *command)
        return self.run(plan, job_id, *arguments)

    def stored(self, job_id: str) -> list[bytes]:
        """All versions of an output's object, which are removed: they take memory."""
        there = self.aws.job(job_id).outputs[0]
        bucket, key = there.bucket, there.key
        listed = self.admin.list_object_versions(Bucket=bucket, Prefix=key).get("Versions", [])
        found = []
        for version in (one["VersionId"] for one in listed):
            answer = self.admin.get_object(Bucket=bucket, Key=key, VersionId=version)
            found.append(answer["Body"].read())
            self.admin.delete_object(Bucket=bucket, Key=key, VersionId=version)
        return found

    def uploads(self, job_id: str) -> list[str]:
        """The multipart uploads of an output's object that are open."""
        there = self.aws.job(job_id).outputs[0]
        listed = self.admin.list_multipart_uploads(Bucket=there.bucket).get("Uploads", [])
        return [one["UploadId"] for one in listed if one["Key"] == there.key]

    def results(self, job_id: str) -> list[str]:
        """The results of a job that CodePipeline has taken."""
        return [
            call.action
            for call in self.aws.calls()
            if call.job_id == job_id and call.action in RESULTS and call.status == 200
        ]


QUIET = ("--progress", "none")
BUILD = ("sh", "-c", 'cp in/App/f "$CPSTAGE_OUT_BUILT/f"')


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAWS]:
    """A poll whose answer is lost has dispatched a job, which the next poll brings at once."""
    with LocalAWS(redeliver_seconds=0) as running:
        yield running


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    directory = tmp_path_factory.mktemp("forks")
    with Forks(directory, plain_environment(directory)) as running:
        yield running


@pytest.fixture(scope="module")
def bench(aws: LocalAWS, forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(aws, forks, tmp_path_factory.mktemp("bench"))
    yield bench
    bench.admin.close()


def once(operation: str, kind: Kind) -> list[Rule]:
    return [Rule(kind.fault, operation)]


def always(operation: str, kind: Kind) -> list[Rule]:
    return [Rule(kind.fault, operation, times=None)]


# A small fetch

_READS = ("GetJobDetails", "HeadObject", "GetObject")


@pytest.mark.parametrize(("operation", "kinds"), faults(*_READS))
def test_a_fetch_gets_over_one_fault(bench: Bench, operation: str, kinds: Kinds) -> None:
    def check(kind: Kind) -> None:
        done = bench.fetch(once(operation, kind))

        done.succeeds()
        assert names(done.directory) == ["in", "in/App", "in/App/f"]
        assert (done.directory / "in/App/f").read_bytes() == SMALL

    each(kinds, check)


@pytest.mark.parametrize(("operation", "kinds"), faults(*_READS))
def test_a_fetch_without_answers_stages_nothing(bench: Bench, operation: str, kinds: Kinds) -> None:
    def check(kind: Kind) -> None:
        done = bench.fetch(always(operation, kind), "--retry-timeout", QUICK)

        done.fails(69)
        staging = done.directory / ".cpstage/staging"
        assert names(done.directory) == []
        assert not staging.exists() or list(staging.iterdir()) == []

    each(kinds, check)


# A push


@pytest.mark.parametrize(("operation", "kinds"), faults("PutObject"))
def test_a_push_gets_over_one_fault(bench: Bench, operation: str, kinds: Kinds) -> None:
    def check(kind: Kind) -> None:
        done = bench.push(once(operation, kind), SMALL)

        done.succeeds()
        assert bench.stored(done.job_id) == [SMALL] * (2 if kind.applied else 1)

    each(kinds, check)


@pytest.mark.parametrize(("operation", "kinds"), faults("PutObject"))
def test_a_push_without_answers_may_have_stored(bench: Bench, operation: str, kinds: Kinds) -> None:
    def check(kind: Kind) -> None:
        done = bench.push(always(operation, kind), SMALL, "--retry-timeout", QUICK)

        last = done.fails(69)
        stored = bench.stored(done.job_id)
        assert {*stored} == ({SMALL} if kind.applied else set())
        assert "the object may have been stored" in last

    each(kinds, check)


# A push in parts

_PARTS = ("CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload")


@pytest.mark.parametrize(("operation", "kinds"), faults_with_one_cut(*_PARTS))
def test_a_push_in_parts_gets_over_one_fault(bench: Bench, operation: str, kinds: Kinds) -> None:
    def check(kind: Kind) -> None:
        done = bench.push(once(operation, kind), LARGE)

        done.succeeds()
        stored = bench.stored(done.job_id)
        assert stored[0] == LARGE
        assert {*stored} == {LARGE}
        # Nobody knows the id of an upload whose first answer was lost.
        unknown = operation == "CreateMultipartUpload" and kind.applied
        assert len(bench.uploads(done.job_id)) == (1 if unknown else 0)

    each(kinds, check)


@pytest.mark.parametrize(("operation", "kinds"), faults_with_one_cut(*_PARTS))
def test_a_push_in_parts_without_answers_leaves_nothing(
    bench: Bench, operation: str, kinds: Kinds
) -> None:
    def check(kind: Kind) -> None:
        done = bench.push(always(operation, kind), LARGE, "--retry-timeout", QUICK_IN_PARTS)

        uploads = bench.uploads(done.job_id)
        if operation == "CompleteMultipartUpload" and kind.applied:
            done.succeeds(struck=done.struck)
            assert "S3 has the object" in done.said
            assert {*bench.stored(done.job_id)} == {LARGE}
            assert uploads == []
            return
        last = done.fails(69)
        assert bench.stored(done.job_id) == []
        if operation == "CreateMultipartUpload":
            assert "a multipart upload may have been created" in last
            assert bool(uploads) == kind.applied
        else:
            assert uploads == []

    each(kinds, check)


@pytest.mark.parametrize(("operation", "kinds"), faults_with_one_cut("AbortMultipartUpload"))
def test_an_abort_gets_over_one_fault(bench: Bench, operation: str, kinds: Kinds) -> None:
    def check(kind: Kind) -> None:
        plan = [Rule(ACCESS_DENIED, "UploadPart", times=None), *once(operation, kind)]

        done = bench.push(plan, LARGE)

        last = done.fails(77)
        assert [one.struck for one in done.log if one.fault is kind.fault] == [True]
        assert bench.uploads(done.job_id) == []
        assert "may be left" not in last

    each(kinds, check)


@pytest.mark.parametrize(("operation", "kinds"), faults_with_one_cut("AbortMultipartUpload"))
def test_an_abort_without_answers_is_told(bench: Bench, operation: str, kinds: Kinds) -> None:
    def check(kind: Kind) -> None:
        plan = [Rule(ACCESS_DENIED, "UploadPart", times=None), *always(operation, kind)]
        done = bench.push(plan, LARGE, "--retry-timeout", QUICK_IN_PARTS)
        last = done.fails(77)
        left = bench.uploads(done.job_id)
        assert bool(left) == (not kind.applied), done.said
        for one in left:
            assert f"the multipart upload {one} of s3://" in last

    each(kinds, check)


def test_a_completion_that_s3_does_not_know_any_more(bench: Bench) -> None:
    """S3 forgets an upload that was completed; the local AWS does not."""
    plan = [
        Rule(Close(None), "CompleteMultipartUpload"),
        Rule(
            Answer(404, "NoSuchUpload", "The specified upload does not exist."),
            "CompleteMultipartUpload",
            first=2,
            times=None,
        ),
    ]

    done = bench.push(plan, LARGE)

    done.succeeds(struck=2)
    assert "S3 has the object" in done.said
    assert bench.stored(done.job_id) == [LARGE]


# A run, and its result


@pytest.mark.parametrize("name", kinds_of("GetJobDetails"))
def test_a_run_gets_over_one_fault_in_each_exchange(bench: Bench, name: str) -> None:
    operations = (*_READS, "PutObject", "PutJobSuccessResult")
    kinds = {one: kinds_of(one).get(name) for one in operations}
    plan = [Rule(kind.fault, one) for one, kind in kinds.items() if kind]

    done = bench.build(plan)

    done.succeeds(struck=len(plan))
    assert bench.aws.job(done.job_id).status == "Succeeded"
    assert bench.results(done.job_id) == ["PutJobSuccessResult"]
    assert bench.stored(done.job_id)


@pytest.mark.parametrize(("operation", "kinds"), first_faults(*_READS, "PutObject"))
def test_a_run_without_answers_is_reported_as_failed(
    bench: Bench, operation: str, kinds: Kinds
) -> None:
    def check(kind: Kind) -> None:
        done = bench.build(always(operation, kind), "--retry-timeout", QUICK)
        job = bench.aws.job(done.job_id)
        done.fails(69)
        assert bench.results(done.job_id) == ["PutJobFailureResult"], done.said
        assert job.result
        assert job.result["failureDetails"]["type"] == "SystemUnavailable"

    each(kinds, check)


_COMMANDS = {"PutJobSuccessResult": ("true",), "PutJobFailureResult": ("sh", "-c", "exit 3")}
_STATUSES = {"PutJobSuccessResult": "Succeeded", "PutJobFailureResult": "Failed"}
_CODES = {"PutJobSuccessResult": 0, "PutJobFailureResult": 3}


@pytest.mark.parametrize(("operation", "kinds"), faults(*RESULTS))
def test_a_result_gets_over_one_fault(bench: Bench, operation: str, kinds: Kinds) -> None:
    def check(kind: Kind) -> None:
        done = bench.report(once(operation, kind), command=_COMMANDS[operation])

        done.succeeds(_CODES[operation])
        assert bench.aws.job(done.job_id).status == _STATUSES[operation]
        assert bench.results(done.job_id) == [operation]
        assert (COUNTS_AS_REPORTED in done.said) == kind.applied

    each(kinds, check)


@pytest.mark.parametrize(("operation", "kinds"), faults(*RESULTS))
def test_a_result_without_answers_is_told(bench: Bench, operation: str, kinds: Kinds) -> None:
    def check(kind: Kind) -> None:
        command = _COMMANDS[operation]
        done = bench.report(always(operation, kind), "--retry-timeout", QUICK, command=command)

        fails = operation == "PutJobFailureResult"
        last = done.fails(_CODES[operation] or 69, lines=2 if fails else 1)
        said = done.errors[0] if fails else last
        assert f"cannot report the {'failure' if fails else 'success'} of job {done.job_id}" in said
        assert "may have put the result: look at the pipeline" in said
        assert bench.results(done.job_id) == ([operation] if kind.applied else [])
        expected = _STATUSES[operation] if kind.applied else "InProgress"
        assert bench.aws.job(done.job_id).status == expected

    each(kinds, check)


@pytest.mark.parametrize("operation", RESULTS)
def test_a_result_whose_answer_was_lost_and_then_more(bench: Bench, operation: str) -> None:
    """The answer that tells comes after others that tell nothing."""
    page, failure = Document(200, content=PAGE), Answer(500, "InternalFailure")
    faults: list[Fault] = [Close(None), SLOW_DOWN, page, failure]
    plan = [Rule(fault, operation, first=n) for n, fault in enumerate(faults, 1)]

    done = bench.report(plan, command=_COMMANDS[operation])

    done.succeeds(_CODES[operation], struck=4)
    assert bench.results(done.job_id) == [operation]
    assert COUNTS_AS_REPORTED in done.said


def test_a_result_that_was_throttled_is_not_taken_for_put(bench: Bench) -> None:
    """CodePipeline does nothing with a request that it throttles."""
    job_id = bench.aws.add_job()
    throttled = Answer(400, "ThrottlingException", "Rate exceeded")
    end = Meanwhile(lambda: bench.aws.set_status(job_id, "TimedOut"))
    plan = [Rule(throttled, RESULTS[0]), Rule(end, RESULTS[0], first=2)]

    done = bench.run(plan, job_id, "run", job_id, "--report", *QUIET, "--", "true")

    done.fails(75)
    assert bench.results(job_id) == []


def test_a_result_that_was_lost_and_then_denied_may_have_been_put(bench: Bench) -> None:
    plan = [Rule(Close(None), RESULTS[0]), Rule(ACCESS_DENIED, RESULTS[0], first=2, times=None)]

    done = bench.report(plan, command=["true"])

    assert "look at the pipeline" in done.fails(77)
    assert bench.aws.job(done.job_id).status == "Succeeded"


# A worker

_MAY_BE_OURS = re.compile(r"may (be|have been) (acknowledged|in progress)")


@pytest.mark.parametrize("name", kinds_of("PollForJobs"))
def test_a_worker_gets_over_one_fault_in_each_exchange(bench: Bench, name: str) -> None:
    plan = [
        rule
        for operation in ("PollForJobs", "AcknowledgeJob")
        for rule in once(operation, kinds_of(operation)[name])
    ]

    done = bench.work(plan)

    done.succeeds(struck=2)
    events = [one["event"] for one in done.events]
    assert events == ["polling", "claimed", "started", "reported", "succeeded", "stopped"]
    assert bench.results(done.job_id) == ["PutJobSuccessResult"]
    assert bench.aws.job(done.job_id).status == "Succeeded"


@pytest.mark.parametrize(("operation", "kinds"), faults("PollForJobs"))
def test_a_worker_without_polls_takes_no_job(bench: Bench, operation: str, kinds: Kinds) -> None:
    def check(kind: Kind) -> None:
        done = bench.work(always(operation, kind), "--retry-timeout", QUICK)

        done.fails(69)
        assert [one["event"] for one in done.events] == ["polling"]
        assert {one.request.operation for one in done.log} == {"PollForJobs"}
        assert bench.aws.job(done.job_id).status == ("Dispatched" if kind.applied else "Queued")

    each(kinds, check)


@pytest.mark.parametrize(("operation", "kinds"), faults("AcknowledgeJob"))
def test_a_worker_says_that_a_job_which_it_drops_may_be_its_own(
    bench: Bench, operation: str, kinds: Kinds
) -> None:
    def check(kind: Kind) -> None:
        done = bench.work(always(operation, kind), "--retry-timeout", QUICK)

        done.succeeds(struck=done.struck)
        assert [one["event"] for one in done.events] == ["polling", "dropped", "stopped"]
        assert bench.results(done.job_id) == []
        expected = "InProgress" if kind.applied else "Dispatched"
        assert bench.aws.job(done.job_id).status == expected
        assert _MAY_BE_OURS.search(done.message("dropped")), done.message("dropped")

    each(kinds, check)


# A job's process puts its result as ``run --report`` does, which every kind of fault strikes above.


@pytest.mark.parametrize(("operation", "kinds"), first_faults(*RESULTS))
def test_a_result_of_a_worker_gets_over_one_fault(
    bench: Bench, operation: str, kinds: Kinds
) -> None:
    def check(kind: Kind) -> None:
        done = bench.work(once(operation, kind), command=_COMMANDS[operation])

        done.succeeds()
        events = [one["event"] for one in done.events if one["event"] != "warning"]
        last = ["reported", "succeeded" if operation == RESULTS[0] else "failed", "stopped"]
        assert events == ["polling", "claimed", "started", *last]
        assert bench.results(done.job_id) == [operation]
        assert bench.aws.job(done.job_id).status == _STATUSES[operation]
        warned = [one["message"] for one in done.events if one["event"] == "warning"]
        assert bool(warned) == kind.applied
        assert all(COUNTS_AS_REPORTED in one for one in warned)

    each(kinds, check)


@pytest.mark.parametrize(("operation", "kinds"), first_faults(*RESULTS))
def test_a_result_of_a_worker_without_answers_is_told(
    bench: Bench, operation: str, kinds: Kinds
) -> None:
    def check(kind: Kind) -> None:
        plan = always(operation, kind)
        done = bench.work(plan, "--retry-timeout", QUICK, command=_COMMANDS[operation])

        done.succeeds(struck=done.struck)
        events = [one["event"] for one in done.events]
        assert events == ["polling", "claimed", "started", "report-failed", "failed", "stopped"]
        assert "may have put the result: look at the pipeline" in done.message("report-failed")
        assert bench.results(done.job_id) == ([operation] if kind.applied else [])
        expected = _STATUSES[operation] if kind.applied else "InProgress"
        assert bench.aws.job(done.job_id).status == expected

    each(kinds, check)
