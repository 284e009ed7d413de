#!/usr/bin/env bash
# Run the worker's tests and the check of each backend under old interpreters and old torch: too slow
# for every change. Builds missing environments (several gigabytes).
#
#   scripts/test_environments.sh [ENVIRONMENT …]     nexfort, nexfort310 and oneflow by default;
#                                                    nexfort310 is nexfort under Python 3.10
#
# PYTHON=.venv/bin/python   interpreter that has `bench`
set -u
cd "$(dirname "$0")/.." || exit 1
PYTHON=${PYTHON:-.venv/bin/python}
[ $# -gt 0 ] || set -- nexfort nexfort310 oneflow
export OMP_NUM_THREADS=1
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
if [ -z "${BENCH_ENVIRONMENT_FILES:-}" ]; then
  export BENCH_ENVIRONMENT_FILES=$tools/declared
  mkdir "$BENCH_ENVIRONMENT_FILES"
  printf 'extends = "nexfort"\npython = ["3.10"]\n' > "$BENCH_ENVIRONMENT_FILES/nexfort310.toml"
fi
failed=0
begun=$SECONDS

for name in "$@"; do
  start=$SECONDS
  "$PYTHON" -m bench.cli env sync "$name" || { failed=1; continue; }
  interpreter=$("$PYTHON" -m bench.cli env list --json | "$PYTHON" -c '
import json, sys
rows = json.load(sys.stdin)
print(next(row["interpreter"] for row in rows if row["name"] == sys.argv[1]))' "$name")
  # Beside the environment, so that its packages stay those of the lock.
  "$PYTHON" -m pip install -q --target "$tools/$name" --only-binary=:all: --python-version \
    "$("$interpreter" -c 'import platform; print(platform.python_version())')" \
    "pytest>=8" pytest-timeout hypothesis exceptiongroup tomli || { failed=1; continue; }
  # The sweep in a process of its own, as cells are: torch 2.0 remembers code that it gave up.
  sweep=tests/worker/test_sweep_real.py
  export PYTHONPATH="$PWD:$tools/$name"
  timeout 1500 nice "$interpreter" -m pytest -q -p no:cacheprovider \
    tests/worker --ignore tests/worker/test_sources_hub.py --ignore "$sweep" || failed=1
  timeout 300 nice "$interpreter" -m pytest -q -p no:cacheprovider "$sweep" || failed=1
  unset PYTHONPATH
  if "$interpreter" -c 'import onediffx.compilers.diffusion_pipeline_compiler' 2>/dev/null; then
    PYTHONPATH=$PWD "$interpreter" scripts/record_signatures.py 2>/dev/null |
      diff - tests/compilers/onediffx-1.2.0.json || failed=1
  fi
  timeout 1500 nice "$PYTHON" -m bench.cli env check "$name" --device cpu
  echo "$name: $((SECONDS - start)) s"
done
echo "all environments: $((SECONDS - begun)) s"
exit "$failed"
