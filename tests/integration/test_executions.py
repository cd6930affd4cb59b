"""Past executions in place of a job: ``executions``, and ``--pipeline`` of the reading commands."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

import cpstage
from cpstage.errors import ConfigurationError, NotFound, UsageError
from cpstage.job.execution import ActionExecution, artifacts_of, parse_action, parse_pipeline
from cpstage.local import ActionRun, Input, LocalAWS
from cpstage.local.sample import PIPELINE, add_sample_history
from cpstage.local.server import DEBUGGER_ACTIONS
from samples import tar_of, zip_of

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import Cli

CONSOLE = "https://{region}.console.aws.amazon.com/codesuite/codepipeline/pipelines/"
SOURCE_TYPE = ("Source", "AWS", "S3", "1")
_PLACE = {"bucket": "b", "key": "k"}
UNKNOWN = "00000000-0000-0000-0000-000000000000"


@pytest.fixture(scope="module")
def failed(aws: LocalAWS) -> str:
    return add_sample_history(aws)


@pytest.fixture
def debug(aws: LocalAWS, cli: Cli) -> Cli:
    """A person who may read past executions and their artifacts."""
    return cli.with_variables(aws.debugger_environment)


def _source(*outputs: Input) -> ActionRun:
    return ActionRun("Source", "Source", outputs=outputs, action_type=SOURCE_TYPE)


def _names(directory: Path) -> list[str]:
    return sorted(str(one.relative_to(directory)) for one in directory.glob("*/*"))


def test_executions_are_listed_with_what_failed(aws: LocalAWS, debug: Cli, failed: str) -> None:
    done = debug("executions", PIPELINE)
    document = json.loads(debug("executions", PIPELINE, "--json").stdout)

    assert done.returncode == 0, done.stderr
    first, revision, error = done.stdout.splitlines()[:3]
    assert first.startswith(f"{failed}  Failed  20")
    assert first.endswith("1 min 05 s  WebhookV2 push to main")
    assert revision == "    Source: 9e07b44 Shorten the greeting"
    assert error.startswith("    failed: Build/BuildWithCpstage: JobFailed: The command exited")
    states = [one["status"] for one in document["executions"]]
    assert states == ["Failed", "Succeeded", "Succeeded"]
    assert document["executions"][0]["failed_actions"][0]["error_code"] == "JobFailed"
    assert [one.action for one in aws.calls() if one.identity == "debugger"].count(
        "ListActionExecutions"
    ) == 2  # fmt: skip


def test_a_list_has_a_limit_and_a_status(debug: Cli, failed: str) -> None:
    one = json.loads(debug("executions", PIPELINE, "--max", "1", "--json").stdout)
    good = json.loads(debug("executions", PIPELINE, "--status", "succeeded", "--json").stdout)
    none = debug("executions", PIPELINE, "--status", "Superseded")

    assert [found["id"] for found in one["executions"]] == [failed]
    assert [found["status"] for found in good["executions"]] == ["Succeeded"] * 2
    assert (none.returncode, none.stdout) == (0, "")
    assert "no Superseded executions" in none.stderr


@pytest.mark.parametrize("by", ["id", "short id", "url"])
def test_an_execution_is_described_by_its_actions(debug: Cli, failed: str, by: str) -> None:
    console = CONSOLE.format(region="us-east-1")
    url = f"{console}{PIPELINE}/executions/{failed}/timeline?region=us-east-1"
    arguments = {"id": (PIPELINE, failed), "short id": (PIPELINE, failed[:8]), "url": (url,)}

    done = debug("executions", *arguments[by])

    assert done.returncode == 0, done.stderr
    source, build = done.stdout.index("Source/Source"), done.stdout.index("Build/BuildWithCpstage")
    assert done.stdout.startswith(failed)
    assert source < build
    for text in (
        "error   JobFailed: The command exited with code 1",
        "url     https://ci.example.com/job/greeter/417/",
        "input   AppSource at s3://",
        "output  AppReport at s3://",
        "Build/Custom/CpstageLocal/1",
    ):
        assert text in done.stdout
    assert "not-a-real-secret" not in done.stdout + done.stderr


def test_the_failed_action_is_staged_by_one_command(aws: LocalAWS, debug: Cli, failed: str) -> None:
    url = f"{CONSOLE.format(region='us-east-1')}{PIPELINE}/executions/{failed}/visualization"

    done = debug("fetch", "--pipeline", url, "--failed-action", "--json")
    again = debug("fetch", "--pipeline", PIPELINE, "--failed", "--action", "BuildWithCpstage")

    assert done.returncode == 0, done.stderr
    place = debug.directory
    assert _names(place / "in")[:3] == [
        *("AppConfig/logging.ini", "AppConfig/settings.json", "AppSource/.editorconfig")
    ]
    assert _names(place / "made") == ["AppReport/tests.json", "AppReport/tests.txt"]
    assert (place / "out/AppReport").is_dir()
    document = json.loads(done.stdout)
    assert document["read_with"] == "caller"
    assert (document["execution_id"], document["action"]) == (failed, "BuildWithCpstage")
    assert [one["name"] for one in document["made"]] == ["AppReport"]
    assert f"execution {failed}" in done.stderr
    assert "the caller's credentials read the artifacts" in done.stderr
    manifest = json.loads((place / ".cpstage/manifest.json").read_text())
    roles = {name: one["role"] for name, one in manifest["artifacts"].items()}
    assert roles == {"AppSource": "input", "AppConfig": "input", "AppReport": "made"}
    assert json.loads((place / ".cpstage/job.json").read_text())["read_with"] == "caller"
    assert {line.partition("\t")[0] for line in again.stdout.splitlines()} == {
        "unchanged",
        "output",
    }
    reads = [one for one in aws.calls() if one.action == "GetObject"]
    assert {one.identity for one in reads} == {"debugger"}


def test_all_artifacts_of_an_execution_are_staged_once(debug: Cli, failed: str) -> None:
    done = debug("fetch", "--pipeline", PIPELINE, "--execution", failed[:8], "--json")

    document = json.loads(done.stdout)
    assert document["inputs"] == []
    names = [one["name"] for one in document["made"]]
    assert names == ["AppSource", "AppConfig", "AppReport"]
    assert not (debug.directory / "in").exists()
    assert document["outputs"] == {}
    shown = json.loads(debug("diff", "--pipeline", PIPELINE, "--json").stdout)
    assert (shown["same"], shown["read_with"]) == (True, "caller")


def test_the_environment_of_a_past_build_names_no_job(debug: Cli, failed: str) -> None:
    assert failed
    debug("fetch", "--pipeline", PIPELINE, "--failed-action")

    variables = json.loads(debug("env", "--format", "json").stdout)

    assert variables["CPSTAGE_IN_APPSOURCE"] == str(debug.directory / "in/AppSource")
    assert variables["CPSTAGE_OUT_APPREPORT"] == str(debug.directory / "out/AppReport")
    assert variables["CPSTAGE_ACTION"] == "BuildWithCpstage"
    assert "CPSTAGE_JOB_ID" not in variables


def test_show_shows_objects_and_values_that_are_not_secret(debug: Cli, failed: str) -> None:
    done = debug("show", "--pipeline", PIPELINE, "--execution", failed, "--failed-action")
    document = json.loads(debug("show", "--pipeline", PIPELINE, "--json").stdout)

    assert done.returncode == 0, done.stderr
    for text in (
        "Status        Failed",
        "Revision      Source 9e07b44 Shorten the greeting",
        "Configuration Target = zipapp",
        "Configuration DeployToken = ********",
        "the caller's own read the objects",
        "storage class STANDARD",
        "Output        AppReport",
    ):
        assert text in done.stdout
    assert "not-a-real-secret" not in done.stdout + done.stderr
    assert [one["format"] for one in document["outputs"]] == ["zip", "tar.gz", "zip"]
    assert document["outputs"][0]["last_modified"].startswith("20")


def test_show_of_a_job_asks_which_values_are_secret(aws: LocalAWS, debug: Cli) -> None:
    kind = ("Test", "Custom", "Shown", "1")
    aws.action_types[kind] = {"Target": False, "Password": True}
    values = {"Target": "release", "Password": "canary-1", "Other": "canary-2"}
    job_id = aws.add_job(category="Test", provider="Shown", configuration=values)
    actions = DEBUGGER_ACTIONS | {"codepipeline:GetJobDetails"}

    allowed = debug.with_variables(aws.add_user("allowed", actions))("show", job_id)
    denied = debug.with_variables(aws.environment)("show", job_id)

    assert "Configuration Target = release" in allowed.stdout
    assert "Configuration Password = ********" in allowed.stdout
    assert "Configuration Other = ********" in allowed.stdout
    assert "Configuration Target = ********" in denied.stdout
    assert "canary" not in allowed.stdout + denied.stdout


def test_doctor_reads_and_uploads_nothing(aws: LocalAWS, debug: Cli, failed: str) -> None:
    before = len(aws.calls())

    done = debug("doctor", "--pipeline", PIPELINE, "--execution", failed, "--failed-action")

    assert done.returncode == 0, done.stdout
    assert "ok       input AppSource: " in done.stdout
    assert "ok       output AppReport: " in done.stdout
    whole = debug("doctor", "--pipeline", PIPELINE).stdout
    assert f"ok       job: {failed} of {PIPELINE}\n" in whole
    assert "CreateMultipartUpload" not in {one.action for one in aws.calls()[before:]}


def test_members_are_found_in_all_artifacts(debug: Cli, failed: str) -> None:
    assert failed
    listed = json.loads(debug("ls", "--pipeline", PIPELINE, "**/*.json", "--json").stdout)
    texts = debug("cat", "--pipeline", PIPELINE, "AppReport", "tests.json", "*.txt")
    missing = debug("ls", "--pipeline", PIPELINE, "*.jar")

    found = {
        one["name"]: [entry["name"] for entry in one["entries"]] for one in listed["artifacts"]
    }
    assert found == {"AppConfig": ["settings.json"], "AppReport": ["tests.json"]}
    assert listed["artifacts"][1]["entries"][0]["mtime"].startswith("2020-01-01T")
    assert texts.stdout == '{"passed": false}\nFAIL: test_greeting\n'
    assert (missing.returncode, "no member matches '*.jar'" in missing.stderr) == (66, True)


def test_a_retried_action_is_its_last_attempt(aws: LocalAWS, debug: Cli) -> None:
    first = ActionRun(
        "Build", inputs=("App",), outputs=(Input("Log", b"first", ""),), status="Failed"
    )
    again = ActionRun("Build", inputs=("App",), outputs=(Input("Log", b"again", ""),))
    source = _source(Input("App", zip_of({"f": "x"})))
    execution = aws.history.add("retried", [source, first, again])

    done = debug("fetch", "--pipeline", "retried", "--action", "Build", "--json")
    listed = debug("executions", "retried", execution)

    made = json.loads(done.stdout)["made"]
    assert [one["name"] for one in made] == ["Log"]
    (log,) = (debug.directory / "made/Log").iterdir()
    assert log.read_text() == "again"
    assert listed.stdout.count("Build/Build") == 2


def test_artifacts_of_equal_names_are_told_apart(aws: LocalAWS, debug: Cli) -> None:
    source = _source(Input("App", zip_of({"source": "x"})))
    builds = [
        ActionRun(f"Build-{name}", inputs=("App",), outputs=(Input("Out", zip_of({name: name})),))
        for name in ("linux", "mac")
    ]
    # Two actions of one name, in two stages.
    tests = [
        ActionRun("Check", stage, ("App",), (Input("Report", zip_of({stage: "x"})),))
        for stage in ("Unit", "System")
    ]
    aws.history.add("equal", [source, *builds, *tests])

    done = debug("fetch", "--pipeline", "equal", "--json")
    one = debug("ls", "--pipeline", "equal", "--action", "Build-mac", "Out", "--json")
    unclear = debug("ls", "--pipeline", "equal", "--action", "Check")
    clear = debug("fetch", "--pipeline", "equal", "--action", "Unit/Check", "-w", "unit")

    assert [one["name"] for one in json.loads(done.stdout)["made"]] == [
        "App",
        "Out@Build-linux",
        "Out@Build-mac",
        "Report@Unit.Check",
        "Report@System.Check",
    ]
    assert (debug.directory / "made/Out@Build-mac/mac").read_text() == "mac"
    assert json.loads(one.stdout)["artifacts"][0]["entries"][0]["name"] == "mac"
    assert unclear.returncode == 2
    assert "give Unit/Check or System/Check" in unclear.stderr
    assert clear.returncode == 0, clear.stderr
    assert (debug.directory / "unit/made/Report/Unit").exists()


def test_an_action_in_another_region_is_read_there(aws: LocalAWS, debug: Cli) -> None:
    source = _source(Input("App", zip_of({"f": "x"})))
    abroad = ActionRun(
        "Deploy", "Deploy", ("App",), (Input("Done", zip_of({"g": "y"}), ""),), region="eu-west-1"
    )
    aws.history.add("abroad", [source, abroad])

    one = debug("fetch", "--pipeline", "abroad", "--action", "Deploy", "--json", "-w", "one")
    every = debug("fetch", "--pipeline", "abroad", "--json", "-w", "every")
    shown = json.loads(debug("show", "--pipeline", "abroad", "--action", "Deploy", "--json").stdout)

    assert one.returncode == 0, one.stderr
    assert [found["location"]["bucket"] for found in json.loads(one.stdout)["inputs"]] == [
        "codepipeline-eu-west-1-123456789012"
    ]
    assert (debug.directory / "one/made/Done/g").read_text() == "y"
    assert ":eu-west-1:" in shown["encryption_key"]["id"]
    assert [found["name"] for found in json.loads(every.stdout)["made"]] == ["App", "Done"]


def test_the_latest_of_parallel_executions_is_taken_on_a_later_page(
    aws: LocalAWS, debug: Cli
) -> None:
    run = [_source(Input("App", b"x", "")), ActionRun("Build", status="Failed")]
    wanted = aws.history.add("parallel", run, status="Failed", mode="PARALLEL")
    for _ in range(104):
        aws.history.add("parallel", [], mode="PARALLEL")

    failed = json.loads(debug("show", "--pipeline", "parallel", "--failed", "--json").stdout)
    short = json.loads(
        debug("show", "--pipeline", "parallel", "--execution", wanted[:12], "--json").stdout
    )
    latest = debug("show", "--pipeline", "parallel", "--json")

    assert failed["id"] == short["id"] == wanted
    assert json.loads(latest.stdout)["outputs"] == []


def test_what_is_not_there_is_named_with_what_there_is(
    aws: LocalAWS, debug: Cli, failed: str
) -> None:
    approval = ActionRun("Approve", "Deploy", action_type=("Approval", "AWS", "Manual", "1"))
    mine = aws.history.add("release", [_source(), approval])
    year = 365 * 24 * 3600
    old = aws.history.add("release", [_source()], started=time.time() - year - 60)

    def refused(*options: str) -> str:
        done = debug("fetch", "--pipeline", *options)
        assert done.returncode == 66, done.stderr
        assert done.stdout == ""
        return done.stderr

    assert f"did you mean {PIPELINE}?" in refused("sample-pipelin")
    assert f"there are: {mine} (Succeeded)" in refused("release", "--execution", UNKNOWN)
    for gone in (failed, old, "no-id"):
        assert f"has no execution '{gone}'" in refused("release", "--execution", gone)
    assert "CodePipeline keeps executions for 12 months" in refused("release", "--execution", old)
    said = refused(PIPELINE, "--action", "BuildWithCpstag")
    assert "did you mean BuildWithCpstage? its actions are: Source/Source, Build/Build" in said
    assert "action Deploy/Approve of execution" in refused("release", "--action", "Approve")
    assert "has no artifacts" in refused("release", "--action", "Approve")
    assert "its actions are: Source/Source (Succeeded)" in refused("release", "--failed-action")
    assert "pipeline release has no failed executions" in refused("release", "--failed")
    assert not (debug.directory / ".cpstage").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--execution", "x"], "--execution is given without --pipeline"),
        (["--pipeline", "p", "--failed", "--execution", "x"], "both --execution and --failed"),
        (["--pipeline", "p", "--action", "x", "--failed-action"], "both --action and --failed-a"),
        (["--pipeline", ""], "--pipeline is empty"),
        (["--pipeline", "a/b"], "'a/b' is not a pipeline"),
        (["--pipeline", "https://example.com/pipelines/p"], "is not a pipeline"),
        (["JOB", "--pipeline", "p"], "both JOB_ID and --pipeline"),
        (["--job-file", "f", "--pipeline", "p"], "both --job-file and --pipeline"),
        (
            ["--pipeline", "arn:aws:codepipeline:eu-west-1:1:p", "--region", "us-east-1"],
            "the pipeline is in eu-west-1, and the region that is given is us-east-1",
        ),
    ],
)
def test_options_that_contradict_each_other(debug: Cli, arguments: list[str], words: str) -> None:
    done = debug("fetch", *arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [("push",), ("run", "--", "true"), ("report", "success"), ("credentials",), ("env",)],
    ids=lambda command: str(command[0]),
)
def test_commands_that_need_a_job_say_why(debug: Cli, command: tuple[str, ...]) -> None:
    options = ("--pipeline", PIPELINE, "--failed")
    at = command.index("--") if "--" in command else len(command)

    done = debug(*command[:at], *options, *command[at:])

    assert (done.returncode, done.stdout) == (2, "")
    assert "needs a job in progress: only a job has a session" in done.stderr


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("codepipeline:ListPipelineExecutions", "codepipeline:ListPipelineExecutions"),
        ("codepipeline:ListActionExecutions", "codepipeline:ListActionExecutions"),
        ("s3:GetObject", "the caller needs s3:GetObject on it and kms:Decrypt"),
        ("kms:Decrypt", "the caller needs s3:GetObject on it and kms:Decrypt"),
    ],
)
def test_a_missing_permission_is_named(
    aws: LocalAWS, debug: Cli, failed: str, missing: str, words: str
) -> None:
    user = aws.add_user("without", DEBUGGER_ACTIONS - {missing})

    done = debug.with_variables(user)("fetch", "--pipeline", PIPELINE, "--execution", failed)

    assert done.returncode == 77
    assert words in done.stderr


def test_get_pipeline_and_list_pipelines_may_be_denied(
    aws: LocalAWS, debug: Cli, failed: str
) -> None:
    few = {"ListPipelineExecutions", "ListActionExecutions"}
    user = aws.add_user(
        "few", {f"codepipeline:{one}" for one in few} | {"s3:GetObject", "kms:Decrypt"}
    )
    person = debug.with_variables(user)

    done = person("fetch", "--pipeline", PIPELINE, "--execution", failed)
    unknown = person("fetch", "--pipeline", "missing")

    assert done.returncode == 0, done.stderr
    assert unknown.returncode == 66


def test_removed_objects_are_named_and_skipped(aws: LocalAWS, debug: Cli) -> None:
    kept = Input("Kept", zip_of({"f": "x"}))
    gone = [Input("Gone", None), Input("Lost", None)]
    aws.history.add("expired", [_source(kept, *gone)])

    whole = debug("fetch", "--pipeline", "expired")
    rest = debug("fetch", "--pipeline", "expired", "--skip-missing", "--json")
    listed = debug("ls", "--pipeline", "expired", "--skip-missing")
    nothing = debug("fetch", "--pipeline", "expired", "--artifact", "Gone", "--skip-missing")

    assert whole.returncode == 66
    for name in ("Gone", "Lost"):
        assert f"the object of artifact {name} at s3://" in whole.stderr
    assert "2 objects do not exist any more" in whole.stderr
    assert "--skip-missing stages the rest" in whole.stderr
    document = json.loads(rest.stdout)
    assert [one["name"] for one in document["made"]] == ["Kept"]
    assert [one["name"] for one in document["missing"]] == ["Gone", "Lost"]
    assert rest.stderr.count("does not exist any more") == 2
    assert (listed.returncode, listed.stdout.startswith("Kept: zip")) == (0, True)
    assert nothing.returncode == 66


def test_a_job_is_never_read_by_the_caller(aws: LocalAWS, debug: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))], session_actions=frozenset())
    user = aws.add_user("both", DEBUGGER_ACTIONS | {"codepipeline:GetJobDetails"})
    before = len(aws.calls())

    done = debug.with_variables(user)("fetch", job_id)

    assert done.returncode == 77
    reads = [one for one in aws.calls()[before:] if one.service == "s3"]
    assert {one.identity for one in reads} == {f"job:{job_id}"}


def test_names_of_a_hostile_service_do_not_lead_out_of_the_workspace() -> None:
    def action(stage: str, name: str, key: str) -> ActionExecution:
        made = {"name": "App", "s3location": {"bucket": "b", "key": key}}
        document = {"stageName": stage, "actionName": name, "output": {"outputArtifacts": [made]}}
        return parse_action(document)

    hostile = [
        action("S", "../../up", "1"),
        action("S", "../../up", "2"),
        action("..", "x" * 999, "3"),
    ]

    _, found = artifacts_of(hostile)

    names = [str(one.name) for one in found]
    assert len({*names}) == 3
    assert not any("/" in name or len(name) > 255 for name in names)
    assert names[0].startswith("App@S..._.._up")
    with pytest.raises(ConfigurationError):
        parse_action({"input": {"inputArtifacts": [{"name": "../x", "s3location": _PLACE}]}})


def test_an_execution_in_python(aws: LocalAWS, failed: str, tmp_path: Path) -> None:
    environment = aws.debugger_environment
    config = cpstage.AwsConfig(
        region=aws.region, endpoint_url=aws.endpoint_url, session=_session(environment)
    )

    execution = cpstage.inspect.get_execution(
        PIPELINE, failed, action="BuildWithCpstage", config=config
    )
    result = cpstage.fetch(execution, tmp_path, config=config)
    listed = [*cpstage.inspect.list_executions(PIPELINE, config=config)]

    assert execution.read_with == "caller"
    assert [one.name for one in execution.input_artifacts] == ["AppSource", "AppConfig"]
    assert [one.artifact.name for one in result.made] == ["AppReport"]
    assert listed[0] == execution.summary
    assert "not-a-real-secret" not in repr(execution)
    with pytest.raises(NotFound):
        cpstage.inspect.get_execution(PIPELINE, UNKNOWN, config=config)
    with pytest.raises(UsageError):
        cpstage.inspect.get_execution(PIPELINE, action="x", failed_action=True, config=config)


def _session(environment: dict[str, str]) -> Any:
    import boto3

    return boto3.Session(
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )


def test_a_merged_layout_keeps_what_was_made_apart(aws: LocalAWS, debug: Cli) -> None:
    source = _source(Input("App", tar_of({"f": "x"}), ".tar"))
    build = ActionRun("Build", inputs=("App",), outputs=(Input("Out", zip_of({"g": "y"}), ""),))
    aws.history.add("merged", [source, build])
    command = ("fetch", "--pipeline", "merged", "--action", "Build", "--layout", "merged")

    first, again = debug(*command), debug(*command)

    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert (debug.directory / "in/f").read_text() == "x"
    assert (debug.directory / "made/g").read_text() == "y"
    assert again.stdout.count("unchanged") == 2


def test_a_link_in_place_of_made_is_refused(debug: Cli, failed: str, tmp_path: Path) -> None:
    (debug.directory / "made").symlink_to(tmp_path)

    done = debug("fetch", "--pipeline", PIPELINE, "--execution", failed)

    assert done.returncode == 73
    assert "is in the way of a directory" in done.stderr
    assert not (tmp_path / "AppReport").exists()


def test_urls_and_arns_name_a_pipeline() -> None:
    console = CONSOLE.format(region="eu-central-1")
    china = "https://cn-north-1.console.amazonaws.cn/codesuite/codepipeline/pipelines/p/view"
    account = "https://123456789012-abc.us-west-2.console.aws.amazon.com/codesuite/codepipeline"

    assert parse_pipeline("my.pipe@line_1-2").name == "my.pipe@line_1-2"
    found = parse_pipeline(f"{console}p/executions/1-2/visualization?region=eu-central-1")
    assert (found.name, found.region, found.execution_id) == ("p", "eu-central-1", "1-2")
    assert parse_pipeline(f"{console}a%40b/view").name == "a@b"
    assert parse_pipeline(f"{console}p/executions?region=us-east-2").region == "us-east-2"
    assert parse_pipeline(china).region == "cn-north-1"
    assert parse_pipeline(f"{account}/pipelines/p/view").region == "us-west-2"
    bare = "https://console.aws.amazon.com/codesuite/codepipeline/pipelines/p/view"
    assert parse_pipeline(bare).region is None
    assert parse_pipeline("arn:aws:codepipeline:us-east-1:1:p").region == "us-east-1"
    for bad in (
        "https://console.aws.amazon.com.example.com/codesuite/codepipeline/pipelines/p/view",
        "http://console.aws.amazon.com/codesuite/codepipeline/pipelines/p/view",
        "arn:aws:s3:::p",
        "https://[",
        "a b",
    ):
        with pytest.raises(UsageError):
            parse_pipeline(bad)


def test_objects_that_the_caller_may_not_read_are_known_by_their_names(
    aws: LocalAWS, debug: Cli
) -> None:
    aws.history.add("shown", [_source(Input("App", zip_of({"f": "x"})))])
    user = aws.add_user("no-s3", DEBUGGER_ACTIONS - {"s3:GetObject"})

    done = debug.with_variables(user)("show", "--pipeline", "shown")

    assert done.returncode == 0
    assert "error       cannot read artifact App at s3://" in done.stdout
