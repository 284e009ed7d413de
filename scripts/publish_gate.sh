#!/usr/bin/env bash
# Store a gate's baselines and images on a separate branch, so that a job summary can show them and
# the next run finds them.
#
#   scripts/publish_gate.sh GATE_OUT KEPT
#
# GATE_OUT  output folder of scripts/gate.sh
# KEPT      folder for a checkout of the branch; must be new
# RESULTS   the branch [bench-gate]        RUN   name of this run [now]
# SAVE      not empty: GATE_OUT/baselines replaces the branch's
# KEEP      number of runs whose images are kept [50]
set -euo pipefail

from=$1
kept=$2
RESULTS=${RESULTS:-bench-gate}
RUN=${RUN:-$(date -u +%Y%m%dT%H%M%S)}
KEEP=${KEEP:-50}

if git fetch --depth 1 origin "$RESULTS"; then
  git worktree add --detach "$kept" FETCH_HEAD
else
  git worktree add --detach "$kept" HEAD
  git -C "$kept" checkout --orphan "$RESULTS"
  git -C "$kept" rm -rqf .
fi

mkdir -p "$kept/runs/$RUN"
for image in "$from"/report/plots/*.png "$from"/report/gallery/*.png; do
  if [ -e "$image" ]; then cp "$image" "$kept/runs/$RUN/"; fi
done
if [ -n "${SAVE:-}" ] && [ -d "$from/baselines" ]; then
  mkdir -p "$kept/baselines"
  cp -r "$from/baselines/." "$kept/baselines/"
fi

# The oldest first, by name: run numbers and times both grow.
find "$kept/runs" -mindepth 1 -maxdepth 1 -type d | sort | head -n "-$KEEP" | xargs -r rm -rf

git -C "$kept" add --all
if git -C "$kept" diff --cached --quiet; then
  echo "Nothing to keep."
else
  git -C "$kept" -c user.name=bench -c user.email=bench@localhost commit -qm "Gate $RUN"
  git -C "$kept" push -q origin "HEAD:refs/heads/$RESULTS"
fi
