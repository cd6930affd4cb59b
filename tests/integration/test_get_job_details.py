"""``cpstage get-job-details`` beside the real ``aws codepipeline get-job-details``."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator

import cpstage
from command_line import Cli, forks
from cpstage.local import Input, LocalAWS
from stalled_server import stalling_server
from terminals import on_terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.slow

SECRETS = {
    "Password": "pl4nted-secret",
    "Ünïcode": "pl4nted-größe-日本語-😀",
    "Quotes": "pl4nted \"double\" 'single' `tick` \\back",
    "Lines": "pl4nted\tone\npl4nted two\r\n",
    "Escape": "pl4nted \x1b[31mred\x1b[0m",
    "Json": '{"pl4nted": [1, 2]}',
    "Long": "pl4nted" * 40,
}
TOKEN = "pl4nted-continuation"
_SESSION = re.compile(r"ASIA[A-Z0-9]{16}|[A-Za-z0-9+/]{40,}")
"""Session credentials, which are new with each call and as long as ever."""
_SOURCE_FILE = re.compile(r'File "[^"]+"')
"""Where a line of a traceback stands: a path may be as long as a credential."""

Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def rich(aws: LocalAWS) -> str:
    """A job with everything that a job can have, and awkward values."""
    return aws.add_job(
        [Input("AppSource", revision="0a1b2c"), Input("AppConfig")],
        ["AppBuild", "Report"],
        configuration={**SECRETS, "Empty": ""},
        continuation_token=TOKEN,
    )


@pytest.fixture(scope="module")
def bare(aws: LocalAWS) -> str:
    """A job with nothing that a job can do without."""
    return aws.add_job(encryption_key=None)


@pytest.fixture(scope="module")
def third_party(aws: LocalAWS) -> tuple[str, str]:
    """A third-party job, and its client token."""
    job_id = aws.add_job([Input("AppSource")], ["AppBuild"], third_party=True)
    return job_id, aws.job(job_id).client_token or ""


def ours(cli: Cli, *arguments: str, **environment: str) -> Done:
    changed = Cli({**cli.environment, **environment}, cli.directory)
    return changed("get-job-details", *arguments)


def side_by_side(
    cli: Cli, *arguments: str, also: Sequence[str] = (), operation: str = "get-job-details"
) -> tuple[Done, Done]:
    """Run the AWS CLI and cpstage at the same time, as the same caller; ``also`` is for cpstage."""
    command = ["codepipeline", operation, *arguments]
    with ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(forks("aws").run, command, cli.directory, cli.environment)
        done = ours(cli, *arguments, *also)
        return theirs.result(), done


def _aws_program() -> str:
    beside_python = Path(sys.executable).with_name("aws")
    program = str(beside_python) if beside_python.exists() else shutil.which("aws")
    if program is None:
        pytest.fail("the AWS CLI is missing: pip install awscli")
    return program


def same_session(text: str) -> str:
    return _SESSION.sub(lambda found: "X" * len(found.group()), text)


def assert_one_line(text: str) -> None:
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert text.startswith("cpstage: ")


def details_calls(aws: LocalAWS) -> int:
    return sum(call.action.endswith("JobDetails") for call in aws.calls())


# The same document


@pytest.mark.parametrize("output", ["json", "text", "table"])
@pytest.mark.parametrize("job", ["rich", "bare"])
def test_revealed_documents_equal_the_aws_clis(
    cli: Cli, job: str, output: str, request: pytest.FixtureRequest
) -> None:
    arguments = ["--job-id", request.getfixturevalue(job), "--output", output]

    theirs, done = side_by_side(cli, *arguments, also=["--reveal-secrets"])

    assert theirs.returncode == done.returncode == 0, theirs.stderr + done.stderr
    assert same_session(done.stdout) == same_session(theirs.stdout)
    assert _SESSION.search(done.stdout)
    assert done.stderr == ""


@pytest.mark.parametrize("output", ["json", "table"])
def test_revealed_third_party_documents_equal_the_aws_clis(
    cli: Cli, third_party: tuple[str, str], output: str
) -> None:
    job_id, token = third_party
    arguments = ["--job-id", job_id, "--client-token", token, "--output", output]

    theirs, done = side_by_side(
        cli, *arguments, also=["--reveal-secrets"], operation="get-third-party-job-details"
    )

    assert theirs.returncode == done.returncode == 0, theirs.stderr + done.stderr
    assert same_session(done.stdout) == same_session(theirs.stdout)


@pytest.mark.parametrize(
    ("output", "query"),
    [
        ("json", "jobDetails.data.actionConfiguration"),
        ("json", "jobDetails.data.inputArtifacts[?name=='AppConfig'].location.s3Location | [0]"),
        ("json", "`{}`"),
        ("json", "length(jobDetails.data.outputArtifacts) > `1`"),
        ("text", "jobDetails.id"),
        ("text", "jobDetails.data.inputArtifacts[].[name, revision, location.type]"),
        ("text", "[jobDetails.id, `true`, `1.50`, `null`, jobDetails.data.outputArtifacts[].name]"),
        ("text", "jobDetails.data.[actionTypeId, pipelineContext.stage]"),
        ("text", "jobDetails.data.nothing"),
        ("table", "jobDetails.data.inputArtifacts[].{Name: name, Revision: revision, On: `true`}"),
        ("table", "jobDetails.data.[inputArtifacts[0].name, pipelineContext.stage.name]"),
        ("table", "jobDetails.data.*[].name | [[0], [1]] | []"),
        ("table", "jobDetails.data.[[inputArtifacts[0].name, `1`], [`null`, encryptionKey.type]]"),
        (
            "table",
            'jobDetails.data.actionConfiguration.configuration.{"Ü": "Ünïcode", Lines: Lines}',
        ),
        ("table", "jobDetails.data.encryptionKey.type"),
        ("table", "jobDetails.data.nothing"),
    ],
)
def test_queries_print_what_the_aws_cli_prints(
    cli: Cli, rich: str, output: str, query: str
) -> None:
    arguments = ["--job-id", rich, "--output", output, "--query", query]

    theirs, done = side_by_side(cli, *arguments, also=["--reveal-secrets"])

    assert theirs.returncode == done.returncode == 0, theirs.stderr + done.stderr
    assert done.stdout == theirs.stdout


def test_a_wide_terminal_keeps_the_tables_that_the_aws_cli_keeps(cli: Cli, rich: str) -> None:
    query = "jobDetails.data.{A: actionTypeId, B: pipelineContext, C: inputArtifacts}"
    arguments = ["--job-id", rich, "--output", "table", "--color", "off", "--query", query]
    program, ours = [_aws_program(), "codepipeline"], ["-q", "--reveal-secrets"]

    theirs = on_terminal(cli, "get-job-details", *arguments, program=program, columns=250)
    done = on_terminal(cli, "get-job-details", *ours, *arguments, columns=250)

    assert theirs.returncode == 0
    assert done[:2] == theirs[:2]
    assert re.search("category .* owner .* provider", done.terminal)


# Secrets


@pytest.mark.parametrize(
    "arguments",
    [
        ["--output", "json"],
        ["--output", "text", "--mask", "-v"],
        ["--output", "table", "--debug"],
        ["--json", "--query", "jobDetails.data.[artifactCredentials, actionConfiguration]"],
        ["--output", "text", "--mask", "--query", "jobDetails.data.actionConfiguration"],
        ["--debug", "-v", "--query", "abs(jobDetails.data.continuationToken)"],
    ],
    ids=" ".join,
)
def test_no_planted_secret_is_printed_unless_revealed(
    cli: Cli, rich: str, arguments: list[str]
) -> None:
    done = ours(cli, "--job-id", rich, *arguments)

    for text in (done.stdout, done.stderr):
        assert "pl4nted" not in text
        assert not _SESSION.search(_SOURCE_FILE.sub("", text))
    assert "cpstage: secrets are masked; --reveal-secrets shows them\n" in done.stderr


def test_a_masked_document_is_otherwise_the_real_one(cli: Cli, rich: str) -> None:
    masked, revealed = (ours(cli, "--job-id", rich, *more) for more in ([], ["--reveal-secrets"]))

    document = json.loads(masked.stdout)
    assert document == cpstage.job.mask_document(json.loads(revealed.stdout))
    data = document["jobDetails"]["data"]
    assert set(data["artifactCredentials"].values()) == {"********"}
    assert data["continuationToken"] == "********"
    configuration = data["actionConfiguration"]["configuration"]
    assert configuration == {**dict.fromkeys(SECRETS, "********"), "Empty": ""}


def test_quiet_says_nothing_on_stderr(cli: Cli, bare: str) -> None:
    done = ours(cli, "--job-id", bare, "-q", "--query", "jobDetails.id")

    assert (done.stdout, done.stderr) == (f'"{bare}"\n', "")


def test_a_query_that_fails_does_not_repeat_the_revealed_value(cli: Cli, rich: str) -> None:
    query = "abs(jobDetails.data.actionConfiguration.configuration.Password)"

    done = ours(cli, "--job-id", rich, "--reveal-secrets", "--debug", "--query", query)

    assert done.returncode == 2
    assert done.stdout == ""
    assert "pl4nted" not in done.stderr
    assert done.stderr.endswith(f"Bad value for --query {query}: abs() takes number, got string\n")


# The input


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--job-id", "{id}"], {"CPSTAGE_JOB_ID": "another"}),
        (["--cli-input-json", '{{"jobId": "{id}"}}'], {"CPSTAGE_JOB_ID": "another"}),
        (["--cli-input-json", "file://input.json"], {}),
        (["--cli-input-json", '{{"jobId": 7}}', "--job-id", "{id}"], {}),
        (["--job-id", "file://id"], {}),
        (["--job-id=file://$HOME/id"], {}),
        (["--job", "{id}", "--reg", "us-east-1", "--out", "json"], {}),
        ([], {"CPSTAGE_JOB_ID": "{id}"}),
    ],
    ids=lambda value: " ".join(value) or "-",
)
def test_the_job_id_comes_from_the_option_then_the_json_then_the_environment(
    cli: Cli, bare: str, arguments: list[str], environment: dict[str, str]
) -> None:
    (cli.directory / "input.json").write_text(json.dumps({"jobId": bare}))
    (cli.directory / "id").write_text(f"{bare}\n")
    arguments = [argument.format(id=bare) for argument in arguments]
    variables = {name: value.format(id=bare) for name, value in environment.items()}

    done = ours(cli, *arguments, "--query", "jobDetails.id", HOME=str(cli.directory), **variables)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == bare


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no job is given"),
        (["--job-id", ""], "the job id is empty"),
        (["--cli-input-json", "{}"], "no job is given"),
        (["--cli-input-json", '{"jobId": "x", "foo": 1, "Bär": 2}'], 'members .*: "foo", "Bär"'),
        (["--cli-input-json", '{"foo": "pl4nted"}', "--job-id", "x"], 'unknown member .*: "foo"'),
        (["--cli-input-json", '{"jobId": 7777}'], '"jobId" .* is a number, not a string'),
        (["--cli-input-json", '["pl4nted"]'], "is an array, not an object"),
        (["--cli-input-json", '{"pl4nted'], "is not JSON: Unterminated string .* line 1 column 2"),
        (["--cli-input-json", "[" * 100_000], "nested too deeply"),
        (["--cli-input-json", "file://broken.json"], "is not JSON"),
        (["--cli-input-json", "file://latin1.json"], "latin1.json, .* not UTF-8 text"),
        (
            ["--cli-input-json", "file://missing"],
            "cannot read missing, .*--cli-input-json: No such",
        ),
        (
            ["--job-id", "file://~/missing"],
            "cannot read .*/missing, the value of --job-id: No such",
        ),
        (["--job-id", "x", "--query", "a["], r"Bad value for --query a\[: .*Incomplete expression"),
        (["--job-id", "x", "--query", ""], "Bad value for --query : .*cannot be empty"),
        (["--job-id", "x", "--output", "yaml"], "'yaml' is not one of 'json', 'text', 'table'"),
        (["--job-id", "x", "--json", "--output", "text"], "both --json and --output text"),
        (["--job-id", "x", "--cli-read-timeout", "-1"], "'-1' is not a number of seconds"),
        (["--generate-cli-skeleton", "both"], "'both' is not one of 'input', 'output'"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_bad_input_is_refused_on_one_line_before_any_call(
    aws: LocalAWS, cli: Cli, arguments: list[str], words: str
) -> None:
    (cli.directory / "broken.json").write_text("pl4nted")
    (cli.directory / "latin1.json").write_bytes(b'{"jobId": "pl4nted \xff"}')
    before = details_calls(aws)

    done = ours(cli, *arguments)

    assert done.returncode == 2
    assert done.stdout == ""
    assert_one_line(done.stderr)
    assert re.search(words, done.stderr)
    assert "pl4nted" not in done.stderr
    assert "7777" not in done.stderr
    assert details_calls(aws) == before


@pytest.mark.parametrize(
    ("output", "query", "words"),
    [
        ("json", "length(jobDetails.nothing)", r"length\(\) takes string or array or object, got"),
        ("json", "nothing_of_this_name(@)", r"Unknown function: nothing_of_this_name\(\)"),
        ("json", "jobDetails.data.inputArtifacts[::0]", "step cannot be zero"),
        ("table", "[jobDetails.id, [jobDetails.id, `1`]]", "rows of different columns"),
    ],
)
def test_a_query_that_does_not_suit_the_document_fails_where_the_aws_cli_fails(
    cli: Cli, bare: str, output: str, query: str, words: str
) -> None:
    arguments = ["--job-id", bare, "--output", output, "--query", query]

    theirs, done = side_by_side(cli, *arguments, also=["-q"])

    assert theirs.returncode != 0
    assert (done.returncode, done.stdout) == (2, "")
    assert_one_line(done.stderr)
    assert re.search(words, done.stderr)


# Skeletons


@pytest.mark.parametrize(
    "arguments",
    [
        ["--generate-cli-skeleton"],
        ["--generate-cli-skeleton", "input"],
        ["--generate-cli-skeleton", "--output", "table", "--query", "jobId"],
        ["--job-id", "x", "--cli-input-json", '{"foo": 1}', "--generate-cli-skeleton"],
    ],
    ids=" ".join,
)
def test_the_input_skeleton_equals_the_aws_clis(
    aws: LocalAWS, cli: Cli, arguments: list[str]
) -> None:
    nowhere = Cli({"PATH": "", "HOME": str(cli.directory), **python_path()}, cli.directory)
    before = len(aws.calls())

    theirs, done = side_by_side(cli, *arguments)
    done_nowhere = ours(nowhere, *arguments)

    assert theirs.returncode == done.returncode == 0, theirs.stderr + done.stderr
    assert done_nowhere.stdout == done.stdout == theirs.stdout
    assert done_nowhere.stderr == done.stderr == ""
    assert len(aws.calls()) == before


@pytest.mark.parametrize("arguments", [[], ["--client-token", "x"]], ids=["own", "third party"])
def test_the_output_skeleton_is_a_valid_document_with_every_member(
    aws: LocalAWS, cli: Cli, arguments: list[str]
) -> None:
    nowhere = Cli({"PATH": "", "HOME": str(cli.directory), **python_path()}, cli.directory)
    operation = "GetThirdPartyJobDetails" if arguments else "GetJobDetails"
    model = ServiceModel(Loader().load_service_model("codepipeline", "service-2"))
    shape: Any = model.operation_model(operation).output_shape
    before = len(aws.calls())

    done = ours(nowhere, *arguments, "--generate-cli-skeleton", "output")

    document = json.loads(done.stdout)
    assert not ParamValidator().validate(document, shape).has_errors()
    assert list(paths_of(document)) == list(paths_of_shape(shape))
    assert cpstage.parse_job(document).output_artifacts
    assert done.stderr == ""
    assert len(aws.calls()) == before


def python_path() -> dict[str, str]:
    return {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}


def paths_of(document: Any, path: str = "") -> list[str]:
    """Name every member of a document, values of maps left out."""
    if isinstance(document, list):
        return [found for item in document for found in paths_of(item, f"{path}[]")]
    if isinstance(document, dict) and not path.endswith("/configuration"):
        return [
            found for key, value in document.items() for found in paths_of(value, f"{path}/{key}")
        ]
    return [path]


def paths_of_shape(shape: Any, path: str = "") -> list[str]:
    if shape.type_name == "list":
        return paths_of_shape(shape.member, f"{path}[]")
    if shape.type_name == "structure":
        members = shape.members.items()
        return [found for key, one in members for found in paths_of_shape(one, f"{path}/{key}")]
    return [path]


def test_the_output_skeleton_takes_the_format_and_the_query(cli: Cli) -> None:
    query = "jobDetails.data.inputArtifacts[].location.[type, s3Location.bucketName]"

    done = ours(cli, "--generate-cli-skeleton=output", "--output", "text", "--query", query)

    assert done.stdout == "S3\tbucketName\n"


# The settings


def write_profiles(cli: Cli) -> None:
    """Make a profile of the same caller for each format, such as ``texts``."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    credentials = "".join(f"{name.lower()} = {cli.environment[name]}\n" for name in names)
    forms = ("text", "wrong", "yaml", "yaml-stream", "off")
    profiles = [f"[profile {form}s]\noutput = {form}\n{credentials}" for form in forms]
    config = Path(cli.environment["HOME"]) / ".aws" / "config"
    config.parent.mkdir()
    config.write_text("".join(profiles))


