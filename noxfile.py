"""The development commands: ``nox -l`` lists them, ``nox -s lint types tests-quick`` runs three.

Each session has a virtual environment of its own, so the checkout's ``.venv`` stays what it is.
"""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["lint", "types", "tests-quick"]
nox.options.reuse_existing_virtualenvs = True

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and the CloudFormation template; ``-- --fix`` mends what can be."""
    session.install("-e", ".[dev]")
    session.run("ruff", "check", ".", *session.posargs)
    session.run("ruff", "format", *([] if "--fix" in session.posargs else ["--check"]), ".")
    session.run("cfn-lint", "examples/worker/pipeline.yaml", "examples/jenkins/pipeline.yaml")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    session.install("-e", ".[dev]")
    session.run("mypy")


@nox.session(name="tests-quick", python=PYTHONS)
def tests_quick(session: nox.Session) -> None:
    """Run the tests that are neither slow nor end to end: a minute on two cores."""
    session.install("-e", ".[test]")
    session.run("pytest", "-n", "auto", "-m", "not slow and not e2e", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests; ``-- -k NAME`` and other options go to pytest."""
    session.install("-e", ".[test]")
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Write the pages that are made from the source: reference, JSON, API, and the rooms."""
    session.install("-e", ".[test]")
    session.run("python", "tools/pages/reference.py", *session.posargs)
    session.run("python", "tools/pages/api.py")
    session.run("python", "tools/pictures/rooms.py")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure fetch and push beside other tools: ``-- --kinds D --rounds 1`` is the shortest."""
    session.install("-e", ".[local]")
    session.run("python", "tools/benchmarks/transfer.py", *session.posargs)


@nox.session
def release(session: nox.Session) -> None:
    """Build wheel, sdist, executable and image into dist/; ``-- --only wheel`` builds a part."""
    session.install("build", "hatchling>=1.25", "pex")
    session.run("python", "tools/release/build.py", *session.posargs)
