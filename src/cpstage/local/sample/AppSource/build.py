"""Build step of the sample: test the greeter, pack it as one runnable file, write a report.

It reads `in/AppSource` and `in/AppConfig` below the current directory, and writes `out/AppBuild`
and `out/AppReport`. Python's standard library is all it needs.
"""

import io
import json
import shutil
import sys
import tempfile
import unittest
import zipapp
from pathlib import Path

SOURCE = Path("in/AppSource")
CONFIG = Path("in/AppConfig")
BUILD = Path("out/AppBuild")
REPORT = Path("out/AppReport")


def run_tests() -> bool:
    """Run the unit tests, and write their report; return whether all passed."""
    REPORT.mkdir(parents=True, exist_ok=True)
    log = io.StringIO()
    suite = unittest.defaultTestLoader.discover(str(SOURCE / "greeter"), top_level_dir=str(SOURCE))
    result = unittest.TextTestRunner(stream=log, verbosity=2).run(suite)
    summary = {
        "tests": result.testsRun,
        "failures": len(result.failures),
        "errors": len(result.errors),
        "passed": result.wasSuccessful(),
    }
    (REPORT / "tests.txt").write_text(log.getvalue(), encoding="utf-8")
    (REPORT / "tests.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    (REPORT / "warnings.log").write_text("", encoding="utf-8")
    return result.wasSuccessful()


def build() -> Path:
    """Pack the greeter with its settings as a runnable zip application; return its path."""
    settings = json.loads((CONFIG / "settings.json").read_text(encoding="utf-8"))
    BUILD.mkdir(parents=True, exist_ok=True)
    application = BUILD / f"greeter-{settings['version']}.pyz"
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch)
        shutil.copytree(
            SOURCE / "greeter", tree / "greeter", ignore=shutil.ignore_patterns("test_*")
        )
        shutil.copy(CONFIG / "settings.json", tree / "greeter" / "settings.json")
        zipapp.create_archive(
            tree, application, interpreter="/usr/bin/env python3", main="greeter.command:main"
        )
    application.chmod(0o755)
    latest = BUILD / "greeter-latest.pyz"
    latest.unlink(missing_ok=True)
    latest.symlink_to(application.name)
    return application


if __name__ == "__main__":
    if not run_tests():
        sys.exit("The unit tests failed; see out/AppReport/tests.txt")
    sys.stdout.write(f"built {build()}\n")
