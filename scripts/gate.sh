#!/usr/bin/env bash
# The regression gate as one script: GitHub Actions, GitLab, Jenkins and a terminal run the same.
#
#   scripts/gate.sh                           against the stored baseline NAME
#   BASE_REF=origin/main scripts/gate.sh      against another commit, measured alternately with this one
#   SAVE=1 scripts/gate.sh                    measure this commit and save it as the baseline NAME
#
# CONFIG       what to measure                                 [configs/ci-gpu.yaml]
# NAME         of the baseline                                 [the configuration's file name]
# BASELINES    folder of baselines, one file for each machine  [baselines]
# OUT          folder for summary, records, report             [gate-out]; must be new
# FAIL_ON      limits, as --fail-on                            [the default's]
# SAVE_ROUNDS  rounds of a baseline                            [32]
# BENCH        the command                                     [bench]
#
# Exit codes: 0 passed, 1 regression, 2 usage, 3 not comparable or unclear.
set -euo pipefail

CONFIG=${CONFIG:-configs/ci-gpu.yaml}
NAME=${NAME:-$(basename "${CONFIG%.*}")}
BASELINES=${BASELINES:-baselines}
OUT=${OUT:-gate-out}
SAVE_ROUNDS=${SAVE_ROUNDS:-32}
BENCH=${BENCH:-bench}

mkdir -p "$OUT"

if [ -n "${SAVE:-}" ]; then
  "$BENCH" run "$CONFIG" --out "$OUT/runs/baseline" --set "protocol.rounds=$SAVE_ROUNDS" --report
  "$BENCH" baseline save "$OUT/runs/baseline" --as "$NAME" --baselines "$BASELINES"
  printf '## Saved the baseline %s\n\n' "$NAME" > "$OUT/summary.md"
  exit 0
fi

arguments=("$CONFIG" --runs "$OUT/runs" --out "$OUT/summary.md" --out "$OUT/gate.json"
  --out "$OUT/junit.xml")
if [ -n "${FAIL_ON:-}" ]; then
  arguments+=(--fail-on "$FAIL_ON")
fi
if [ -n "${BASE_REF:-}" ]; then
  base=$(mktemp -d)
  git worktree add --detach "$base/checkout" "$BASE_REF"
  trap 'git worktree remove --force "$base/checkout"; rmdir "$base"' EXIT
  arguments+=(--paired --base-checkout "$base/checkout")
else
  arguments+=(--baseline "$NAME" --baselines "$BASELINES")
fi

code=0
"$BENCH" gate "${arguments[@]}" || code=$?

# The candidate's own report: table, figures, and its images beside the eager ones.
if [ -f "$OUT/runs/candidate/records.jsonl" ]; then
  "$BENCH" report "$OUT/runs/candidate" --out "$OUT/report"
fi
exit "$code"
