#!/bin/sh
# A build step between fetch and push: give it a job id and the command that builds.
#
#   examples/build-step.sh JOB_ID make release
#
# The command runs in the workspace, with in/<artifact>/ to read and out/<artifact>/ to fill, and
# with the variables of the job (CPSTAGE_IN_<NAME>, CPSTAGE_OUT_<NAME>, ...). The workspace is
# removed when all went well, and kept for a look when something failed.
set -eu

if [ $# -lt 2 ]; then
    echo "usage: $0 JOB_ID COMMAND [ARGUMENT ...]" >&2
    exit 2
fi
job_id=$1
shift

workspace=$(mktemp -d "${TMPDIR:-/tmp}/job.XXXXXX")
trap 'echo "failed: the workspace is kept in $workspace" >&2' EXIT

cpstage fetch "$job_id" --workspace "$workspace" --env-file "$workspace/job.env"
(
    set -a
    . "$workspace/job.env"
    set +a
    cd "$workspace"
    "$@"
)
cpstage push "$job_id" --workspace "$workspace"

trap - EXIT
rm -rf "$workspace"
