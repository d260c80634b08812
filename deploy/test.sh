#!/usr/bin/env bash
# Installs what is missing and runs the tests, on a machine without a GPU: bash deploy/test.sh [PYTEST ARGUMENT...]
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE  # else each of the many processes compiles what it imports anew
bash deploy/install.sh dev
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
bin=.venv/bin
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy"
# Two at a time, a file as a whole to one of them; in the order of the folders, which begins with the longest.
exec "$bin/python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