def test_the_format_comes_from_the_option_then_the_environment_then_the_profile(
    cli: Cli, bare: str
) -> None:
    write_profiles(cli)
    arguments = ["--job-id", bare, "--query", "jobDetails.[id]", "-q"]

    profile = ours(cli, *arguments, "--profile", "texts")
    environment = ours(cli, *arguments, AWS_PROFILE="texts", AWS_DEFAULT_OUTPUT="table")
    option = ours(cli, *arguments, "--output", "json", AWS_PROFILE="yamls", AWS_DEFAULT_OUTPUT="x")
    as_json = ours(cli, *arguments, "--json", AWS_DEFAULT_OUTPUT="text")
    bad_profile = ours(cli, *arguments, AWS_PROFILE="wrongs")
    bad_environment = ours(cli, *arguments, AWS_DEFAULT_OUTPUT="xml")

    assert profile.stdout == f"{bare}\n"
    assert "|  GetJobDetails  |" in re.sub(" +", "  ", environment.stdout)
    assert option.stdout == as_json.stdout == json.dumps([bare], indent=4) + "\n"
    for bad in (bad_profile, bad_environment):
        assert (bad.returncode, bad.stdout) == (78, "")
        assert_one_line(bad.stderr)
    assert "'output' of the AWS profile is 'wrong'" in bad_profile.stderr
    assert "AWS_DEFAULT_OUTPUT is 'xml'" in bad_environment.stderr


