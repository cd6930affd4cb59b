"""The development commands: ``nox -l`` lists them, ``nox -s lint types tests-quick`` runs three.

Each session has a virtual environment of its own, so the checkout's ``.venv`` stays what it is.
"""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["lint", "types", "tests-quick"]
nox.options.reuse_existing_virtualenvs = True

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
QUICK = [
    "build_scripts",
    "docs",
    "env",
    "fetch",
    "http",
    "job",
    "publishing",
    "push",
    "refusals",
    "report",
    "run",
    "startup",
    "unpack_pack",
    "without_posix",
]
"""Files of tests that reach every command, and run in about a minute on two cores."""


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and the CloudFormation template; ``-- --fix`` mends what can be."""
    session.install("-e", ".[dev]")
    session.run("ruff", "check", ".", *session.posargs)
    session.run("ruff", "format", *([] if "--fix" in session.posargs else ["--check"]), ".")
    session.run("cfn-lint", "examples/worker/pipeline.yaml")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    session.install("-e", ".[dev]")
    session.run("mypy")


@nox.session(name="tests-quick", python=PYTHONS)
def tests_quick(session: nox.Session) -> None:
    """Run the files of tests that reach every command."""
    session.install("-e", ".[test]")
    files = [f"tests/test_{name}.py" for name in QUICK]
    session.run("pytest", "-n", "auto", *files, *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests; ``-- -k NAME`` and other options go to pytest."""
    session.install("-e", ".[test]")
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Write the pages that are made from the source: reference, JSON, API, and the rooms."""
    session.install("-e", ".[test]")
    session.run("python", "docs/generate.py", *session.posargs)
    session.run("python", "tests/api_page.py")
    session.run("python", "tests/pictures/rooms.py")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure fetch and push beside other tools: ``-- --kinds D --rounds 1`` is the shortest."""
    session.install("-e", ".[local]")
    session.run("python", "tests/benchmarks/transfer.py", *session.posargs)
