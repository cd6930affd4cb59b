"""What holds for any job document: a job comes of it, or one error that quotes no secret.

Members are taken out of a whole document, or replaced by any JSON value; what is put in the place
of a secret holds a canary, whatever else it is.
"""

from __future__ import annotations

import copy
import json
import pickle
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpstage import CpstageError, Job, parse_job
from cpstage.errors import ConfigurationError
from cpstage.job import mask_document
from cpstage.job.model import MASK
from cpstage.transfer.manifest import record_of
from secret_markers import CANARY, is_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

pytestmark = pytest.mark.slow

_PROFILE = settings(derandomize=True, database=None, deadline=None, max_examples=300)

Path = tuple[str | int, ...]

LOCATION = {"type": "S3", "s3Location": {"bucketName": "bucket", "objectKey": "Pipeline/App/k.zip"}}
DOCUMENT: dict[str, Any] = {
    "id": "11111111-2222-3333-4444-555555555555",
    "nonce": "3",
    "accountId": "123456789012",
    "data": {
        "actionTypeId": {"category": "Build", "owner": "Custom", "provider": "P", "version": "1"},
        "actionConfiguration": {"configuration": {"Password": CANARY, "Url": CANARY}},
        "pipelineContext": {
            "pipelineName": "Pipeline",
            "stage": {"name": "Build"},
            "action": {"name": "Compile", "actionExecutionId": "action-execution"},
            "pipelineArn": "arn:aws:codepipeline:eu-central-1:123456789012:Pipeline",
            "pipelineExecutionId": "execution",
        },
        "inputArtifacts": [{"name": "App", "revision": "abc", "location": LOCATION}],
        "outputArtifacts": [{"name": "Built", "location": LOCATION}],
        "artifactCredentials": {
            "accessKeyId": "ASIA",
            "secretAccessKey": CANARY,
            "sessionToken": CANARY,
        },
        "continuationToken": CANARY,
        "encryptionKey": {"id": "key-id", "type": "KMS"},
    },
}
SECRET = {"artifactCredentials", "actionConfiguration", "continuationToken"}
"""Members of ``data`` with all that is in them."""


def _paths(value: object, path: Path = ()) -> list[Path]:
    """The places of all members and items."""
    inside: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = list(enumerate(value))
    return [
        found
        for name, one in inside
        for found in ((*path, name), *_paths(one, (*path, name)))
    ]  # fmt: skip


PATHS = _paths(DOCUMENT)


def _values(leaves: st.SearchStrategy[Any], keys: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=6,
    )


_NAMES = st.sampled_from(sorted({name for path in PATHS for name in path if isinstance(name, str)}))
_TEXTS = st.text(st.characters(codec=None), max_size=20) | st.sampled_from(
    [
        "",
        "..",
        "/",
        "a/b",
        "CON",
        "n" * 101,
        "arn:" * 6,
        "arn:aws:kms:::key/",
        "\x1b[2J",
        "\ud800",
        MASK,
    ]
)
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | _TEXTS
JSON = _values(_SCALARS, _NAMES | st.text(max_size=5))
PLANTED = _values(
    st.builds("{}{}{}".format, _TEXTS, st.just(CANARY), _TEXTS), st.just(CANARY) | _NAMES
)

SHAPES: Mapping[str, Callable[[Any], Any]] = {
    "get-job-details": lambda job: {"jobDetails": job},
    "polled": lambda job: job,
    "poll-for-jobs": lambda job: {"jobs": [job]},
    "lambda": lambda job: {"CodePipeline.job": job},
}


@st.composite
def documents(draw: st.DrawFn) -> Any:
    document = copy.deepcopy(DOCUMENT)
    for path in draw(st.lists(st.sampled_from(PATHS), max_size=3)):
        _change(draw, document, path)
    return SHAPES[draw(st.sampled_from(sorted(SHAPES)))](document)


def _change(draw: st.DrawFn, document: Any, path: Path) -> None:
    """Remove what is in a place or put something else there, if the place is still there."""
    *above, last = path
    parent = document
    for name in above:
        if not _has(parent, name):
            return
        parent = parent[name]
    if not _has(parent, last):
        return
    if draw(st.booleans()):
        parent[last] = draw(PLANTED if SECRET.intersection(map(str, path)) else JSON)
    else:
        del parent[last]


def _has(parent: object, name: str | int) -> bool:
    if isinstance(parent, list):
        return isinstance(name, int) and name < len(parent)
    return isinstance(parent, dict) and name in parent


def outcome(document: object) -> Job | ConfigurationError:
    try:
        return parse_job(document)
    except ConfigurationError as error:
        return error


def _said_of(job: Job) -> str:
    """All that is ever said or written of a job."""
    names = []
    for artifact in (*job.input_artifacts, *job.output_artifacts):
        try:
            names.append(artifact.location.file_name)
        except CpstageError as error:
            names.append(str(error))
    return f"{job} {job!r} {names} {job.region} {job.partition} {json.dumps(record_of(job))}"


@_PROFILE
@given(documents())
def test_a_document_is_a_job_or_one_error_without_its_secrets(document: Any) -> None:
    found = outcome(document)

    if isinstance(found, Job):
        assert not is_in(_said_of(found))
        assert repr(found).isprintable()
        return
    assert found.exit_code == 78
    assert str(found).isprintable()
    said = "".join(traceback.format_exception(found))
    assert not is_in(f"{found} {found!r} {said}")


@_PROFILE
@given(documents())
def test_a_masked_document_holds_no_secret_and_is_the_same_job(document: Any) -> None:
    before = pickle.dumps(document)
    with suppress(ConfigurationError):
        mask_document(document)
    assert pickle.dumps(document) == before
    found = outcome(document)
    if not isinstance(found, Job):
        return

    masked = mask_document(document)
    assert not is_in(json.dumps(_values_of(masked)))
    same = outcome(masked)
    if isinstance(same, Job):
        assert record_of(found) == record_of(same)
        assert set(found.action_configuration) <= set(same.action_configuration)


def _values_of(value: object) -> list[object]:
    """All that is not a name in a document: names of properties are no secrets."""
    if isinstance(value, dict):
        return [one for inner in value.values() for one in _values_of(inner)]
    if isinstance(value, list):
        return [one for inner in value for one in _values_of(inner)]
    return [value]


@_PROFILE
@given(JSON)
def test_any_value_is_refused_as_a_document_or_is_one(document: Any) -> None:
    found = outcome(document)

    if isinstance(found, ConfigurationError):
        assert str(found).isprintable()
