"""Past executions of pipelines: what ListPipelineExecutions and ListActionExecutions tell.

A pipeline has executions, an execution has runs of actions, and a run has input and output
artifacts. :class:`History` keeps them, and puts the artifacts' objects into the pipeline's buckets:
one bucket for each region that has an action.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cpstage.local.jobs import Artifact, Input

HISTORY_SECONDS = 365 * 24 * 3600.0
"""How long CodePipeline keeps executions (CodePipeline User Guide, quotas)."""

_HOUR = 3600.0


@dataclass(frozen=True)
class ActionRun:
    """One attempt of an action in a past execution.

    Attributes:
        name: The action's name.
        stage: The stage's name.
        inputs: Input artifacts, by the names that earlier actions of the execution gave them.
        outputs: Output artifacts; one with ``body=None`` has lost its object.
        status: ``InProgress``, ``Abandoned``, ``Succeeded`` or ``Failed``.
        action_type: Category, owner, provider and version.
        configuration: The action's configuration.
        region: The action's region; the pipeline's if None.
        seconds: How long it took.
        error: Code and message of its failure.
        external_id: The id that the provider gave it.
        external_url: Where the provider shows it.
        summary: What the provider said of it.
    """

    name: str
    stage: str = "Build"
    inputs: tuple[str, ...] = ()
    outputs: tuple[Input, ...] = ()
    status: str = "Succeeded"
    action_type: tuple[str, str, str, str] = ("Build", "AWS", "CodeBuild", "1")
    configuration: Mapping[str, str] = field(default_factory=dict, repr=False)
    region: str | None = None
    seconds: float = 60.0
    error: tuple[str, str] | None = None
    external_id: str | None = None
    external_url: str | None = None
    summary: str | None = None


@dataclass(frozen=True)
class Revision:
    """A source revision of an execution."""

    action: str
    id: str
    summary: str = ""
    url: str = ""


@dataclass(frozen=True)
class KeptRun:
    """A run of an action with what the history adds to it."""

    run: ActionRun
    id: str
    started: float
    inputs: tuple[Artifact, ...]
    outputs: tuple[Artifact, ...]


@dataclass(frozen=True)
class KeptExecution:
    """One execution of a pipeline, its runs oldest first."""

    id: str
    status: str
    started: float
    updated: float
    revisions: tuple[Revision, ...]
    trigger: tuple[str, str]
    mode: str
    type: str
    status_summary: str | None
    stop_reason: str | None
    runs: tuple[KeptRun, ...]


class History:
    """The executions of all pipelines of one region.

    Args:
        region: The region of the pipelines.
        bucket_of: Returns the artifact bucket of a region, and makes it where it is missing.
        store: Puts the object of an artifact into its bucket: artifact, region, body, content type.
        place: Returns bucket and key of a new artifact of a pipeline in a bucket.
    """

    def __init__(
        self,
        region: str,
        *,
        bucket_of: Callable[[str], str],
        store: Callable[[Artifact, str, Input], None],
        place: Callable[[str, Input, str], Artifact],
    ) -> None:
        self.region = region
        self._bucket_of = bucket_of
        self._store = store
        self._place = place
        self._lock = threading.Lock()
        self._pipelines: dict[str, list[KeptExecution]] = {}

    def pipelines(self) -> list[str]:
        """Return the names of the pipelines."""
        return sorted(self._pipelines)

    def executions(self, pipeline: str) -> list[KeptExecution] | None:
        """Return what is kept of a pipeline's executions, newest first; None for no pipeline."""
        found = self._pipelines.get(pipeline)
        if found is None:
            return None
        oldest = time.time() - HISTORY_SECONDS
        return sorted((one for one in found if one.started >= oldest), key=lambda one: -one.started)

    def add_pipeline(self, name: str) -> None:
        """Add a pipeline without executions."""
        with self._lock:
            self._pipelines.setdefault(name, [])

    def add(
        self,
        pipeline: str,
        runs: Sequence[ActionRun],
        *,
        status: str = "Succeeded",
        started: float | None = None,
        revisions: Sequence[Revision] = (),
        trigger: tuple[str, str] = ("StartPipelineExecution", ""),
        mode: str = "SUPERSEDED",
        kind: str = "STANDARD",
        status_summary: str | None = None,
        stop_reason: str | None = None,
    ) -> str:
        """Add an execution, and store the objects of its artifacts; return its id."""
        self.add_pipeline(pipeline)
        with self._lock:
            began = started if started is not None else self._next_start(pipeline)
            kept = self._keep(pipeline, runs, began)
            execution = KeptExecution(
                id=str(uuid.uuid4()),
                status=status,
                started=began,
                updated=began + sum(run.seconds for run in runs),
                revisions=tuple(revisions),
                trigger=trigger,
                mode=mode,
                type=kind,
                status_summary=status_summary,
                stop_reason=stop_reason,
                runs=tuple(kept),
            )
            self._pipelines[pipeline].append(execution)
        return execution.id

    def _next_start(self, pipeline: str) -> float:
        """Return a time later than that of every other execution of the pipeline."""
        latest = [one.started for one in self._pipelines[pipeline]]
        return max(latest) + 1 if latest else time.time() - _HOUR

    def _keep(self, pipeline: str, runs: Sequence[ActionRun], began: float) -> list[KeptRun]:
        made: dict[str, tuple[Artifact, Input]] = {}
        kept = []
        for run in runs:
            region = run.region or self.region
            bucket = self._bucket_of(region)
            inputs = tuple(self._input(made, name, region, bucket) for name in run.inputs)
            outputs = []
            for item in run.outputs:
                artifact = self._place(pipeline, item, bucket)
                if item.body is not None:
                    self._store(artifact, region, item)
                outputs.append(artifact)
                made[item.name] = (artifact, item)
            kept.append(KeptRun(run, str(uuid.uuid4()), began, inputs, tuple(outputs)))
            began += run.seconds
        return kept

    def _input(
        self, made: Mapping[str, tuple[Artifact, Input]], name: str, region: str, bucket: str
    ) -> Artifact:
        """Return an input; CodePipeline copies it into the bucket of the action's region."""
        if name not in made:
            raise ValueError(f"no earlier action of the execution made an artifact {name}")
        artifact, item = made[name]
        if artifact.bucket == bucket or item.bucket is not None:
            return artifact
        copy = Artifact(name, bucket, artifact.key, artifact.revision)
        if item.body is not None:
            self._store(copy, region, item)
        return copy
