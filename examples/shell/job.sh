#!/bin/sh
# A CodePipeline job in plain POSIX sh, with its result reported whatever happens:
#
#   examples/shell/job.sh JOB_ID COMMAND [ARGUMENT ...]
#
# 'cpstage run JOB_ID --report -- COMMAND' does the same and more; this is for scripts that have
# steps of their own between the three.
set -eu

if [ $# -lt 2 ]; then
    echo "usage: $0 JOB_ID COMMAND [ARGUMENT ...]" >&2
    exit 2
fi
export CPSTAGE_JOB_ID="$1"
shift
CPSTAGE_WORKSPACE=$(mktemp -d "${TMPDIR:-/tmp}/job.XXXXXX")
export CPSTAGE_WORKSPACE
doing=fetching

# Runs at every end: of a command that failed, of a signal, and of the last line.
finish() {
    code=$?
    trap - EXIT
    trap '' HUP INT TERM
    if [ "$code" -ne 0 ]; then
        cpstage report failure --message "$doing ended with exit code $code" || true
    fi
    rm -rf "$CPSTAGE_WORKSPACE"
    exit "$code"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

cpstage fetch
variables=$(cpstage env)
eval "$variables"

doing=building
(cd "$CPSTAGE_WORKSPACE" && "$@")

doing=pushing
cpstage push

doing=reporting
cpstage report success --summary "built by $(uname -n)"
