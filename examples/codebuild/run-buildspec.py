#!/usr/bin/env python3
"""Runs the commands of a buildspec where CodeBuild is not, for a job that cpstage has fetched.

    cpstage run JOB_ID --report --codebuild-env --cwd AppSource \
        --output-path AppBuild=in/AppSource/dist/app \
        --output-path AppReport=in/AppSource/dist/report \
        -- python3 /srv/ci/run-buildspec.py /srv/ci/buildspec.yml

Phases come in CodeBuild's order, and all commands of a phase in one shell, which ends at the first
that fails; post_build runs as well when build has failed. What else a buildspec may hold (env,
artifacts, cache, reports) is not read: artifacts are named by --output-path. Needs PyYAML.
"""

import subprocess
import sys
from pathlib import Path

import yaml

PHASES = ("install", "pre_build", "build", "post_build")


def main() -> int:
    """Run the phases, and return the exit code of the first that failed."""
    if len(sys.argv) != 2:
        print(f"usage: {sys.argv[0]} BUILDSPEC", file=sys.stderr)
        return 2
    phases = yaml.safe_load(Path(sys.argv[1]).read_text())["phases"]
    failed = 0
    for phase in PHASES:
        commands = phases.get(phase, {}).get("commands", [])
        if not commands or (failed and phase != "post_build"):
            continue
        print(f"[{phase}]", flush=True)
        code = subprocess.run(["sh", "-xec", "\n".join(commands)]).returncode
        failed = failed or code
        if failed and phase != "build":
            break
    return failed if failed >= 0 else 128 - failed


if __name__ == "__main__":
    sys.exit(main())