@pytest.mark.parametrize("form", ["yaml", "yaml-stream", "off"])
def test_a_configured_format_of_the_aws_cli_alone_is_printed_as_json(
    cli: Cli, bare: str, form: str
) -> None:
    """JSON is YAML."""
    write_profiles(cli)
    arguments = ["--job-id", bare, "--query", "jobDetails.[id]"]

    profile = ours(cli, *arguments, AWS_PROFILE=f"{form}s")
    environment = ours(cli, *arguments, AWS_DEFAULT_OUTPUT=form)

    for done, where in ((profile, "'output' of the AWS profile"), (environment, "AWS_DEFAULT_")):
        assert (done.returncode, done.stdout) == (0, json.dumps([bare], indent=4) + "\n")
        assert where in done.stderr
        assert f"is {form!r}; the document is printed as JSON" in done.stderr


def test_every_global_option_of_the_aws_cli_is_taken(aws: LocalAWS, cli: Cli, bare: str) -> None:
    arguments = ["--job-id", bare, "--endpoint-url", aws.endpoint_url, "--region", aws.region]
    arguments += [
        "--no-verify-ssl",
        "--no-paginate",
        "--output",
        "text",
        "--query",
        "jobDetails.id",
    ]
    arguments += ["--profile", "texts", "--color", "on", "--ca-bundle", "/dev/null", "--v2-debug"]
    arguments += ["--cli-read-timeout", "0", "--cli-connect-timeout", "9"]
    write_profiles(cli)

    theirs, done = side_by_side(
        cli, *arguments, also=["--no-cli-pager", "--no-cli-auto-prompt", "-q"]
    )

    assert theirs.returncode == done.returncode == 0, theirs.stderr + done.stderr
    assert done.stdout == theirs.stdout


