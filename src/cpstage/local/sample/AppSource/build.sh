#!/bin/sh
# Builds the greeter: run it in the workspace that cpstage fetched.
set -eu
exec "${PYTHON:-python3}" -B "$(dirname "$0")/build.py"
