#!/bin/sh
# A build for the walk-through: what lies in the input artifact goes into the output artifact.
set -eu

mkdir -p "$CPSTAGE_OUT_APP"
cp "$CPSTAGE_IN_SOURCE/greeting.txt" "$CPSTAGE_OUT_APP/"
echo "built by $CPSTAGE_ACTION of $CPSTAGE_PIPELINE" >>"$CPSTAGE_OUT_APP/greeting.txt"
cat "$CPSTAGE_OUT_APP/greeting.txt"