def test_a_read_timeout_ends_the_wait_for_an_answer(cli: Cli) -> None:
    hurried = cli.with_variables({"AWS_MAX_ATTEMPTS": "1"})
    with stalling_server() as server:
        there = ("--endpoint-url", server.url)
        done = ours(hurried, "--job-id", "x", *there, "--cli-read-timeout", "1")

    assert done.returncode == 69
    assert_one_line(done.stderr)
    assert "Read timeout" in done.stderr


def test_a_call_without_a_signature_is_refused_as_such(aws: LocalAWS, cli: Cli, bare: str) -> None:
    done = ours(cli, "--job-id", bare, "--no-sign-request")

    call = [call for call in aws.calls() if call.job_id == bare][-1]
    assert call.identity == "anonymous"
    assert done.returncode == 77
    assert_one_line(done.stderr)


def test_an_unknown_job_is_not_found(cli: Cli) -> None:
    done = ours(cli, "--job-id", "11111111-2222-3333-4444-555555555555")

    assert (done.returncode, done.stdout) == (66, "")
    assert_one_line(done.stderr)
    assert "JobNotFoundException" in done.stderr


def test_no_region_is_said_on_one_line(cli: Cli, bare: str) -> None:
    done = cli("get-job-details", "--job-id", bare, without=("AWS_REGION", "AWS_DEFAULT_REGION"))

    assert (done.returncode, done.stdout) == (78, "")
    assert_one_line(done.stderr)


def test_an_encoding_that_cannot_hold_the_document_is_said_on_one_line(cli: Cli, rich: str) -> None:
    done = ours(cli, "--job-id", rich, "--reveal-secrets", "--debug", PYTHONIOENCODING="iso-8859-1")

    assert (done.returncode, done.stdout) == (78, "")
    assert "pl4nted" not in done.stderr
    assert "cannot be printed in the encoding iso8859-1" in done.stderr.splitlines()[-1]


def test_help_and_version_load_nothing_of_aws(cli: Cli) -> None:
    program = (
        "import sys, atexit\n"
        "names = ('boto3', 'botocore', 'jmespath', 'moto')\n"
        "atexit.register(lambda: print('loaded:', [n for n in names if n in sys.modules]))\n"
        "from cpstage.cli import main\n"
        "main(['get-job-details', sys.argv[1]])\n"
    )
    for option, words in (("--help", "--reveal-secrets"), ("--version", cpstage.__version__)):
        done = subprocess.run(
            [sys.executable, "-c", program, option],
            env=cli.environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert words in done.stdout
        assert done.stdout.endswith("loaded: []\n")
